//! kvdb: the catalog, replicated between the nodes with openraft.
//!
//! [`Kvdb`] is what a node holds: it proposes commands, confirms what it read, and watches. Everything that openraft needs is
//! behind it, and nothing of openraft shows: it can be replaced without a change outside of this crate.
//!
//! * A member of the Raft group is a node *and* the incarnation of its store (I12): a node whose disk was replaced comes
//!   back as another member, which has given no vote yet. Messages name the member that they are for.
//! * Vote and log are records of a journal of kvdb's own. One thread owns the disk: nothing is synced on a thread of the
//!   runtime. The applied catalog is in memory; its snapshots are files, and the log is purged only up to a durable one.
//! * Who votes follows the catalog ([`isthmus_catalog::Catalog::voters`]): the leader converges to it all the time.
//!
//! Reading order: [`peers`] (the seam to the network), [`handle`], `ask` (how a command reaches the leader), `detour` (how news comes
//! while it can't be reached), `serve`,
//! `membership`, then what openraft asks for: `group` (its types), `network`, `log_store`, `machine`, and below these
//! `storage`: `records`, `retained`, `writer`, `snapshots`. [`decoders`] is the way in for tests that feed them anything.

mod ask;
#[cfg(not(test))]
mod compiled;
mod config;
pub mod decoders;
mod detour;
mod error;
mod group;
pub mod handle;
mod log_store;
mod machine;
mod membership;
mod metrics;
mod network;
pub mod peers;
mod runtime;
mod serve;
mod storage;
mod watch;
mod wire;

#[cfg(not(test))]
#[doc(hidden)]
pub use compiled::on_tokio;
pub use config::KvdbConfig;
pub use detour::{Bypass, Detour};
pub use error::KvdbError;
pub use group::MemberId;
pub use handle::{Kvdb, Own};
pub use machine::Observer;
pub use metrics::KvdbMetrics;
pub use peers::Peers;
pub use runtime::{Runtime, Tokio};
pub use storage::{AwaitedDisk, DiskOwner, force, format, format_with};
pub use watch::CatalogWatch;
pub use wire::{GivenVote, given_vote};

#[cfg(test)]
mod tests;

//! Whole clusters in one thread from one seed: two data nodes, each the real host (`node/host`: engine, journal and extents joined)
//! over a simulated disk, a link that cuts and reorders, clocks that drift, an operator, clients, and crashes of everything at any time.
//! The checkers then say whether what the clients saw can be told from one correct disk.
//!
//! kvdb runs as it ships ([`group`]: openraft with its elections, our log, snapshots and client), on a runtime of ours, in three of four
//! seeds; in the others it is an atomic stand-in with worse delays ([`cluster`], `kvdb`). quinn, TLS, NBD and the kernel's disk are
//! replaced; real processes in `tests/` cover these.
//!
//! Reading order: [`scenario`] (what a seed decides), [`cluster`] (the simulated world and its loop), [`group`] (kvdb), [`content`] (how a sector tells who
//! wrote it), [`checkers`] (what must hold), [`timeline`] (what is left for people to read).

pub mod checkers;
pub mod clock;
pub mod cluster;
pub mod content;
pub mod group;
pub mod scenario;
pub mod schedule;
pub mod shrink;
pub mod timeline;

pub use cluster::{Failure, Simulation, Summary};

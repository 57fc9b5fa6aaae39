//! Sessions between nodes over QUIC with mutual TLS from the cluster's own authority; there is no plain mode.
//!
//! A session with a peer is three connections (control, mirrored writes, resync), so that neither of the last two holds
//! up the first. The node with the lower number dials; a greeting on each connection says to which session it belongs.
//!
//! ```text
//!   absent ──(lower number dials; three connections, each verified and greeted)──► up ──(any of the three lost)──► absent
//! ```
//!
//! Invariants:
//! * A session is up only with the node whose certificate the cluster's authority issued for that very number.
//! * For one peer, up, frames and down are strictly ordered; no frame of an older session comes after a newer one is up.
//! * A lane is one QUIC stream in each direction, opened at the first frame; its frames stay in order.
//! * What a peer can make this node keep in memory is bounded: by flow control, by [`FRAME_BYTES_MAX`] and
//!   [`CALL_BYTES_MAX`], and by a budget for what is unfinished. A peer that breaks the protocol loses its session only.
//!
//! Reading order: [`handler`] (what a user sees), [`transport`] (start, send, call, stop), `wire` (the bytes), `peer` (the
//! order of callbacks), `dial` and `accept` (how a session comes up), `session`, `sending`, `receiving`, `calls`,
//! [`certificates`], `quic` (tuning), `refusals`.

mod accept;
mod calls;
pub mod certificates;
mod dial;
pub mod handler;
mod peer;
mod quic;
mod receiving;
mod refusals;
mod sending;
mod session;
pub mod transport;
pub mod wire;

pub use certificates::{Authority, CertificateFiles};
pub use handler::{Answer, CallError, Handler, Lane, PeerStats, SendError, SessionId};
pub use transport::{Config, Transport};
pub use wire::{CALL_BYTES_MAX, FRAME_BYTES_MAX};

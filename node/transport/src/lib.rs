//! Sessions between nodes with mutual TLS from the cluster's own authority; there is no plain mode.
//!
//! A session with a peer is three connections (control, mirrored writes, resync), so that neither of the last two holds
//! up the first. Control is QUIC; the other two are TLS over TCP or QUIC, as the dialing node is configured. The node with the lower number dials; a greeting on each connection says to which session it belongs.
//!
//! ```text
//!   absent ──(lower number dials; three connections, each verified and greeted)──► up ──(any of the three lost)──► absent
//! ```
//!
//! Invariants:
//! * A session is up only with the node whose certificate the cluster's authority issued for that very number.
//! * For one peer, up, frames and down are strictly ordered; no frame of an older session comes after a newer one is up.
//! * Frames of a lane stay in order: over QUIC it is one stream in each direction; over TLS the lanes share one connection.
//! * What a peer can make this node keep in memory is bounded: by flow control, by [`FRAME_BYTES_MAX`] and
//!   [`CALL_BYTES_MAX`], and by a budget for what is unfinished. A peer that breaks the protocol loses its session only.
//!
//! Reading order: [`handler`] (what a user sees), [`transport`] (start, send, call, stop), `wire` (the bytes), `peer` (the
//! order of callbacks), `listening`, `dial` and `accept` (how a session comes up), `session`, `sending`, `receiving`
//! (streams), `mixed` and `tls` (TLS over TCP), [`tunnel`] (bytes beside the session), [`forwarding`] (what is said first in one), `calls`, [`certificates`], `trust`, `quic` (tuning), `retransmits`, `refusals`.

mod accept;
mod calls;
pub mod certificates;
mod dial;
pub mod forwarding;
mod generation;
pub mod handler;
mod listening;
mod mixed;
mod peer;
mod quic;
mod receiving;
mod refusals;
mod retransmits;
mod sending;
mod session;
mod tls;
pub mod transport;
mod trust;
pub mod tunnel;
pub mod wire;

pub use certificates::{Authority, CertificateFiles};
pub use generation::LINEAGE_MAX;
pub use handler::{Answer, CallError, Handler, Lane, PeerStats, SendError, SessionId};
pub use transport::{Bulk, Config, Transport};
pub use tunnel::Tunnel;
pub use wire::{CALL_BYTES_MAX, FRAME_BYTES_MAX};

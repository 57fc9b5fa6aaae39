//! What the transport's user sees of a peer: sessions, lanes, frames, calls, and why sending failed.

use crate::tunnel::Tunnel;
use crate::wire::Class;
use bytes::Bytes;
use isthmus_engine::{NodeId, VolumeId};
use std::pin::Pin;
use std::time::Duration;

/// Names one session with one peer: a time without a gap. Rises with every session of this process, whoever the peer is.
/// Only this node's number: the peer numbers the same session on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// An ordered way through a session, in both directions. Frames of one lane arrive in the order in which they were sent;
/// lanes neither order nor hold up each other, except that those of one kind share the flow control of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Grants, epochs, membership: short frames that nothing holds up.
    Control,
    /// Mirrored writes of a volume, and their acknowledgements.
    Write(VolumeId),
    /// Resync of a volume.
    Resync(VolumeId),
}

impl Lane {
    pub(crate) fn class(self) -> Class {
        match self {
            Lane::Control => Class::Control,
            Lane::Write(_) => Class::Write,
            Lane::Resync(_) => Class::Resync,
        }
    }
}

/// The answer to a call, some time later.
pub type Answer = Pin<Box<dyn Future<Output = Bytes> + Send>>;

/// Takes what peers send. All methods are called on a thread of the transport's runtime and must not block it: they hand over
/// and return. They may call [`crate::Transport::send`].
///
/// For one peer, `session_up`, `frame` and `session_down` are strictly ordered: frames of a session come only between
/// its up and its down, and a session is down before the next is up.
pub trait Handler: Send + Sync + 'static {
    /// A session with the peer is there.
    fn session_up(&self, peer: NodeId, session: SessionId);
    /// The session is over; what was sent on it may or may not have arrived.
    fn session_down(&self, peer: NodeId, session: SessionId);
    /// A frame came; its content is the peer's word, bounded in length by [`crate::FRAME_BYTES_MAX`] and nothing else.
    /// It may share memory (up to some 64 KiB) with its neighbours: copy what is kept for long.
    fn frame(&self, peer: NodeId, session: SessionId, lane: Lane, frame: Bytes);
    /// The peer was reached and belongs to another generation of the cluster, with this lineage: there is no session with it. Said again
    /// at each try.
    fn other_generation(&self, _peer: NodeId, _lineage: Vec<u64>) {}
    /// Answers a call with at most [`crate::CALL_BYTES_MAX`] bytes; a longer answer is not sent, and the call fails.
    /// `service` and `request` are the peer's word. The answer's future is dropped when the session ends before it is done.
    fn call(&self, peer: NodeId, service: u8, request: Bytes) -> Answer;
    /// The peer has opened a tunnel to this node; dropped, it is refused. What comes through it is the peer's word.
    fn tunnel(&self, peer: NodeId, tunnel: Tunnel) {
        drop(tunnel);
        tracing::debug!(%peer, "a tunnel came, nobody is there to take it");
    }
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The session is over (or was never there).
    #[error("the session is over")]
    SessionOver,
    /// The queue to this peer is full; there is room again as the peer takes what is queued, or when the session ends.
    #[error("the queue to this peer is full")]
    Full,
    /// Longer than [`crate::FRAME_BYTES_MAX`].
    #[error("a frame of {bytes} bytes is too long")]
    TooLong {
        /// The frame's length.
        bytes: usize,
    },
}

/// Why a call has no answer. Except after `NotConnected` and `TooLong` the peer may have acted on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no session with this peer.
    #[error("not connected")]
    NotConnected,
    /// Longer than [`crate::CALL_BYTES_MAX`].
    #[error("a request of {bytes} bytes is too long")]
    TooLong {
        /// The request's length.
        bytes: usize,
    },
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The session ended, or the peer refused the call or broke the protocol.
    #[error("the peer went away or refused the call")]
    Broken,
}

/// What is known of the way to a peer. Counters rise from the transport's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// The present session.
    pub session: Option<SessionId>,
    /// Sessions that came up.
    pub sessions: u64,
    /// The round trip as the control connection estimates it.
    pub round_trip: Option<Duration>,
    /// Bytes that wait in the queue to the peer.
    pub queued_bytes: usize,
    /// Frames taken for sending.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames handed to the handler.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Packets that the present session's QUIC connections lost.
    pub packets_lost: u64,
    /// Segments that the present session's TCP connections sent again, as it was at the figures before these.
    pub segments_retransmitted: u64,
}

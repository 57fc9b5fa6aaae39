//! The seam to the network: kvdb asks a peer and gets bytes back, or an error in bounded time.

use bytes::Bytes;
use isthmus_engine::NodeId;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

/// The answer of a peer, some time later.
pub type PeerAnswer<'a> = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>>;

/// Calls other nodes. The other side hands the request to [`crate::Kvdb::serve`] and returns what that gives.
pub trait Peers: Send + Sync + 'static {
    /// Sends `request` to the node and waits for its answer, at most for `within`. Requests and answers have at most
    /// [`CALL_BYTES_MAX`] bytes. An error says nothing about whether the peer has acted.
    fn call(&self, to: NodeId, request: Bytes, within: Duration) -> PeerAnswer<'_>;
}

/// Bytes of a request or an answer at most.
pub const CALL_BYTES_MAX: usize = 1 << 20;

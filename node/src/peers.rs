//! The node's place on the network: who gets what peers send, and how kvdb asks them.

use crate::cluster::OwnState;
use crate::replicas::detour;
use crate::serve::DataPath;
use bytes::Bytes;
use isthmus_engine::NodeId;
use isthmus_kvdb::Kvdb;
use isthmus_kvdb::peers::PeerAnswer;
use isthmus_transport::{Answer, Handler, Lane, SessionId, Transport, Tunnel};
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;

/// kvdb's messages.
const SERVICE_KVDB: u8 = 1;
/// What the node says about itself: JSON of [`isthmus_api::NodeRuntime`].
pub const SERVICE_RUNTIME: u8 = 2;
/// The applied catalog, if it is newer than the revision asked with (8 bytes, little-endian).
pub const SERVICE_CATALOG: u8 = 3;
/// The catalog by a linearizable read.
pub const SERVICE_CONFIRM: u8 = 4;

/// Nothing: whoever asks measures how long the empty answer takes.
pub const SERVICE_PROBE: u8 = 5;

/// The way out, for those who are there before the transport is. Clones are the same one.
#[derive(Clone, Default)]
pub struct Outlet(Arc<OnceLock<Arc<Transport>>>);

impl Outlet {
    /// The transport, once it runs.
    pub fn transport(&self) -> Option<&Arc<Transport>> {
        self.0.get()
    }

    /// Opens the way out.
    ///
    /// # Panics
    /// At the second call.
    pub fn open(&self, transport: Arc<Transport>) {
        assert!(self.0.set(transport).is_ok(), "a node has one transport");
    }

    /// Calls a peer.
    ///
    /// # Errors
    /// When it does not answer within `limit`; it may have acted all the same.
    pub async fn call(
        &self,
        to: NodeId,
        service: u8,
        request: Bytes,
        limit: Duration,
    ) -> io::Result<Bytes> {
        let transport = self
            .transport()
            .ok_or_else(|| io::Error::other("this node is starting"))?;
        transport
            .call(to, service, request, limit)
            .await
            .map_err(io::Error::other)
    }
}

/// kvdb's way to its peers.
pub struct KvdbPeers(pub Outlet);

impl isthmus_kvdb::Peers for KvdbPeers {
    fn call(&self, to: NodeId, request: Bytes, within: Duration) -> PeerAnswer<'_> {
        Box::pin(self.0.call(to, SERVICE_KVDB, request, within))
    }
}

/// Hands what peers send to whom it is for.
pub struct Switchboard {
    /// kvdb of this node.
    pub kvdb: Kvdb,
    /// The data path of this node.
    pub data_path: Arc<dyn DataPath>,
    /// What this node says about itself.
    pub own: Arc<OwnState>,
    /// The node's runtime: the transport's own thread does nothing but move bytes.
    pub runtime: Handle,
}

impl Handler for Switchboard {
    fn session_up(&self, peer: NodeId, session: SessionId) {
        tracing::info!(%peer, session = session.0, "session with a peer is up");
        self.own.generation.is_ours(peer);
        self.data_path.session_up(peer, session);
    }

    fn session_down(&self, peer: NodeId, session: SessionId) {
        tracing::info!(%peer, session = session.0, "session with a peer is over");
        self.data_path.session_down(peer, session);
    }

    fn other_generation(&self, peer: NodeId, lineage: Vec<u64>) {
        self.own.generation.met(peer, lineage);
    }

    fn frame(&self, peer: NodeId, session: SessionId, lane: Lane, frame: Bytes) {
        self.data_path.frame(peer, session, lane, frame);
    }

    fn tunnel(&self, peer: NodeId, tunnel: Tunnel) {
        self.data_path.tunnel(peer, tunnel);
    }

    fn call(&self, peer: NodeId, service: u8, request: Bytes) -> Answer {
        if service == SERVICE_PROBE {
            return Box::pin(std::future::ready(Bytes::new()));
        }
        let (kvdb, own) = (self.kvdb.clone(), Arc::clone(&self.own));
        let answer = self.runtime.spawn(async move {
            match service {
                SERVICE_KVDB => kvdb.serve(peer, request).await,
                SERVICE_RUNTIME => serde_json::to_vec(&own.runtime().await)
                    .map_or_else(|_| Bytes::new(), Bytes::from),
                SERVICE_CATALOG => detour::newer_catalog(&kvdb, &request),
                SERVICE_CONFIRM => kvdb.confirmed_catalog().await,
                _ => Bytes::new(),
            }
        });
        Box::pin(async move { answer.await.unwrap_or_default() })
    }
}

//! The data path as the rest of the node sees it: volumes, their clients, and the frames between replicas.

use bytes::Bytes;
use isthmus_api::VolumeRuntime;
use isthmus_engine::{NodeId, VolumeId};
use isthmus_host::VolumeFigures;
use isthmus_kvdb::Kvdb;
use isthmus_transport::{Lane, SessionId, Tunnel};
use std::collections::BTreeSet;
use std::pin::Pin;

/// A boxed future, as trait objects need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the data path says about itself.
#[derive(Clone, Debug, Default)]
pub struct DataPathState {
    /// It has acted on the catalog up to this revision: no volume serves by an older one, and no grant is renewed to a primary
    /// that was replaced by then.
    pub acted_on_revision: u64,
    /// Its replicas, in the order of their volumes' ids.
    pub volumes: Vec<VolumeRuntime>,
}

/// Some volumes in figures.
#[derive(Debug, Default)]
pub struct FiguresPage {
    /// Those that were asked for, in the order of their ids.
    pub rows: Vec<VolumeFigures>,
    /// Replicas that could not be opened, in all.
    pub closed: u64,
}

/// The data path of a node. The first three methods are called on the transport's thread, in the order that
/// [`isthmus_transport::Handler`] promises, and must not block.
pub trait DataPath: Send + Sync + 'static {
    /// A session with a peer is there.
    fn session_up(&self, _peer: NodeId, _session: SessionId) {}
    /// It is over.
    fn session_down(&self, _peer: NodeId, _session: SessionId) {}
    /// A frame came; its content is the peer's word.
    fn frame(&self, peer: NodeId, _session: SessionId, lane: Lane, _frame: Bytes) {
        tracing::debug!(%peer, ?lane, "a frame for a replica came, this node has none");
    }
    /// The peer has opened a tunnel: what comes through it is the peer's word. Called as the three above.
    fn tunnel(&self, peer: NodeId, tunnel: Tunnel) {
        drop(tunnel);
        tracing::debug!(%peer, "a client was forwarded to this node, which serves nothing");
    }
    /// The links to these peers are too slow for replicas behind them to stay in sync, those to all others are not. Must not block.
    fn slow_peers(&self, _slow: BTreeSet<NodeId>) {}
    /// What it does now. Must answer within about 300 ms, also while volumes are frozen: fences are proven by it.
    fn state(&self) -> BoxFuture<'_, DataPathState>;
    /// The figures of up to `count` volumes behind `after`.
    fn figures(&self, _after: Option<VolumeId>, _count: usize) -> BoxFuture<'_, FiguresPage> {
        Box::pin(async { FiguresPage::default() })
    }
    /// Ends it: primaries release their volumes where they can, clients are told, the journal is left in order.
    fn stop(&self) -> BoxFuture<'_, ()>;
}

/// The data path of a node that holds no replicas: a witness.
pub struct NoReplicas {
    kvdb: Kvdb,
}

impl NoReplicas {
    /// One that acts on the catalog, by doing nothing, as soon as kvdb has it here.
    pub fn new(kvdb: Kvdb) -> NoReplicas {
        NoReplicas { kvdb }
    }
}

impl DataPath for NoReplicas {
    fn state(&self) -> BoxFuture<'_, DataPathState> {
        let acted_on_revision = self.kvdb.catalog().revision;
        Box::pin(async move {
            DataPathState {
                acted_on_revision,
                volumes: Vec::new(),
            }
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

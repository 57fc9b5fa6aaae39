//! News of kvdb over a peer, while its leader can't be reached from here but others reach it.
//!
//! Raft brings entries from the leader only. With the link between the sites cut and the leader on the other side, this node would
//! never hear of the commit that lets it go on (fault 6), though the witness has applied it. So it asks peers: what a voter has
//! applied is committed, and a linearizable read by a peer, begun after the question, is one for whoever asked.

use bytes::Bytes;
use isthmus_catalog::Catalog;
use isthmus_engine::NodeId;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::handle::Kvdb;
use crate::peers::PeerAnswer;
use crate::runtime::{self, Runtime, Tokio};

/// How often a node that is cut off from the leader asks for news.
const PERIOD: Duration = Duration::from_millis(200);
/// How long a peer may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(800);

/// Questions to peers, beside those of Raft.
pub trait Bypass: Send + Sync + 'static {
    /// Whether there is a session with the peer.
    fn reaches(&self, peer: NodeId) -> bool;
    /// What [`Kvdb::newer_catalog`] gives at the peer.
    fn newer_catalog(&self, peer: NodeId, revision: u64, within: Duration) -> PeerAnswer<'_>;
    /// What [`Kvdb::confirmed_catalog`] gives at the peer.
    fn confirmed_catalog(&self, peer: NodeId, within: Duration) -> PeerAnswer<'_>;
}

/// Another way to kvdb than by its leader. Clones are the same one.
pub struct Detour<R: Runtime = Tokio> {
    kvdb: Kvdb<R>,
    bypass: Arc<dyn Bypass>,
    peers: Vec<NodeId>,
}

impl<R: Runtime> Clone for Detour<R> {
    fn clone(&self) -> Detour<R> {
        Detour {
            kvdb: self.kvdb.clone(),
            bypass: Arc::clone(&self.bypass),
            peers: self.peers.clone(),
        }
    }
}

impl<R: Runtime> Detour<R> {
    /// By any of `peers`.
    pub fn new(kvdb: Kvdb<R>, bypass: Arc<dyn Bypass>, peers: Vec<NodeId>) -> Detour<R> {
        Detour {
            kvdb,
            bypass,
            peers,
        }
    }

    /// Whether the leader, as far as one is known, has no session with this node.
    fn is_cut_off(&self) -> bool {
        let (metrics, me) = (self.kvdb.metrics(), self.kvdb.member().node);
        // Where kvdb has stopped, its disk failing, the leader that it knew says nothing.
        let leader = metrics.leader.filter(|_| metrics.stopped.is_none());
        leader.is_none_or(|leader| leader != me && !self.bypass.reaches(leader))
    }

    fn reached(&self) -> impl Iterator<Item = NodeId> {
        let peers = self.peers.iter().copied();
        peers.filter(|peer| self.bypass.reaches(*peer))
    }

    /// The catalog by a linearizable read begun after the call; none when no majority can be asked.
    pub async fn confirm(&self, within: Duration) -> Option<Arc<Catalog>> {
        if !self.is_cut_off() {
            return self.kvdb.confirm_within(within).await.ok();
        }
        for peer in self.reached() {
            let answer = self.bypass.confirmed_catalog(peer, ANSWER_WITHIN).await;
            if let Some(catalog) = decoded(peer, answer) {
                return Some(Arc::new(catalog));
            }
        }
        None
    }

    /// Asks for news for ever, whenever this node is cut off from the leader, and tells those that `is_for_us`.
    pub async fn follow(
        self,
        is_for_us: impl Fn(&Catalog) -> bool + Send + Sync,
        tell: impl Fn(Arc<Catalog>) + Send + Sync,
    ) {
        let mut newest = 0;
        loop {
            runtime::sleep::<R>(PERIOD).await;
            if !self.is_cut_off() {
                continue;
            }
            for peer in self.reached() {
                newest = newest.max(self.kvdb.catalog().revision);
                let answer = self.bypass.newer_catalog(peer, newest, ANSWER_WITHIN).await;
                let Some(catalog) = decoded(peer, answer) else {
                    continue;
                };
                if catalog.revision > newest && is_for_us(&catalog) {
                    newest = catalog.revision;
                    tell(Arc::new(catalog));
                }
            }
        }
    }
}

/// A peer's answer; none when it has nothing to say.
fn decoded(peer: NodeId, answer: io::Result<Bytes>) -> Option<Catalog> {
    let answer = answer.ok().filter(|answer| !answer.is_empty())?;
    match Catalog::decode(&answer) {
        Ok(catalog) => Some(catalog),
        Err(error) => {
            tracing::warn!(%peer, %error, "a peer's catalog makes no sense");
            None
        }
    }
}

impl<R: Runtime> Kvdb<R> {
    /// For a peer that takes a detour: the applied catalog, encoded, if it is newer than `revision`; else nothing.
    pub fn newer_catalog(&self, revision: u64) -> Bytes {
        let catalog = self.catalog();
        if catalog.revision > revision {
            encoded(&catalog)
        } else {
            Bytes::new()
        }
    }

    /// For a peer that takes a detour: the catalog by a linearizable read, encoded; nothing when it can't be made.
    pub async fn confirmed_catalog(&self) -> Bytes {
        let catalog = self.confirm_within(ANSWER_WITHIN).await;
        catalog.map_or_else(|_| Bytes::new(), |catalog| encoded(&catalog))
    }
}

fn encoded(catalog: &Catalog) -> Bytes {
    catalog.encode().map_or_else(|_| Bytes::new(), Bytes::from)
}

//! News of kvdb over a peer, while its leader can't be reached from here but others reach it.
//!
//! Raft brings entries from the leader only. With the link between the sites cut and the leader on the other side, this node would
//! never hear of the commit that lets it go on (fault 6), though the witness has applied it. So it asks peers: what a voter has
//! applied is committed, and a linearizable read by a peer, begun after the question, is one for whoever asked.

use super::inputs::{Input, Inputs};
use super::questions::knows_this_start;
use crate::peers::{Outlet, SERVICE_CATALOG, SERVICE_CONFIRM};
use crate::store::Store;
use bytes::Bytes;
use isthmus_catalog::Catalog;
use isthmus_engine::NodeId;
use isthmus_kvdb::Kvdb;
use std::sync::Arc;
use std::time::Duration;

/// How often a node that is cut off from the leader asks for news.
const PERIOD: Duration = Duration::from_millis(200);
/// How long a peer may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(800);

/// Another way to kvdb than by its leader.
#[derive(Clone)]
pub struct Detour {
    kvdb: Kvdb,
    outlet: Outlet,
    me: NodeId,
    peers: Vec<NodeId>,
}

impl Detour {
    /// By any of `peers`.
    pub fn new(kvdb: Kvdb, outlet: Outlet, me: NodeId, peers: Vec<NodeId>) -> Detour {
        Detour {
            kvdb,
            outlet,
            me,
            peers,
        }
    }

    /// Whether the leader, as far as one is known, has no session with this node; or kvdb has stopped here, its disk failing.
    fn is_cut_off(&self) -> bool {
        let metrics = self.kvdb.metrics();
        let leader = metrics.leader.filter(|_| metrics.stopped.is_none());
        leader.is_none_or(|leader| leader != self.me && !self.reaches(leader))
    }

    fn reaches(&self, peer: NodeId) -> bool {
        self.outlet
            .transport()
            .is_some_and(|transport| transport.connected(peer).is_some())
    }

    /// The catalog by a linearizable read begun after the call; none when no majority can be asked.
    pub async fn confirm(&self, within: Duration) -> Option<Arc<Catalog>> {
        if !self.is_cut_off() {
            return self.kvdb.confirm_within(within).await.ok();
        }
        for peer in self.peers.iter().filter(|peer| self.reaches(**peer)) {
            if let Some(catalog) = self.ask(*peer, SERVICE_CONFIRM, Bytes::new()).await {
                return Some(Arc::new(catalog));
            }
        }
        None
    }

    async fn ask(&self, peer: NodeId, service: u8, request: Bytes) -> Option<Catalog> {
        let answer = self
            .outlet
            .call(peer, service, request, ANSWER_WITHIN)
            .await
            .ok()?;
        if answer.is_empty() {
            return None;
        }
        match Catalog::decode(&answer) {
            Ok(catalog) => Some(catalog),
            Err(error) => {
                tracing::warn!(%peer, %error, "a peer's catalog makes no sense");
                None
            }
        }
    }

    /// Asks for news as long as the node lives, whenever it is cut off from the leader.
    pub fn follow(self, store: Store, inputs: Inputs) {
        tokio::spawn(async move {
            let mut newest = 0;
            loop {
                tokio::time::sleep(PERIOD).await;
                if !self.is_cut_off() {
                    continue;
                }
                for peer in self.peers.iter().filter(|peer| self.reaches(**peer)) {
                    newest = newest.max(self.kvdb.catalog().revision);
                    let request = Bytes::copy_from_slice(&newest.to_le_bytes());
                    let Some(catalog) = self.ask(*peer, SERVICE_CATALOG, request).await else {
                        continue;
                    };
                    if catalog.revision > newest && knows_this_start(&catalog, &store) {
                        newest = catalog.revision;
                        inputs.send(Input::Catalog(Arc::new(catalog)));
                    }
                }
            }
        });
    }
}

/// A peer asks for a catalog newer than the revision it has; nothing when there is none here.
pub fn newer_catalog(kvdb: &Kvdb, request: &[u8]) -> Bytes {
    let Ok(revision) = <[u8; 8]>::try_from(request).map(u64::from_le_bytes) else {
        return Bytes::new();
    };
    let catalog = kvdb.catalog();
    if catalog.revision > revision {
        encoded(&catalog)
    } else {
        Bytes::new()
    }
}

/// A peer asks for a linearizable read; nothing when it can't be made.
pub async fn confirmed_catalog(kvdb: &Kvdb) -> Bytes {
    let catalog = kvdb.confirm_within(ANSWER_WITHIN).await;
    catalog.map_or_else(|_| Bytes::new(), |catalog| encoded(&catalog))
}

fn encoded(catalog: &Catalog) -> Bytes {
    catalog.encode().map_or_else(|_| Bytes::new(), Bytes::from)
}

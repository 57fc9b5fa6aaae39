//! The way around kvdb's leader ([`isthmus_kvdb::Detour`]) over this node's sessions.

use super::inputs::{Input, Inputs};
use super::questions::knows_this_start;
use crate::peers::{Outlet, SERVICE_CATALOG, SERVICE_CONFIRM};
use crate::store::Store;
use bytes::Bytes;
use isthmus_engine::NodeId;
use isthmus_kvdb::peers::PeerAnswer;
use isthmus_kvdb::{Bypass, Detour, Kvdb};
use std::time::Duration;

impl Bypass for Outlet {
    fn reaches(&self, peer: NodeId) -> bool {
        self.transport()
            .is_some_and(|transport| transport.connected(peer).is_some())
    }

    fn newer_catalog(&self, peer: NodeId, revision: u64, within: Duration) -> PeerAnswer<'_> {
        let request = Bytes::copy_from_slice(&revision.to_le_bytes());
        Box::pin(self.call(peer, SERVICE_CATALOG, request, within))
    }

    fn confirmed_catalog(&self, peer: NodeId, within: Duration) -> PeerAnswer<'_> {
        Box::pin(self.call(peer, SERVICE_CONFIRM, Bytes::new(), within))
    }
}

/// Tells the host what came by a detour, as long as the node lives.
pub fn follow(detour: Detour, store: Store, inputs: Inputs) {
    tokio::spawn(detour.follow(
        move |catalog| knows_this_start(catalog, &store),
        move |catalog| inputs.send(Input::Catalog(catalog)),
    ));
}

/// A peer asks for a catalog newer than the revision it has; nothing when there is none here.
pub fn newer_catalog(kvdb: &Kvdb, request: &[u8]) -> Bytes {
    <[u8; 8]>::try_from(request).map_or_else(
        |_| Bytes::new(),
        |revision| kvdb.newer_catalog(u64::from_le_bytes(revision)),
    )
}

//! The host's questions to kvdb, and kvdb's news for it.

use super::host_loop::HostLoop;
use super::inputs::{Input, Inputs};
use crate::api::access::now_ms;
use crate::clock;
use crate::metrics::events;
use crate::store::Store;
use isthmus_catalog::{Answer, Catalog, Cause};
use isthmus_engine::{Proposal, VolumeId};
use isthmus_kvdb::Kvdb;
use std::time::{Duration, Instant};

/// How long kvdb may take to confirm the catalog.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);

impl HostLoop {
    pub(super) fn propose(&self, volume: VolumeId, proposal: Proposal) {
        let me = self.host.me();
        let command = isthmus_host::command_of(volume, me, &proposal);
        let cause = Cause {
            who: me.node.to_string(),
            why: String::new(),
            at_ms: now_ms(),
        };
        let (kvdb, inputs) = (self.kvdb.clone(), self.inputs.clone());
        self.runtime.spawn(async move {
            let begun = Instant::now();
            let answer = kvdb.propose(command, cause).await;
            events::note_commit(begun.elapsed(), answer.is_ok());
            let done = match answer {
                Ok(Answer::Refused(refusal)) => {
                    tracing::debug!(%volume, %refusal, "kvdb refused");
                    false
                }
                Ok(_) => true,
                Err(error) => {
                    tracing::debug!(%volume, %error, "kvdb could not be asked");
                    false
                }
            };
            inputs.send(Input::Answer { volume, done });
        });
    }

    /// One linearizable read for all volumes; at most one at a time.
    pub(super) fn confirm(&mut self) {
        if std::mem::replace(&mut self.confirming, true) {
            self.confirm_again = true;
            return;
        }
        let (detour, inputs) = (self.detour.clone(), self.inputs.clone());
        let begun = clock::now();
        self.runtime.spawn(async move {
            let catalog = detour.confirm(CONFIRM_WITHIN).await;
            inputs.send(Input::Confirmed { begun, catalog });
        });
    }
}

/// Tells the host every change of the catalog, from when kvdb has noted this start of the node on: before, the catalog may speak of
/// what an earlier process of this node was.
pub fn follow_catalog(kvdb: Kvdb, store: Store, inputs: Inputs) {
    tokio::spawn(async move {
        let mut catalogs = kvdb.watch();
        loop {
            let catalog = catalogs.newest();
            if knows_this_start(&catalog, &store) {
                inputs.send(Input::Catalog(catalog));
            }
            if catalogs.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Whether kvdb has noted this start of the node.
pub fn knows_this_start(catalog: &Catalog, store: &Store) -> bool {
    let known = catalog.nodes.get(&store.node);
    known.is_some_and(|node| {
        node.incarnation == Some(store.incarnation) && node.starts == store.starts
    })
}

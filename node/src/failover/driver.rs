//! Does what [`Watch`] finds, on the node that leads kvdb.

use super::watch::{Policy, View, Watch};
use crate::api::access::{ClusterAccess, SHOWN_WITHIN, now_ms};
use crate::api::facts::Facts;
use crate::clock;
use crate::proposing::Proposer;
use isthmus_catalog::{Answer, Catalog, Command};
use isthmus_engine::NodeId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(200);

/// Runs until it is dropped. `client` is a random number of this process, used for nothing else.
pub async fn drive<A: ClusterAccess>(cluster: Arc<A>, policy: Policy, client: u64) {
    let mut driver = Driver {
        proposer: Proposer::new(cluster, client),
        policy,
        watch: Watch::default(),
    };
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        driver.round().await;
    }
}

struct Driver<A> {
    proposer: Proposer<A>,
    policy: Policy,
    watch: Watch,
}

impl<A: ClusterAccess> Driver<A> {
    async fn round(&mut self) {
        let cluster = Arc::clone(&self.proposer.cluster);
        let leads = cluster.kvdb().leader == Some(cluster.this_node().0);
        if !leads {
            self.watch = Watch::default();
            return;
        }
        if !self.policy.automatic && !has_something_open(&cluster.local()) {
            return;
        }
        let (catalog, observations) =
            tokio::join!(cluster.confirmed(SHOWN_WITHIN), cluster.observe());
        let Ok(catalog) = catalog else {
            // Who can't confirm that it leads decides nothing, and counts anew.
            self.watch = Watch::default();
            return;
        };
        let facts = Facts {
            catalog,
            confirmed: true,
            observations,
            kvdb: cluster.kvdb(),
            this_node: cluster.this_node(),
            now_ms: now_ms(),
        };
        let voters: BTreeSet<NodeId> = facts.kvdb.voters.iter().copied().map(NodeId).collect();
        let view = View {
            catalog: &facts.catalog,
            voters: &voters,
            observations: &facts.observations,
            answering: &facts.answering(),
            now: clock::now(),
        };
        let findings = self.watch.look(&view, self.policy);
        for note in findings.notes {
            tracing::warn!("{note}");
        }
        for (command, why) in findings.commands {
            self.propose(&facts.catalog, command, &why).await;
        }
    }

    async fn propose(&mut self, catalog: &Catalog, command: Command, why: &str) {
        let answer = self.proposer.propose(catalog, why, command.clone()).await;
        match answer {
            Ok(Answer::Refused(refusal)) => {
                tracing::warn!(?command, %refusal, "kvdb refused what its leader found")
            }
            Ok(_) => tracing::info!(?command, why, "done by kvdb's leader"),
            Err(unavailable) => {
                tracing::info!(?command, %unavailable, "not done, and looked at again")
            }
        }
    }
}

/// Whether something is open that needs a look although nothing is automatic: a move, or a report without its positions.
fn has_something_open(catalog: &Catalog) -> bool {
    let open = |volume: &isthmus_catalog::FailoverVolume| volume.committed_seq.is_none();
    let newest = catalog.failovers.back();
    !catalog.relocations.is_empty() || newest.is_some_and(|report| report.volumes.iter().any(open))
}

//! Carries domain updates on, on the node that leads kvdb.

use crate::api::access::{ClusterAccess, SHOWN_WITHIN};
use crate::clock;
use crate::domains::step::{Step, Update, View};
use crate::proposing::Proposer;
use isthmus_catalog::{Answer, Catalog, DomainUpdate, UpdateStatus};
use isthmus_engine::NodeId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(100);

/// What each update in progress waits for, by its name: shown to operators.
#[derive(Clone, Debug, Default)]
pub struct UpdatesWaiting(Arc<Mutex<BTreeMap<String, String>>>);

impl UpdatesWaiting {
    /// A copy of what is waited for.
    pub fn list(&self) -> Vec<(String, String)> {
        self.0
            .lock()
            .iter()
            .map(|(name, waits)| (name.clone(), waits.clone()))
            .collect()
    }

    fn set(&self, name: &str, waits: &str) {
        let before = self.0.lock().insert(name.to_owned(), waits.to_owned());
        if before.is_none() {
            tracing::info!(update = name, waits, "domain update in progress");
        }
    }

    fn keep(&self, names: &BTreeSet<&str>) {
        self.0
            .lock()
            .retain(|name, _| names.contains(name.as_str()));
    }
}

/// Runs until it is dropped. `client` is a random number of this process, used for nothing else.
pub async fn drive<A: ClusterAccess>(
    cluster: Arc<A>,
    lease: Duration,
    client: u64,
    waiting: UpdatesWaiting,
) {
    let mut driver = Driver {
        proposer: Proposer::new(cluster, client),
        lease,
        waiting,
        updates: BTreeMap::new(),
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
    lease: Duration,
    waiting: UpdatesWaiting,
    /// By the update's name.
    updates: BTreeMap<String, Update>,
}

impl<A: ClusterAccess> Driver<A> {
    async fn round(&mut self) {
        let cluster = Arc::clone(&self.proposer.cluster);
        let leads = cluster.kvdb().leader == Some(cluster.this_node().0);
        if !leads || in_progress(&cluster.local()).next().is_none() {
            // Whoever leads again starts its waits anew.
            self.updates.clear();
            self.waiting.keep(&BTreeSet::new());
            return;
        }
        let (catalog, observations) =
            tokio::join!(cluster.confirmed(SHOWN_WITHIN), cluster.observe());
        let Ok(catalog) = catalog else { return };
        let records: Vec<DomainUpdate> = in_progress(&catalog).cloned().collect();
        let names: BTreeSet<&str> = records.iter().map(|record| record.name.as_str()).collect();
        self.updates.retain(|name, _| names.contains(name.as_str()));
        self.waiting.keep(&names);
        let voters: BTreeSet<NodeId> = cluster.kvdb().voters.into_iter().map(NodeId).collect();
        for record in &records {
            let now = clock::now();
            let update = self
                .updates
                .entry(record.name.clone())
                .or_insert_with(|| Update::new(&catalog, now));
            let view = View {
                catalog: &catalog,
                voters: &voters,
                observations: &observations,
                now,
                lease: self.lease,
            };
            match update.step(&view, record) {
                Step::Wait(waits) => self.waiting.set(&record.name, &waits),
                Step::Propose(command) => self.propose(&catalog, record, command).await,
            }
        }
    }

    async fn propose(
        &mut self,
        catalog: &Catalog,
        record: &DomainUpdate,
        command: isthmus_catalog::Command,
    ) {
        let answer = self
            .proposer
            .propose(catalog, &record.name, command.clone())
            .await;
        match answer {
            Ok(Answer::Refused(refusal)) => {
                tracing::warn!(update = record.name, %refusal, "domain update's step refused")
            }
            Ok(_) => tracing::info!(update = record.name, ?command, "domain update ends"),
            Err(unavailable) => {
                tracing::info!(update = record.name, %unavailable, "domain update's step is tried again")
            }
        }
    }
}

fn in_progress(catalog: &Catalog) -> impl Iterator<Item = &DomainUpdate> {
    catalog.updates.iter().filter(|update| {
        matches!(
            update.status,
            UpdateStatus::Pending | UpdateStatus::InProgress
        )
    })
}

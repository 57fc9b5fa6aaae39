//! Carries domain updates on, on the node that leads kvdb.

use crate::api::access::{ClusterAccess, SHOWN_WITHIN, now_ms};
use crate::clock;
use crate::domains::step::{Step, Update, View};
use isthmus_catalog::{Answer, Catalog, Cause, DomainUpdate, RequestId, UpdateStatus};
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
        cluster,
        lease,
        client,
        requests: 0,
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
    cluster: Arc<A>,
    lease: Duration,
    client: u64,
    requests: u64,
    waiting: UpdatesWaiting,
    /// By the update's name.
    updates: BTreeMap<String, Update>,
}

impl<A: ClusterAccess> Driver<A> {
    async fn round(&mut self) {
        let leads = self.cluster.kvdb().leader == Some(self.cluster.this_node().0);
        if !leads || in_progress(&self.cluster.local()).next().is_none() {
            // Whoever leads again starts its waits anew.
            self.updates.clear();
            self.waiting.keep(&BTreeSet::new());
            return;
        }
        let (catalog, observations) =
            tokio::join!(self.cluster.confirmed(SHOWN_WITHIN), self.cluster.observe());
        let Ok(catalog) = catalog else { return };
        let records: Vec<DomainUpdate> = in_progress(&catalog).cloned().collect();
        let names: BTreeSet<&str> = records.iter().map(|record| record.name.as_str()).collect();
        self.updates.retain(|name, _| names.contains(name.as_str()));
        self.waiting.keep(&names);
        let voters: BTreeSet<NodeId> = self.cluster.kvdb().voters.into_iter().map(NodeId).collect();
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
        self.requests += 1;
        let id = RequestId {
            client: self.client,
            number: self.requests,
        };
        let node = self.cluster.this_node();
        let who = catalog
            .nodes
            .get(&node)
            .map_or_else(|| node.to_string(), |record| record.name.clone());
        let cause = Cause {
            who,
            why: record.name.clone(),
            at_ms: now_ms(),
        };
        match self.cluster.propose(id, cause, command.clone()).await {
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

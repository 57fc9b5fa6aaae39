//! The cluster as this node reaches it: kvdb and its peers behind [`ClusterAccess`].

use crate::api::access::{ClusterAccess, Observation, Observations, Unavailable, now_ms};
use crate::domains::driver::UpdatesWaiting;
use crate::generation::{Change, Generation};
use crate::links::Links;
use crate::metrics::{Metrics, events};
use crate::peers::{Outlet, SERVICE_RUNTIME};
use crate::serve::DataPath;
use crate::store::Store;
use crate::store::space::StoreSpace;
use bytes::Bytes;
use isthmus_api::{KvdbView, LinkAction, NodeRuntime};
use isthmus_catalog::{
    Answer, Catalog, Cause, Command, Lineage, Request, RequestId, starts_counted,
};
use isthmus_engine::NodeId;
use isthmus_kvdb::Kvdb;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const PROPOSE_WITHIN: Duration = Duration::from_secs(5);
const OBSERVE_WITHIN: Duration = Duration::from_millis(500);

/// What this node says about itself.
pub struct OwnState {
    /// Its name.
    pub name: String,
    /// Its way to the others.
    pub outlet: Outlet,
    /// The others.
    pub peers: Vec<NodeId>,
    /// Its store.
    pub store: Store,
    /// Its generation of the cluster.
    pub generation: Generation,
    /// Since when it runs.
    pub since: Instant,
    /// kvdb here.
    pub kvdb: Kvdb,
    /// Its data path.
    pub data_path: Arc<dyn DataPath>,
    /// What its domain updates wait for, while it leads kvdb.
    pub waiting: UpdatesWaiting,
    /// How much room its data directory has.
    pub space: StoreSpace,
    /// Its links to the other nodes.
    pub links: Links,
}

impl OwnState {
    /// What this node says about itself now.
    pub async fn runtime(&self) -> NodeRuntime {
        let state = self.data_path.state().await;
        let space = self.space.now();
        NodeRuntime {
            node: self.store.node.0,
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation: self.store.incarnation.to_string(),
            starts: starts_counted(self.store.starts),
            uptime_seconds: self.since.elapsed().as_secs(),
            observed_at_ms: now_ms(),
            kvdb: view(&self.kvdb, &self.generation),
            acted_on_revision: state.acted_on_revision,
            volumes: state.volumes,
            sessions: Some(self.sessions()),
            updates_waiting: self.waiting.list(),
            store_bytes_total: space.map(|space| space.total_bytes),
            store_bytes_free: space.map(|space| space.free_bytes),
            links: self.links.runtime(&self.outlet),
        }
    }
}

impl OwnState {
    fn sessions(&self) -> Vec<u32> {
        let Some(transport) = self.outlet.transport() else {
            return Vec::new();
        };
        let connected = self
            .peers
            .iter()
            .filter(|peer| transport.connected(**peer).is_some());
        connected.map(|peer| peer.0).collect()
    }
}

fn view(kvdb: &Kvdb, generation: &Generation) -> KvdbView {
    let metrics = kvdb.metrics();
    KvdbView {
        leader: metrics.leader.map(|node| node.0),
        term: metrics.term,
        voters: metrics.voters.iter().map(|node| node.0).collect(),
        revision: kvdb.catalog().revision,
        generation: generation.lineage().to_string(),
        strangers: generation
            .strangers()
            .into_iter()
            .map(|(node, lineage)| (node.0, lineage.to_string()))
            .collect(),
    }
}

/// The cluster as this node reaches it.
pub struct Cluster {
    own: Arc<OwnState>,
    metrics: Arc<Metrics>,
    /// The other nodes.
    peers: Vec<NodeId>,
    /// What each said last.
    last: Mutex<Observations>,
}

impl Cluster {
    /// The cluster whose other nodes are `peers`.
    pub fn new(own: Arc<OwnState>, metrics: Arc<Metrics>, peers: Vec<NodeId>) -> Cluster {
        Cluster {
            own,
            metrics,
            peers,
            last: Mutex::new(Observations::new()),
        }
    }
}

/// Asks a peer what it says about itself.
async fn ask(outlet: Outlet, peer: NodeId) -> Result<(NodeRuntime, u64), String> {
    let begun = Instant::now();
    let answer = outlet
        .call(peer, SERVICE_RUNTIME, Bytes::new(), OBSERVE_WITHIN)
        .await;
    let answer = answer.map_err(|error| error.to_string())?;
    let runtime: NodeRuntime = serde_json::from_slice(&answer)
        .map_err(|error| format!("its answer makes no sense: {error}"))?;
    if runtime.node != peer.0 {
        return Err(format!("it says that it is node n{}", runtime.node));
    }
    Ok((
        runtime,
        u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
    ))
}

impl ClusterAccess for Cluster {
    async fn propose(
        &self,
        id: RequestId,
        cause: Cause,
        command: Command,
    ) -> Result<Answer, Unavailable> {
        let request = Request { id, cause, command };
        let begun = Instant::now();
        let answer = self.own.kvdb.propose_request(request, PROPOSE_WITHIN).await;
        events::note_commit(begun.elapsed(), answer.is_ok());
        answer.map_err(|error| Unavailable(error.to_string()))
    }

    async fn confirmed(&self, within: Duration) -> Result<Arc<Catalog>, Unavailable> {
        let catalog = self.own.kvdb.confirm_within(within).await;
        catalog.map_err(|error| Unavailable(error.to_string()))
    }

    fn local(&self) -> Arc<Catalog> {
        self.own.kvdb.catalog()
    }

    fn kvdb(&self) -> KvdbView {
        view(&self.own.kvdb, &self.own.generation)
    }

    async fn observe(&self) -> Observations {
        let mut asked = JoinSet::new();
        for peer in self.peers.iter().copied() {
            let outlet = self.own.outlet.clone();
            asked.spawn(async move { (peer, ask(outlet, peer).await) });
        }
        let own = self.own.runtime().await;
        let mut answers = vec![(self.this_node(), Ok((own, 0)))];
        while let Some(joined) = asked.join_next().await {
            answers.extend(joined.ok());
        }
        let mut last = self.last.lock();
        for (node, answer) in answers {
            let observation = last.entry(node).or_default();
            match answer {
                Ok((runtime, round_trip_us)) => {
                    *observation = Observation {
                        runtime: Some(runtime),
                        heard_at_ms: Some(now_ms()),
                        answers: true,
                        reason: String::new(),
                        round_trip_us: Some(round_trip_us),
                    };
                }
                Err(reason) => {
                    observation.answers = false;
                    observation.reason = reason;
                    observation.round_trip_us = None;
                }
            }
        }
        last.clone()
    }

    async fn own_runtime(&self) -> NodeRuntime {
        self.own.runtime().await
    }

    async fn metrics(&self) -> Arc<str> {
        self.metrics.page().await
    }

    fn link_action(&self) -> LinkAction {
        self.own.links.action()
    }

    fn this_node(&self) -> NodeId {
        self.own.store.node
    }

    fn lineage(&self) -> Lineage {
        self.own.store.lineage.clone()
    }

    fn cluster_id(&self) -> u64 {
        self.own.store.cluster
    }

    fn change_generation(&self, change: Change) -> bool {
        self.own.generation.begin(change)
    }
}

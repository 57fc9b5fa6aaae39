//! The seam between the admin API (and the domain updates' driver) and the cluster.

use crate::generation::Change;
use isthmus_api::{KvdbView, LinkAction, NodeRuntime};
use isthmus_catalog::{Answer, Catalog, Cause, Command, Lineage, RequestId};
use isthmus_engine::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// kvdb can't be asked now: no majority of its voters answers in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// What this node last heard of a node (itself too).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// What it said last, however long ago.
    pub runtime: Option<NodeRuntime>,
    /// When it said so, in ms since 1970 by this node's clock.
    pub heard_at_ms: Option<u64>,
    /// Whether it answered just now.
    pub answers: bool,
    /// Why not; empty when it did.
    pub reason: String,
    /// How long the answer took.
    pub round_trip_us: Option<u64>,
}

/// What every node was last heard to say.
pub type Observations = BTreeMap<NodeId, Observation>;

/// What is shown says whether it is confirmed, so it does not wait long.
pub const SHOWN_WITHIN: Duration = Duration::from_secs(1);
/// What is to be changed is decided on a confirmed catalog. A site is mostly deactivated just after it died, with kvdb's leader as like as
/// not: this is longer than the election of the next one.
pub const DECIDED_WITHIN: Duration = Duration::from_secs(3);

/// All that the API needs of the cluster. Every method answers or gives up within a bounded time.
pub trait ClusterAccess: Send + Sync + 'static {
    /// Has a command applied, once per id, wherever kvdb's leader is. Gives up after about 5 s.
    fn propose(
        &self,
        id: RequestId,
        cause: Cause,
        command: Command,
    ) -> impl Future<Output = Result<Answer, Unavailable>> + Send;

    /// The catalog as a majority has it now or later.
    fn confirmed(
        &self,
        within: Duration,
    ) -> impl Future<Output = Result<Arc<Catalog>, Unavailable>> + Send;

    /// The catalog as this node has applied it; may be old.
    fn local(&self) -> Arc<Catalog>;

    /// kvdb as this node sees it.
    fn kvdb(&self) -> KvdbView;

    /// Asks all nodes of the catalog, and waits about half a second for the slowest.
    fn observe(&self) -> impl Future<Output = Observations> + Send;

    /// What this node tells Prometheus.
    fn metrics(&self) -> impl Future<Output = Arc<str>> + Send;

    /// What this node says about itself.
    fn own_runtime(&self) -> impl Future<Output = NodeRuntime> + Send;

    /// What this node does about links that are too slow.
    fn link_action(&self) -> LinkAction;

    /// Which node this is.
    fn this_node(&self) -> NodeId;

    /// The generation of the cluster that this node belongs to.
    fn lineage(&self) -> Lineage;

    /// The cluster's id, as this node's store has it.
    fn cluster_id(&self) -> u64;

    /// Tells this node to go on in another generation, which it does by starting anew. False when it was told already.
    fn change_generation(&self, change: Change) -> bool;
}

/// Wall-clock time in ms since 1970, for people.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |duration| {
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
    })
}

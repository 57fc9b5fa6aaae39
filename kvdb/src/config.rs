//! What a node tells kvdb at its start.

use isthmus_catalog::Lineage;
use isthmus_engine::{Incarnation, NodeId};
use std::collections::BTreeSet;
use std::time::Duration;

use crate::group::MemberId;

/// What a node tells kvdb at its start.
#[derive(Clone, Debug)]
pub struct KvdbConfig {
    /// This node.
    pub node: NodeId,
    /// The incarnation of its store (I12).
    pub incarnation: Incarnation,
    /// The cluster's generation, as the store has it.
    pub lineage: Lineage,
    /// A random number of this process, for the ids of its requests.
    pub client: u64,
    /// All nodes of the cluster: who is asked for the leader while this node knows none.
    pub nodes: BTreeSet<NodeId>,
    /// The folder in the data directory.
    pub folder: String,
    /// How often the leader shows that it lives.
    pub heartbeat: Duration,
    /// How long a voter waits for that before it stands for election, at least.
    pub election_min: Duration,
    /// The same, at most.
    pub election_max: Duration,
    /// How long [`crate::Kvdb::propose`] and [`crate::Kvdb::confirm`] try.
    pub within: Duration,
    /// A member that has not answered the leader for so long counts as unreachable.
    pub reachable_within: Duration,
    /// Log entries from one snapshot to the next.
    pub snapshot_entries: u64,
}

impl KvdbConfig {
    /// The defaults: heartbeat 100 ms, election 300 to 450 ms.
    #[must_use]
    pub fn new(
        node: NodeId,
        incarnation: Incarnation,
        client: u64,
        nodes: BTreeSet<NodeId>,
    ) -> KvdbConfig {
        KvdbConfig {
            node,
            incarnation,
            lineage: Lineage::default(),
            client,
            nodes,
            folder: "raft".to_owned(),
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(450),
            within: Duration::from_secs(5),
            reachable_within: Duration::from_secs(3),
            snapshot_entries: 1000,
        }
    }

    pub(crate) fn member(&self) -> MemberId {
        MemberId::of(self.node, self.incarnation, &self.lineage)
    }
}

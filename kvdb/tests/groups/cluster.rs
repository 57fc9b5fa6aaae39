//! A cluster in one process.

use bytes::Bytes;
use isthmus_catalog::{
    Answer, Catalog, Cause, Command, DomainRecord, DomainRole, DomainState, Lineage, NodeRecord,
    Request, RequestId,
};
use isthmus_engine::{DomainId, Incarnation, NodeId};
use isthmus_journal::Disk;
use isthmus_kvdb::peers::PeerAnswer;
use isthmus_kvdb::{Kvdb, KvdbConfig, KvdbMetrics, Peers};
use isthmus_simulated_disk::SharedDisk;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub(super) const WITHIN: Duration = Duration::from_secs(20);

/// A disk with kvdb's store on it.
pub(super) fn formatted(seed: u64) -> SharedDisk {
    let mut disk = SharedDisk::new(seed);
    isthmus_kvdb::format(&mut disk, "raft", seed).unwrap();
    disk
}

/// Who runs, and which ways are cut.
#[derive(Default)]
struct Wires {
    running: BTreeMap<NodeId, Kvdb>,
    cut: BTreeSet<(NodeId, NodeId)>,
}

/// One node's side of the network.
struct InMemory {
    from: NodeId,
    wires: Arc<Mutex<Wires>>,
}

impl Peers for InMemory {
    fn call(&self, to: NodeId, request: Bytes, within: Duration) -> PeerAnswer<'_> {
        let reach = {
            let wires = self.wires.lock();
            let is_cut =
                wires.cut.contains(&(self.from, to)) || wires.cut.contains(&(to, self.from));
            wires.running.get(&to).filter(|_| !is_cut).cloned()
        };
        let from = self.from;
        Box::pin(async move {
            let Some(kvdb) = reach else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let served = tokio::time::timeout(within, kvdb.serve(from, request)).await;
            served.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
        })
    }
}

/// Nodes 1 and 2 are in data domains of their own, node 3 is the witness.
pub(super) struct Cluster {
    wires: Arc<Mutex<Wires>>,
    disks: BTreeMap<NodeId, SharedDisk>,
    incarnations: BTreeMap<NodeId, u64>,
    starts: BTreeMap<NodeId, u64>,
    /// Of nodes that are not of the first generation.
    lineages: BTreeMap<NodeId, Lineage>,
    pub(super) snapshot_entries: u64,
}

pub(super) const A: DomainId = DomainId(1);
pub(super) const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

pub(super) fn cause() -> Cause {
    Cause {
        who: "operator".to_owned(),
        why: "test".to_owned(),
        at_ms: 1,
    }
}

pub(super) fn nodes(ids: &[u32]) -> BTreeSet<NodeId> {
    ids.iter().map(|id| NodeId(*id)).collect()
}

impl Cluster {
    pub(super) fn new() -> Cluster {
        Cluster {
            wires: Arc::default(),
            disks: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            starts: BTreeMap::new(),
            lineages: BTreeMap::new(),
            snapshot_entries: 1000,
        }
    }

    /// Formed at node 1; all have registered and have their votes.
    pub(super) async fn formed() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.form().await;
        cluster
    }

    pub(super) async fn form(&mut self) {
        for node in NODES {
            self.start(node).await;
        }
        let first = self.kvdb(NodeId(1));
        assert!(!first.is_initialized().await.unwrap());
        let domain = |id, name: &str, role| {
            let record = DomainRecord {
                name: name.to_owned(),
                role,
                state: DomainState::Active,
                since_ms: 0,
                created_ms: 0,
            };
            (DomainId(id), record)
        };
        let node = |id: u32| {
            let record = NodeRecord {
                name: format!("node-{id}"),
                domain: DomainId(id),
                peer_address: String::new(),
                api_address: String::new(),
                nbd_address: None,
                incarnation: None,
                starts: 0,
            };
            (NodeId(id), record)
        };
        let domains = [
            domain(1, "site-a", DomainRole::Data),
            domain(2, "site-b", DomainRole::Data),
            domain(3, "w", DomainRole::Witness),
        ];
        let formed = first
            .form(
                "demo".to_owned(),
                7,
                domains.into(),
                [node(1), node(2), node(3)].into(),
                cause(),
            )
            .await
            .unwrap();
        assert_eq!(formed, Answer::Done);
        for node in NODES {
            self.register(node).await;
        }
        self.until_voters(&[1, 2, 3]).await;
    }

    pub(super) async fn start(&mut self, node: NodeId) {
        let incarnation = *self
            .incarnations
            .entry(node)
            .or_insert(u64::from(node.0) * 10);
        let disk = self
            .disks
            .entry(node)
            .or_insert_with(|| formatted(u64::from(node.0)))
            .clone();
        let starts = self.starts.entry(node).or_default();
        *starts += 1;
        let client = incarnation * 1000 + *starts;
        let mut config = KvdbConfig::new(node, Incarnation(incarnation), client, NODES.into());
        config.lineage = self.lineages.get(&node).cloned().unwrap_or_default();
        config.within = WITHIN;
        config.reachable_within = Duration::from_secs(1);
        config.snapshot_entries = self.snapshot_entries;
        let peers = InMemory {
            from: node,
            wires: self.wires.clone(),
        };
        let kvdb = Kvdb::start(config, disk, Arc::new(peers)).await.unwrap();
        self.wires.lock().running.insert(node, kvdb);
    }

    /// Tells the cluster that the node has started.
    pub(super) async fn register(&self, node: NodeId) {
        let incarnation = Incarnation(self.incarnations[&node]);
        let command = Command::NodeStarted {
            node,
            incarnation,
            starts: self.starts[&node],
        };
        assert_eq!(
            self.kvdb(node).propose(command, cause()).await.unwrap(),
            Answer::Done
        );
    }

    /// Ends the node; nothing answers for it any more.
    pub(super) async fn kill(&self, node: NodeId) {
        let kvdb = self.wires.lock().running.remove(&node);
        kvdb.unwrap().stop().await;
    }

    /// A node that does not run goes on without the others, in a new generation.
    pub(super) fn force(&mut self, node: NodeId, id: u64) {
        let incarnation = Incarnation(self.incarnations[&node]);
        let request = Request {
            id: RequestId {
                client: id,
                number: 0,
            },
            cause: cause(),
            command: Command::ForceGeneration { id },
        };
        let change = |mut catalog: Catalog| {
            assert_eq!(catalog.apply(&request), Answer::Done);
            Ok(catalog)
        };
        let disk = &self.disks[&node];
        let forced = isthmus_kvdb::force(
            disk.clone(),
            "raft",
            "raft.new",
            node,
            incarnation,
            id,
            change,
        );
        self.lineages.insert(node, forced.unwrap());
        disk.replace_folder("raft.new", "raft");
    }

    /// A node that does not run gives up what it held of kvdb, to be a member of `like`'s generation.
    pub(super) fn adopt(&mut self, node: NodeId, like: NodeId) {
        let disk = &mut self.disks.get_mut(&node).unwrap();
        disk.remove("raft").unwrap();
        isthmus_kvdb::format(*disk, "raft", 5).unwrap();
        self.lineages.insert(node, self.lineages[&like].clone());
    }

    /// The node's disk is replaced by an empty one.
    pub(super) fn replace_disk(&mut self, node: NodeId) {
        *self.incarnations.get_mut(&node).unwrap() += 1;
        self.starts.insert(node, 0);
        self.disks.insert(node, formatted(99));
    }

    /// Nothing can be written to the node's journal any more.
    pub(super) fn fail_disk(&self, node: NodeId) {
        for segment in 0..8 {
            self.disks[&node].fail_writes(&format!("raft/journal/segment-{segment:04}"));
        }
    }

    pub(super) fn crash_disk(&self, node: NodeId) {
        self.disks[&node].crash();
    }

    /// Cuts the node off from all others.
    pub(super) fn isolate(&self, node: NodeId) {
        let mut wires = self.wires.lock();
        wires.cut.extend(
            NODES
                .into_iter()
                .filter(|other| *other != node)
                .map(|other| (node, other)),
        );
    }

    pub(super) fn cut(&self, one: NodeId, other: NodeId) {
        self.wires.lock().cut.insert((one, other));
    }

    pub(super) fn heal(&self) {
        self.wires.lock().cut.clear();
    }

    pub(super) fn kvdb(&self, node: NodeId) -> Kvdb {
        self.wires.lock().running[&node].clone()
    }

    pub(super) fn running(&self) -> Vec<Kvdb> {
        self.wires.lock().running.values().cloned().collect()
    }

    /// Who leads, as soon as the node knows of one that it reaches.
    pub(super) async fn leader(
        &self,
        seen_by: NodeId,
        is_so: impl Fn(NodeId) -> bool + Send + Sync,
    ) -> NodeId {
        let known = |metrics: &KvdbMetrics| metrics.leader.is_some_and(&is_so);
        self.kvdb(seen_by)
            .wait_until(WITHIN, known)
            .await
            .unwrap()
            .leader
            .unwrap()
    }

    /// Waits until every running node sees exactly these voters.
    pub(super) async fn until_voters(&self, ids: &[u32]) {
        let wanted = nodes(ids);
        for kvdb in self.running() {
            let node = kvdb.member();
            let seen = kvdb
                .wait_until(WITHIN, |metrics| {
                    metrics.voters == wanted && !metrics.is_changing
                })
                .await;
            assert!(
                seen.is_ok(),
                "{node} waits for voters {wanted:?}: {:?}",
                kvdb.metrics()
            );
        }
    }

    pub(super) async fn until(&self, node: NodeId, is_so: impl Fn(&Catalog) -> bool) {
        let mut watch = self.kvdb(node).watch();
        let waiting = async {
            while !is_so(&watch.newest()) {
                watch.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(WITHIN, waiting).await;
        assert!(waited.is_ok(), "the catalog of {node} does not get there");
    }
}

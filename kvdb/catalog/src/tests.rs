//! A small cluster to apply commands to, and the tests by topic.

mod codec;
mod configuration;
mod diskless;
mod domains;
mod generations;
mod nodes;
mod places;
mod properties;
mod replicas;
mod voters;

use crate::{
    Answer, Catalog, Cause, Command, DomainRecord, DomainRole, DomainState, NodeRecord, Refusal,
    Request, RequestId, VolumePolicy, VolumeRecord,
};
use isthmus_engine::{DomainId, Epoch, Incarnation, NodeId, ReplicaId, VolumeId};
use std::collections::BTreeSet;

const A: DomainId = DomainId(1);
const B: DomainId = DomainId(2);
const WITNESS: DomainId = DomainId(3);

/// Nodes 1 and 4 are in domain A, 2 and 5 in B, 3 in the witness domain.
fn form() -> Command {
    let domain = |id: u32, name: &str, role| {
        let record = DomainRecord {
            name: name.to_owned(),
            role,
            state: DomainState::Active,
            since_ms: 0,
            created_ms: 0,
        };
        (DomainId(id), record)
    };
    let node = |id: u32, domain| {
        let record = NodeRecord {
            name: format!("node-{id}"),
            domain,
            peer_address: String::new(),
            api_address: String::new(),
            nbd_address: None,
            incarnation: None,
            starts: 0,
        };
        (NodeId(id), record)
    };
    Command::Form {
        cluster_name: "demo".to_owned(),
        cluster_id: 7,
        domains: vec![
            domain(1, "site-a", DomainRole::Data),
            domain(2, "site-b", DomainRole::Data),
            domain(3, "witness", DomainRole::Witness),
        ],
        nodes: vec![
            node(1, A),
            node(2, B),
            node(3, WITNESS),
            node(4, A),
            node(5, B),
        ],
    }
}

fn started(node: u32, incarnation: u64, starts: u64) -> Command {
    Command::NodeStarted {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        starts,
    }
}

fn create(name: &str) -> Command {
    Command::CreateVolume {
        name: name.to_owned(),
        bytes: 1 << 20,
        block_bytes: 4096,
        policy: VolumePolicy::default(),
    }
}

fn nodes(ids: &[u32]) -> BTreeSet<NodeId> {
    ids.iter().map(|id| NodeId(*id)).collect()
}

/// The replica of the node's first incarnation, which has the node's number.
fn replica(node: u32) -> ReplicaId {
    ReplicaId {
        node: NodeId(node),
        incarnation: Incarnation(u64::from(node)),
    }
}

fn replicas(ids: &[u32]) -> BTreeSet<ReplicaId> {
    ids.iter().map(|id| replica(*id)).collect()
}

const DEMO: VolumeId = VolumeId(1);

/// A catalog and a count of requests.
struct Cluster {
    catalog: Catalog,
    requests: u64,
}

impl Cluster {
    /// Formed; nodes 1, 2 and 3 have started.
    fn new() -> Cluster {
        let mut cluster = Cluster {
            catalog: Catalog::default(),
            requests: 0,
        };
        cluster.done(form());
        for node in 1..=3 {
            cluster.done(started(node, u64::from(node), 1));
        }
        cluster
    }

    /// The same with volume `demo` on nodes 1 and 2.
    fn with_volume() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.done(create("demo"));
        cluster
    }

    fn apply(&mut self, command: Command) -> Answer {
        self.requests += 1;
        let request = Request {
            id: RequestId {
                client: 1,
                number: self.requests,
            },
            cause: Cause {
                who: "operator".to_owned(),
                why: "test".to_owned(),
                at_ms: self.requests,
            },
            command,
        };
        let before = self.catalog.clone();
        let answer = self.catalog.apply(&request);
        assert_eq!(self.catalog.broken_rules(), Vec::<String>::new());
        if matches!(answer, Answer::Refused(_)) {
            assert_eq!(before, self.catalog, "a refusal changes nothing");
        }
        answer
    }

    fn done(&mut self, command: Command) -> Answer {
        let answer = self.apply(command);
        assert!(!matches!(answer, Answer::Refused(_)), "{answer:?}");
        answer
    }

    fn refused(&mut self, command: Command) -> Refusal {
        match self.apply(command) {
            Answer::Refused(refusal) => refusal,
            answer => panic!("not refused: {answer:?}"),
        }
    }

    fn demo(&self) -> &VolumeRecord {
        &self.catalog.volumes[&DEMO]
    }

    fn epoch(&self) -> Epoch {
        self.demo().epoch
    }

    fn promote(&self, node: u32) -> Command {
        Command::Promote {
            volume: DEMO,
            expected: self.epoch(),
            candidate: replica(node),
        }
    }

    fn open(&self, node: u32) -> Command {
        Command::Opened {
            volume: DEMO,
            epoch: self.epoch(),
            primary: replica(node),
        }
    }

    fn shrink(&self, node: u32, leaving: &[u32]) -> Command {
        Command::Shrink {
            volume: DEMO,
            epoch: self.epoch(),
            primary: replica(node),
            leaving: replicas(leaving),
        }
    }

    fn grow(&self, node: u32, joining: ReplicaId) -> Command {
        Command::Grow {
            volume: DEMO,
            epoch: self.epoch(),
            primary: replica(node),
            joining,
        }
    }

    fn release(&self, node: u32) -> Command {
        Command::Release {
            volume: DEMO,
            epoch: self.epoch(),
            primary: replica(node),
        }
    }

    fn deactivate(domain: DomainId, answering: &[u32]) -> Command {
        Command::Deactivate {
            domain,
            answering: nodes(answering),
            accept_data_loss: false,
        }
    }

    fn serve(&mut self, node: u32) {
        self.done(self.promote(node));
        self.done(self.open(node));
    }
}

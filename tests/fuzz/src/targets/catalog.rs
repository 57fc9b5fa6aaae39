//! The catalog's codec, and what a decoded request does when it is applied: no request may stop a node, since it would stop
//! every node (I10).

use isthmus_catalog::{
    Answer, BootId, Catalog, Cause, Command, DomainRecord, DomainRole, DomainState, Durability,
    NodeRecord, OnPeerLoss, Refusal, Request, RequestId, VolumePolicy,
};
use isthmus_engine::{DomainId, Epoch, Incarnation, NodeId, ReplicaId, VolumeId};
use std::collections::BTreeSet;

use super::envelope;
use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

/// serde takes a length's word for 1 MiB at most; a value in memory is larger than its bytes by some factor.
pub(super) fn memory_bytes_max(input_bytes: usize) -> usize {
    (4 << 20) + 256 * input_bytes
}

/// [`Catalog::decode`].
pub struct CatalogBytes;

impl Target for CatalogBytes {
    fn name(&self) -> &'static str {
        "catalog"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        catalog(random).encode().expect("a small catalog")
    }

    fn reseal(&self, bytes: &mut Vec<u8>, _: &mut Random) {
        envelope::reseal(bytes);
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        memory_bytes_max(input_bytes)
    }

    fn is_sealed(&self) -> bool {
        true
    }

    fn refuses_prefixes(&self) -> bool {
        true
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let Ok(catalog) = Catalog::decode(input) else {
            return Verdict::Refused;
        };
        let again = catalog.encode().expect("what was decoded fits");
        assert_eq!(Catalog::decode(&again).as_ref(), Ok(&catalog));
        // What a snapshot of a peer brings may break rules; looking at it must not panic.
        let _ = catalog.broken_rules();
        Verdict::Accepted
    }
}

/// [`Request::decode`], then [`Catalog::apply`].
pub struct Requests {
    catalogs: Vec<Catalog>,
}

impl Requests {
    /// With some catalogs to apply requests to.
    #[must_use]
    pub fn new() -> Requests {
        let mut random = Random::new(1);
        let mut catalogs = vec![Catalog::default()];
        catalogs.extend((0..15).map(|_| catalog(&mut random)));
        Requests { catalogs }
    }
}

impl Default for Requests {
    fn default() -> Requests {
        Requests::new()
    }
}

impl Target for Requests {
    fn name(&self) -> &'static str {
        "catalog-request"
    }

    fn share(&self) -> u64 {
        48
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        request(random).encode().expect("a small request")
    }

    fn reseal(&self, bytes: &mut Vec<u8>, _: &mut Random) {
        envelope::reseal(bytes);
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        memory_bytes_max(input_bytes)
    }

    fn is_sealed(&self) -> bool {
        true
    }

    fn refuses_prefixes(&self) -> bool {
        true
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let Ok(request) = Request::decode(input) else {
            return Verdict::Refused;
        };
        let again = request.encode().expect("what was decoded fits");
        assert_eq!(Request::decode(&again).as_ref(), Ok(&request));
        // Which one it meets follows from the input, so that a replay meets the same.
        let choice = crc32fast::hash(input) as usize % self.catalogs.len();
        let before = &self.catalogs[choice];
        let mut after = before.clone();
        let answer = after.apply(&request);
        assert_eq!(after.broken_rules(), Vec::<String>::new());
        if matches!(answer, Answer::Refused(_)) {
            assert_eq!(before, &after, "a refusal changes nothing");
        }
        assert!(after.revision <= before.revision + 1);
        let bytes = after.encode().expect("a catalog within its bounds fits");
        assert_eq!(Catalog::decode(&bytes).as_ref(), Ok(&after));
        Verdict::Accepted
    }
}

/// [`Answer::decode`].
pub struct Answers;

impl Target for Answers {
    fn name(&self) -> &'static str {
        "catalog-answer"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let answer = match random.below(5) {
            0 => Answer::Done,
            1 => Answer::Volume(VolumeId(random.number())),
            2 => Answer::Epoch(epoch(random)),
            3 => Answer::Update(random.name()),
            _ => Answer::Refused(Refusal::WouldLose {
                domain: random.name(),
                volumes: (0..random.below(4)).map(|_| random.name()).collect(),
            }),
        };
        answer.encode().expect("a small answer")
    }

    fn reseal(&self, bytes: &mut Vec<u8>, _: &mut Random) {
        envelope::reseal(bytes);
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        memory_bytes_max(input_bytes)
    }

    fn is_sealed(&self) -> bool {
        true
    }

    fn refuses_prefixes(&self) -> bool {
        true
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let Ok(answer) = Answer::decode(input) else {
            return Verdict::Refused;
        };
        let again = answer.encode().expect("what was decoded fits");
        assert_eq!(Answer::decode(&again).as_ref(), Ok(&answer));
        if let Answer::Refused(refusal) = answer {
            assert!(!refusal.to_string().contains("{}"));
        }
        Verdict::Accepted
    }
}

/// A catalog that random commands came to, some of them refused.
pub(super) fn catalog(random: &mut Random) -> Catalog {
    let mut catalog = Catalog::default();
    let mut number = 0;
    let mut apply = |command: Command, random: &mut Random| {
        number += 1;
        catalog.apply(&Request {
            id: RequestId { client: 1, number },
            cause: cause(random),
            command,
        });
        catalog.clone()
    };
    apply(form(), random);
    for node in 1..=5 {
        let started = Command::NodeStarted {
            node: NodeId(node),
            incarnation: Incarnation(u64::from(node)),
            starts: 1,
        };
        apply(started, random);
    }
    for _ in 0..random.below(3) {
        apply(create(random), random);
    }
    let mut now = apply(create(random), random);
    for _ in 0..random.below(12) {
        let command = command(&now, random);
        now = apply(command, random);
    }
    now
}

/// A request that some catalog takes, or nearly.
pub(super) fn request(random: &mut Random) -> Request {
    let catalog = catalog(&mut Random::new(random.below(16)));
    Request {
        id: RequestId {
            client: random.next_u64(),
            number: random.number(),
        },
        cause: cause(random),
        command: command(&catalog, random),
    }
}

fn cause(random: &mut Random) -> Cause {
    Cause {
        who: random.name(),
        why: random.name(),
        at_ms: random.number(),
    }
}

fn epoch(random: &mut Random) -> Epoch {
    Epoch {
        generation: random.below(2) as u32,
        number: random.number() as u32,
    }
}

fn domain(id: u32, role: DomainRole) -> (DomainId, DomainRecord) {
    let record = DomainRecord {
        name: format!("site-{id}"),
        role,
        state: DomainState::Active,
        since_ms: 0,
        created_ms: 0,
    };
    (DomainId(id), record)
}

fn node(id: u32, domain: u32) -> (NodeId, NodeRecord) {
    let record = NodeRecord {
        name: format!("node-{id}"),
        domain: DomainId(domain),
        peer_address: format!("10.0.0.{id}:9540"),
        api_address: String::new(),
        nbd_address: (domain < 3).then(|| format!("10.0.0.{id}:10809")),
        incarnation: None,
        starts: 0,
    };
    (NodeId(id), record)
}

/// Nodes 1 and 4 in one data domain, 2 and 5 in the other, 3 the witness.
pub(super) fn form() -> Command {
    Command::Form {
        cluster_name: "fuzzed".to_owned(),
        cluster_id: 7,
        domains: vec![
            domain(1, DomainRole::Data),
            domain(2, DomainRole::Data),
            domain(3, DomainRole::Witness),
        ],
        nodes: vec![node(1, 1), node(2, 2), node(3, 3), node(4, 1), node(5, 2)],
    }
}

pub(super) fn create(random: &mut Random) -> Command {
    Command::CreateVolume {
        name: random.name(),
        bytes: (random.below(100) + 1) << 20,
        block_bytes: if random.once_in(2) { 512 } else { 4096 },
        policy: VolumePolicy {
            on_peer_loss: if random.once_in(4) {
                OnPeerLoss::Suspend
            } else {
                OnPeerLoss::Degrade
            },
            durability: if random.once_in(2) {
                Durability::Flush
            } else {
                Durability::Acknowledged
            },
            preferred_domain: random.once_in(3).then_some(DomainId(1)),
        },
    }
}

fn command(catalog: &Catalog, random: &mut Random) -> Command {
    let volume = VolumeId(random.below(4));
    let record = catalog.volumes.get(&volume);
    let replica = |random: &mut Random| {
        let node = random.below(6) as u32;
        ReplicaId {
            node: NodeId(node),
            incarnation: Incarnation(u64::from(node)),
        }
    };
    let epoch = record.map_or_else(|| epoch(random), |record| record.epoch);
    let primary = record
        .and_then(|record| record.primary)
        .unwrap_or_else(|| replica(random));
    let domain = DomainId(random.below(5) as u32);
    let nodes = |random: &mut Random| -> BTreeSet<NodeId> {
        (0..random.below(6))
            .map(|_| NodeId(random.below(6) as u32))
            .collect()
    };
    match random.below(24) {
        0 => form(),
        1 => create(random),
        2 => Command::DeleteVolume { volume },
        3..=5 => Command::Promote {
            volume,
            expected: epoch,
            candidate: replica(random),
        },
        6..=7 => Command::Opened {
            volume,
            epoch,
            primary,
        },
        8 => Command::Shrink {
            volume,
            epoch,
            primary,
            leaving: (0..random.below(3)).map(|_| replica(random)).collect(),
        },
        9 => Command::Grow {
            volume,
            epoch,
            primary,
            joining: replica(random),
        },
        10 => Command::Renew {
            volume,
            epoch,
            primary,
        },
        11 if random.once_in(4) => Command::CaughtUp {
            volume,
            epoch,
            primary,
            replicas: [primary].into(),
        },
        11 => Command::Release {
            volume,
            epoch,
            primary,
        },
        12 if random.once_in(2) => Command::NodeStartedIn {
            node: NodeId(random.below(7) as u32),
            incarnation: Incarnation(random.number()),
            starts: random.number(),
            boot: BootId(u128::from(random.below(3))),
        },
        12 => Command::NodeStarted {
            node: NodeId(random.below(7) as u32),
            incarnation: Incarnation(random.number()),
            starts: random.number(),
        },
        13 => Command::Deactivate {
            domain,
            answering: nodes(random),
            accept_data_loss: random.once_in(2),
        },
        14 => Command::Deactivated {
            domain,
            proof: random.name(),
        },
        15 => Command::Activate { domain },
        16 => Command::Activated { domain },
        17 => Command::ExpandVolume {
            volume,
            bytes: random.number(),
        },
        18 => Command::Publish {
            volume,
            node: primary.node,
            read_only: random.once_in(2),
        },
        19 => Command::Unpublish {
            volume,
            node: primary.node,
            idle: random.once_in(2),
        },
        20 if random.once_in(2) => Command::EndRelocation {
            volume,
            to: replica(random).node,
        },
        20 => Command::Relocate {
            volume,
            to: replica(random).node,
        },
        21 => Command::FailOver {
            domain,
            answering: nodes(random),
        },
        22 => Command::NoteFailover {
            name: random.name(),
            positions: vec![(volume, random.number())],
        },
        23 => Command::AddDiskless {
            node: NodeId(random.below(9) as u32),
            record: Box::new(NodeRecord {
                name: random.name(),
                domain,
                peer_address: random.name(),
                api_address: random.name(),
                nbd_address: random.once_in(2).then(|| random.name()),
                incarnation: None,
                starts: random.number(),
            }),
        },
        _ => Command::UpdateFailed {
            domain,
            reason: random.name(),
        },
    }
}

//! The world: nodes, what is on its way between them, and an atomic kvdb. What strikes it: `faults`; who uses it: `clients`; how it ends:
//! `ending`.

mod clients;
mod ending;
mod faults;

use crate::register::{Register, Value};
use bytes::{Bytes, BytesMut};
use isthmus_catalog::{
    Answer, Catalog, Cause, Command, DomainRecord, DomainRole, DomainState, NodeRecord, Request,
    RequestId, VolumePolicy,
};
use isthmus_engine::{
    BLOCK_BYTES, DomainId, Incarnation, NodeId, ReplicaId, Settings, Time, VolumeId,
};
use isthmus_host::{
    ClientRequest, Host, Identity, Lane, Outcome, OutgoingFrame, Outputs, command_of,
};
use isthmus_journal::Shape;
use isthmus_simulated_disk::{Random, SimulatedDisk};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

const MS: u64 = 1_000_000;
const STEP: u64 = MS;
const BLOCKS: u64 = 64;
const NODES: usize = 4;
const VOLUME: VolumeId = VolumeId(1);
/// Faults for so long, then all heals.
const FAULTS: u64 = 20_000 * MS;
/// When all is to be well at the latest.
const WELL: u64 = 120_000 * MS;
const SHAPE: Shape = Shape {
    segment_bytes: 1 << 20,
    segments: 4,
};

type TestHost = Host<SimulatedDisk, u64>;

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub written: u64,
    pub read: u64,
    pub crashes: u64,
    pub cuts: u64,
    pub taken_over: u64,
    pub added: u64,
    pub removed: u64,
    pub deactivated: u64,
}

impl Counts {
    pub fn add(&mut self, more: &Counts) {
        self.written += more.written;
        self.read += more.read;
        self.crashes += more.crashes;
        self.cuts += more.cuts;
        self.taken_over += more.taken_over;
        self.added += more.added;
        self.removed += more.removed;
        self.deactivated += more.deactivated;
    }
}

struct Node {
    host: Option<TestHost>,
    disk: Option<SimulatedDisk>,
    starts: u64,
    /// Processes so far: what was on its way to an earlier one is lost.
    life: u64,
    /// Whether kvdb has noted this start.
    registered: bool,
    reaches_kvdb: bool,
    next_version: usize,
    version_at: u64,
    /// The session with each other node that its process believes in.
    sessions: [Option<u64>; NODES],
}

/// What happens later.
enum Event {
    Frame {
        from: usize,
        to: usize,
        session: u64,
        volume: VolumeId,
        lane: Lane,
        bytes: Bytes,
    },
    SessionDown {
        node: usize,
        life: u64,
        peer: usize,
        session: u64,
    },
    SessionUp {
        node: usize,
        life: u64,
        peer: usize,
        session: u64,
    },
    Catalog {
        node: usize,
        life: u64,
        version: usize,
    },
    Propose {
        node: usize,
        life: u64,
        command: Command,
    },
    Answer {
        node: usize,
        life: u64,
        done: bool,
    },
    Confirm {
        node: usize,
        life: u64,
        begun: Time,
    },
    Start(usize),
    Heal(usize, usize),
    Reachable(usize),
    Activate(DomainId),
    Activated(DomainId),
}

/// A client: at most one operation a block at a time.
#[derive(Default)]
struct Client {
    /// Where it is attached, and in which process.
    at: Option<(usize, u64)>,
    /// The number of its opening, where and since when it waits.
    opening: Option<(u64, usize, u64)>,
    waits_until: u64,
    under_way: BTreeMap<u64, Operation>,
}

struct Operation {
    block: u64,
    /// What is written; none for a read.
    value: Option<Value>,
    /// What may be read: everything that was allowed at some time while it was under way.
    allowed: BTreeSet<Value>,
}

pub struct World {
    random: Random,
    seed: u64,
    now: u64,
    nodes: Vec<Node>,
    versions: Vec<Arc<Catalog>>,
    commands: u64,
    events: BTreeMap<(u64, u64), Event>,
    /// In order of time and of when they were planned.
    planned: u64,
    cut: BTreeSet<(usize, usize)>,
    sessions: u64,
    clients: [Client; 2],
    requests: u64,
    values: Value,
    registers: Vec<Register>,
    last_read: Option<Value>,
    /// Clients do nothing by themselves any more.
    at_the_end: bool,
    counts: Counts,
    log: VecDeque<String>,
}

fn node_id(index: usize) -> NodeId {
    NodeId(index as u32 + 1)
}

fn me(index: usize) -> ReplicaId {
    ReplicaId {
        node: node_id(index),
        incarnation: Incarnation(index as u64 + 11),
    }
}

/// Nodes 0 and 1 are in one site, 2 and 3 in the other.
fn site(index: usize) -> DomainId {
    DomainId(index as u32 / 2 + 1)
}

fn settings() -> Settings {
    Settings {
        lease: Duration::from_millis(900),
        replica_timeout: Duration::from_millis(400),
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        let node = |index: usize| Node {
            host: None,
            disk: Some(SimulatedDisk::new(seed * 8 + index as u64)),
            starts: 0,
            life: 0,
            registered: false,
            reaches_kvdb: true,
            next_version: 0,
            version_at: 0,
            sessions: [None; NODES],
        };
        let mut world = World {
            random: Random::new(seed ^ 0x5175),
            seed,
            now: 1_000_000 * MS,
            nodes: (0..NODES).map(node).collect(),
            versions: vec![Arc::default()],
            commands: 0,
            events: BTreeMap::new(),
            planned: 0,
            cut: BTreeSet::new(),
            sessions: 0,
            clients: Default::default(),
            requests: 0,
            values: 0,
            registers: vec![Register::new(); BLOCKS as usize],
            last_read: None,
            at_the_end: false,
            counts: Counts::default(),
            log: VecDeque::new(),
        };
        world.commit(form());
        for index in 0..NODES {
            world.commit(started(index, 1));
            world.nodes[index].starts = 1;
        }
        let policy = VolumePolicy::default();
        world.commit(Command::CreateVolumeWith {
            name: "v1".into(),
            bytes: BLOCKS * BLOCK_BYTES,
            block_bytes: 4096,
            policy,
            replicas_per_domain: 2,
        });
        for index in 0..NODES {
            world.start(index);
        }
        world
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// When a rule is broken; the text names the seed.
    pub fn run(mut self) -> Counts {
        let begin = self.now;
        while self.now < begin + FAULTS {
            if self.random.chance(1, 150) {
                self.trouble();
            }
            self.step();
        }
        self.heal();
        let end = self.now + WELL;
        while !self.is_well() {
            self.assert(self.now < end, || "it does not become well".into());
            self.heal();
            self.step();
        }
        self.compare();
        self.counts
    }

    fn assert(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            let lines: Vec<&str> = self.log.iter().map(String::as_str).collect();
            panic!(
                "seed {}: {}\nthe volume: {:?}\n{}\n{}",
                self.seed,
                what(),
                self.catalog().volumes.get(&VOLUME),
                self.states().join("\n"),
                lines.join("\n")
            );
        }
    }

    /// How each node stands.
    fn states(&self) -> Vec<String> {
        let state = |index: usize| {
            let node = &self.nodes[index];
            let status = node.host.as_ref().map(|host| {
                let mut all = host.status(Time(self.now));
                all.pop().map(|status| (status.standing, status.epoch))
            });
            format!(
                "n{}: registered {}, reaches kvdb {}, version {} of {}, sessions {:?}, {status:?}",
                index + 1,
                node.registered,
                node.reaches_kvdb,
                node.next_version,
                self.versions.len(),
                node.sessions
            )
        };
        (0..NODES).map(state).collect()
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        self.log
            .push_back(format!("{:>9} ms {}", self.now / MS, line()));
        if self.log.len() > 1500 {
            self.log.pop_front();
        }
    }

    fn catalog(&self) -> &Arc<Catalog> {
        self.versions.last().unwrap()
    }

    fn later(&mut self, delay: u64, event: Event) {
        self.planned += 1;
        self.events.insert((self.now + delay, self.planned), event);
    }

    fn below(&mut self, ms: u64) -> u64 {
        self.random.below(ms * MS)
    }

    // ---- kvdb

    fn commit(&mut self, command: Command) -> bool {
        self.commands += 1;
        let text = format!("{command:?}");
        let request = Request {
            id: RequestId {
                client: 1,
                number: self.commands,
            },
            cause: Cause {
                who: "test".into(),
                why: String::new(),
                at_ms: self.now / MS,
            },
            command,
        };
        let mut catalog = Catalog::clone(self.catalog());
        let before = catalog
            .volumes
            .get(&VOLUME)
            .and_then(|volume| volume.primary);
        let answer = catalog.apply(&request);
        let after = catalog
            .volumes
            .get(&VOLUME)
            .and_then(|volume| volume.primary);
        if let (Some(before), Some(after)) = (before, after)
            && before.node != after.node
        {
            self.counts.taken_over += 1;
        }
        self.note(|| format!("kvdb {text} -> {answer:?}"));
        let broken = catalog.broken_rules();
        self.assert(broken.is_empty(), || format!("{broken:?}"));
        if catalog != **self.catalog() {
            self.versions.push(Arc::new(catalog));
            for node in 0..NODES {
                self.send_versions(node);
            }
        }
        !matches!(answer, Answer::Refused(_))
    }

    /// In order, each at its own time, some left out.
    fn send_versions(&mut self, index: usize) {
        let node = &self.nodes[index];
        if !node.reaches_kvdb || !node.registered || node.host.is_none() {
            return;
        }
        while self.nodes[index].next_version < self.versions.len() {
            let mut version = self.nodes[index].next_version;
            if self.random.chance(1, 4) {
                version = self.versions.len() - 1;
            }
            let delay = match self.random.below(15) {
                0 => self.below(2000),
                _ => self.below(20),
            };
            let at = (self.nodes[index].version_at + 1).max(self.now + delay);
            let node = &mut self.nodes[index];
            node.version_at = at;
            node.next_version = version + 1;
            let life = node.life;
            let event = Event::Catalog {
                node: index,
                life,
                version,
            };
            self.later(at - self.now, event);
        }
    }

    // ---- nodes

    fn start(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let Some(mut disk) = node.disk.take() else {
            return;
        };
        disk.advance(now);
        node.starts += 1;
        node.life += 1;
        node.registered = false;
        node.sessions = [None; NODES];
        let identity = Identity {
            node: me(index).node,
            incarnation: me(index).incarnation,
        };
        node.host = Some(Host::open(disk, identity, settings(), SHAPE, Time(now)).unwrap());
        self.note(|| format!("n{} starts", index + 1));
        for peer in 0..NODES {
            self.connect(index, peer);
        }
    }

    /// A session, where both run and no cut is between them.
    fn connect(&mut self, one: usize, other: usize) {
        let pair = (one.min(other), one.max(other));
        let run = self.nodes[one].host.is_some() && self.nodes[other].host.is_some();
        if one == other || !run || self.cut.contains(&pair) {
            return;
        }
        self.sessions += 1;
        let session = self.sessions;
        let delay = MS + self.below(30);
        for (node, peer) in [(one, other), (other, one)] {
            let life = self.nodes[node].life;
            let event = Event::SessionUp {
                node,
                life,
                peer,
                session,
            };
            self.later(delay, event);
        }
    }

    fn disconnect(&mut self, one: usize, other: usize, within_ms: u64) {
        for (node, peer) in [(one, other), (other, one)] {
            let life = self.nodes[node].life;
            let delay = self.below(within_ms);
            let session = self.sessions;
            let event = Event::SessionDown {
                node,
                life,
                peer,
                session,
            };
            self.later(delay, event);
        }
    }

    fn crash(&mut self, index: usize, power: bool) {
        let Some(host) = self.nodes[index].host.take() else {
            return;
        };
        let mut disk = host.into_disk();
        match power {
            true => disk.crash(),
            false => disk.reopen(),
        }
        self.nodes[index].disk = Some(disk);
        self.nodes[index].life += 1;
        self.counts.crashes += 1;
        self.note(|| format!("n{} is gone, power {power}", index + 1));
        for peer in (0..NODES).filter(|peer| *peer != index) {
            self.disconnect(index, peer, 300);
        }
        for client in 0..self.clients.len() {
            let is_there = self.clients[client]
                .at
                .is_some_and(|(node, _)| node == index);
            let waits_there =
                (self.clients[client].opening).is_some_and(|(_, node, _)| node == index);
            if is_there || waits_there {
                self.leave(client);
            }
        }
        let delay = 200 * MS + self.below(4000);
        self.later(delay, Event::Start(index));
    }

    fn with_host(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut TestHost, Time, &mut Outputs<u64>),
    ) {
        let now = Time(self.now);
        let mut outputs = Outputs::default();
        if let Some(host) = &mut self.nodes[index].host {
            act(host, now, &mut outputs);
            self.take(index, outputs);
        }
    }

    fn take(&mut self, index: usize, outputs: Outputs<u64>) {
        for (_, event) in outputs.events {
            self.assert(!event.contains("STOPPED"), || {
                format!("n{}: {event}", index + 1)
            });
            self.note(|| format!("n{} {event}", index + 1));
        }
        let life = self.nodes[index].life;
        for frame in outputs.frames {
            let OutgoingFrame {
                to,
                volume,
                lane,
                head,
                body,
            } = frame;
            let to = to.0 as usize - 1;
            let Some(session) = self.nodes[index].sessions[to] else {
                continue;
            };
            let mut bytes = BytesMut::from(&head[..]);
            bytes.extend_from_slice(&body);
            let delay = if site(index) == site(to) { MS } else { 4 * MS };
            let event = Event::Frame {
                from: index,
                to,
                session,
                volume,
                lane,
                bytes: bytes.freeze(),
            };
            self.later(delay, event);
        }
        for (number, outcome) in outputs.replies {
            self.answered(index, number, outcome);
        }
        for volume in outputs.demoted {
            for client in 0..self.clients.len() {
                if self.clients[client].at == Some((index, life)) {
                    self.leave(client);
                    self.with_host(index, |host, now, outputs| {
                        host.detach(now, volume, outputs);
                    });
                }
            }
        }
        for (volume, proposal) in outputs.proposals {
            let command = command_of(volume, me(index), &proposal);
            let delay = MS + self.below(20);
            let event = Event::Propose {
                node: index,
                life,
                command,
            };
            self.later(delay, event);
        }
        if outputs.confirm {
            let begun = Time(self.now);
            let delay = MS + self.below(10);
            let event = Event::Confirm {
                node: index,
                life,
                begun,
            };
            self.later(delay, event);
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let event = entry.remove();
            self.happen(event);
        }
        for index in 0..NODES {
            let now = self.now;
            self.with_host(index, |host, time, outputs| {
                host.disk_mut().advance(now);
                host.run(time, outputs);
            });
            let node = &self.nodes[index];
            if node.host.is_some()
                && !node.registered
                && node.reaches_kvdb
                && self.random.chance(1, 20)
            {
                let starts = node.starts;
                let done = self.commit(started(index, starts));
                self.assert(done, || format!("n{} is refused", index + 1));
                self.nodes[index].registered = true;
                self.nodes[index].next_version = self.versions.len() - 1;
                self.nodes[index].version_at = 0;
                self.send_versions(index);
            }
        }
        for client in 0..self.clients.len() {
            self.go_on(client);
        }
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].life == life && self.nodes[node].host.is_some()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Frame {
                from,
                to,
                session,
                volume,
                lane,
                bytes,
            } => {
                let pair = (from.min(to), from.max(to));
                if self.nodes[to].sessions[from] == Some(session) && !self.cut.contains(&pair) {
                    self.with_host(to, |host, now, outputs| {
                        host.on_frame(now, node_id(from), volume, lane, &bytes, outputs)
                            .unwrap();
                    });
                }
            }
            Event::SessionDown {
                node,
                life,
                peer,
                session,
            } => {
                let known = self.nodes[node].sessions[peer];
                if self.lives(node, life) && known.is_some_and(|known| known <= session) {
                    self.nodes[node].sessions[peer] = None;
                    self.with_host(node, |host, now, outputs| {
                        host.on_session_down(now, node_id(peer), outputs);
                    });
                }
            }
            Event::SessionUp {
                node,
                life,
                peer,
                session,
            } => {
                let newer = self.nodes[node].sessions[peer].is_none_or(|known| known < session);
                if self.lives(node, life) && newer {
                    self.nodes[node].sessions[peer] = Some(session);
                    self.with_host(node, |host, now, outputs| {
                        host.on_session_up(now, node_id(peer), outputs);
                    });
                }
            }
            Event::Catalog {
                node,
                life,
                version,
            } => {
                if self.lives(node, life) && self.nodes[node].reaches_kvdb {
                    let catalog = Arc::clone(&self.versions[version]);
                    self.with_host(node, |host, now, outputs| {
                        host.on_catalog(now, catalog, outputs);
                    });
                } else if self.lives(node, life) {
                    // It is told again once it reaches kvdb.
                    let next = &mut self.nodes[node].next_version;
                    *next = (*next).min(version);
                }
            }
            Event::Propose {
                node,
                life,
                command,
            } => {
                // What was asked before its process died may still be applied.
                let reaches = self.nodes[node].reaches_kvdb;
                let done = reaches && self.commit(command);
                let delay = match reaches {
                    true => MS + self.below(10),
                    false => 500 * MS,
                };
                self.later(delay, Event::Answer { node, life, done });
            }
            Event::Answer { node, life, done } => {
                if self.lives(node, life) {
                    self.with_host(node, |host, now, outputs| {
                        host.on_answer(now, VOLUME, done, outputs);
                    });
                }
            }
            Event::Confirm { node, life, begun } => {
                if self.lives(node, life) {
                    let reaches = self.nodes[node].reaches_kvdb;
                    let catalog = reaches.then(|| Arc::clone(self.catalog()));
                    self.with_host(node, |host, now, outputs| {
                        host.on_confirmed(now, begun, catalog.as_deref(), outputs);
                    });
                }
            }
            Event::Start(node) => self.start(node),
            Event::Heal(one, other) => {
                if self.cut.remove(&(one, other)) {
                    self.connect(one, other);
                }
            }
            Event::Reachable(node) => {
                self.nodes[node].reaches_kvdb = true;
                self.send_versions(node);
            }
            Event::Activate(domain) => {
                self.commit(Command::UpdateFailed {
                    domain,
                    reason: "not waited for".into(),
                });
                if self.commit(Command::Activate { domain }) {
                    self.later(200 * MS, Event::Activated(domain));
                }
            }
            Event::Activated(domain) => {
                self.commit(Command::Activated { domain });
            }
        }
    }
}

fn started(index: usize, starts: u64) -> Command {
    Command::NodeStarted {
        node: me(index).node,
        incarnation: me(index).incarnation,
        starts,
    }
}

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
        cluster_name: "sites".to_owned(),
        cluster_id: 7,
        domains: vec![
            domain(1, "site-a", DomainRole::Data),
            domain(2, "site-b", DomainRole::Data),
            domain(3, "witness", DomainRole::Witness),
        ],
        nodes: vec![
            node(1, DomainId(1)),
            node(2, DomainId(1)),
            node(3, DomainId(2)),
            node(4, DomainId(2)),
            node(9, DomainId(3)),
        ],
    }
}

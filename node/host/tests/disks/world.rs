//! Two hosts over simulated disks, an atomic kvdb, and a link that loses nothing: what is needed to see what a disk's faults come to.

use bytes::{Bytes, BytesMut};
use isthmus_catalog::{
    Answer, Catalog, Cause, Command, DomainRecord, DomainRole, DomainState, NodeRecord, Request,
    RequestId, VolumePolicy, VolumeRecord,
};
use isthmus_engine::{
    BLOCK_BYTES, DomainId, Incarnation, NodeId, ReplicaId, Settings, Time, VolumeId,
};
use isthmus_host::{
    ClientError, ClientRequest, Host, Identity, Lane, Outcome, OutgoingFrame, Outputs, ScrubPace,
    VolumeFigures, VolumeStatus, command_of,
};
use isthmus_journal::Shape;
use isthmus_simulated_disk::SimulatedDisk;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub const MIB: u64 = 1 << 20;
pub const BLOCKS_A_MIB: u64 = MIB / BLOCK_BYTES;
/// How far time goes between two looks.
const STEP_NS: u64 = 200_000;
const SHAPE: Shape = Shape {
    segment_bytes: 4 * MIB,
    segments: 4,
};

type TestHost = Host<SimulatedDisk, u64>;

struct Node {
    host: Option<TestHost>,
    disk: Option<SimulatedDisk>,
    starts: u64,
    scrub: ScrubPace,
}

pub struct World {
    nodes: [Node; 2],
    catalog: Arc<Catalog>,
    now: u64,
    frames: VecDeque<(usize, VolumeId, Lane, Bytes)>,
    replies: BTreeMap<u64, Outcome>,
    requests: u64,
    commands: u64,
    pub events: Vec<(usize, String)>,
    /// Closed connections: node, volume.
    pub demoted: Vec<(usize, VolumeId)>,
    /// Frames from the first node to the second, and back, are lost.
    pub link_is_down: bool,
    /// The node that hears nothing of kvdb, if any.
    pub deaf: Option<usize>,
}

fn me(node: usize) -> ReplicaId {
    ReplicaId {
        node: NodeId(node as u32 + 1),
        incarnation: Incarnation(node as u64 + 11),
    }
}

impl World {
    /// Two nodes, and volumes of so many MiB over both, in sync and served by nobody.
    pub fn new(seed: u64, volumes_mib: &[u64]) -> World {
        let node = |index: u64| Node {
            host: None,
            disk: Some(SimulatedDisk::new(seed * 2 + index)),
            starts: 0,
            // Scrubs begin when a test says so.
            scrub: ScrubPace {
                bytes_per_second: 0,
                pause: Duration::from_secs(3600),
            },
        };
        let mut world = World {
            nodes: [node(0), node(1)],
            catalog: Arc::default(),
            now: 1_000_000_000_000,
            frames: VecDeque::new(),
            replies: BTreeMap::new(),
            requests: 0,
            commands: 0,
            events: Vec::new(),
            demoted: Vec::new(),
            link_is_down: false,
            deaf: None,
        };
        world.apply(form());
        for index in 0..2 {
            world.start(index);
        }
        for (mib, number) in volumes_mib.iter().zip(1..) {
            let answer = world.apply(Command::CreateVolume {
                name: format!("v{number}"),
                bytes: mib * MIB,
                block_bytes: 512,
                policy: VolumePolicy::default(),
            });
            assert_eq!(answer, Answer::Volume(VolumeId(number)));
        }
        world.run_for(Duration::from_millis(50));
        world
    }

    pub fn volume(&self, number: u64) -> &VolumeRecord {
        &self.catalog.volumes[&VolumeId(number)]
    }

    pub fn is_in_set(&self, volume: u64, node: usize) -> bool {
        self.volume(volume).in_sync.contains(&me(node))
    }

    pub fn disk(&mut self, node: usize) -> &mut SimulatedDisk {
        let node = &mut self.nodes[node];
        match &mut node.host {
            Some(host) => host.disk_mut(),
            None => node.disk.as_mut().unwrap(),
        }
    }

    pub fn host(&mut self, node: usize) -> &mut TestHost {
        self.nodes[node].host.as_mut().unwrap()
    }

    pub fn status(&self, node: usize, volume: u64) -> VolumeStatus {
        let host = self.nodes[node].host.as_ref().unwrap();
        let all = host.status(Time(self.now));
        let found = all
            .into_iter()
            .find(|status| status.volume == VolumeId(volume));
        found.unwrap()
    }

    pub fn now(&self) -> Time {
        Time(self.now)
    }

    pub fn figures(&self, node: usize, volume: u64) -> VolumeFigures {
        let host = self.nodes[node].host.as_ref().unwrap();
        let mut all = host.figures(Time(self.now), None, 1000);
        all.retain(|figures| figures.status.volume == VolumeId(volume));
        all.pop().unwrap()
    }

    pub fn set_scrub(&mut self, node: usize, bytes_per_second: u64) {
        self.nodes[node].scrub.bytes_per_second = bytes_per_second;
        let (pace, now) = (self.nodes[node].scrub, Time(self.now));
        self.host(node).set_scrub(pace);
        self.host(node).scrub_now(now);
    }

    pub fn has_event(&self, node: usize, text: &str) -> bool {
        self.events
            .iter()
            .any(|(of, event)| *of == node && event.contains(text))
    }

    /// Starts a node's process.
    pub fn start(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let mut disk = node.disk.take().unwrap();
        disk.advance(self.now);
        node.starts += 1;
        let (identity, starts) = (
            Identity {
                node: me(index).node,
                incarnation: me(index).incarnation,
            },
            node.starts,
        );
        let mut host =
            Host::open(disk, identity, Settings::default(), SHAPE, Time(self.now)).unwrap();
        host.set_scrub(node.scrub);
        self.nodes[index].host = Some(host);
        self.apply(Command::NodeStarted {
            node: me(index).node,
            incarnation: me(index).incarnation,
            starts,
        });
        self.tell_catalog(index);
        if self.nodes[1 - index].host.is_some() {
            self.session_up(1 - index);
            self.session_up(index);
        }
    }

    /// Ends a node's process as by a loss of power.
    pub fn crash(&mut self, index: usize) {
        let mut disk = self.nodes[index].host.take().unwrap().into_disk();
        disk.crash();
        self.nodes[index].disk = Some(disk);
        self.frames.clear();
        let (now, mut outputs) = (Time(self.now), Outputs::default());
        if let Some(other) = &mut self.nodes[1 - index].host {
            other.on_session_down(now, me(index).node, &mut outputs);
            self.take(1 - index, outputs);
        }
    }

    /// What the deaf node has missed, it hears now.
    pub fn hear(&mut self) {
        if let Some(index) = self.deaf.take() {
            self.tell_catalog(index);
        }
    }

    /// The link comes back, with new sessions.
    pub fn reconnect(&mut self) {
        self.frames.clear();
        self.link_is_down = false;
        for index in 0..2 {
            let (now, mut outputs) = (Time(self.now), Outputs::default());
            self.host(index)
                .on_session_down(now, me(1 - index).node, &mut outputs);
            self.take(index, outputs);
        }
        for index in 0..2 {
            self.session_up(index);
        }
    }

    pub fn expand(&mut self, volume: u64, mib: u64) {
        let answer = self.apply(Command::ExpandVolume {
            volume: VolumeId(volume),
            bytes: mib * MIB,
        });
        assert_eq!(answer, Answer::Done);
    }

    fn session_up(&mut self, index: usize) {
        let (now, mut outputs) = (Time(self.now), Outputs::default());
        self.host(index)
            .on_session_up(now, me(1 - index).node, &mut outputs);
        self.take(index, outputs);
    }

    fn tell_catalog(&mut self, index: usize) {
        let (now, catalog, mut outputs) = (
            Time(self.now),
            Arc::clone(&self.catalog),
            Outputs::default(),
        );
        if self.deaf == Some(index) {
            return;
        }
        if let Some(host) = &mut self.nodes[index].host {
            host.on_catalog(now, catalog, &mut outputs);
            self.take(index, outputs);
        }
    }

    fn apply(&mut self, command: Command) -> Answer {
        self.commands += 1;
        let request = Request {
            id: RequestId {
                client: 1,
                number: self.commands,
            },
            cause: Cause {
                who: "test".into(),
                why: String::new(),
                at_ms: 0,
            },
            command,
        };
        let mut catalog = (*self.catalog).clone();
        let answer = catalog.apply(&request);
        if catalog != *self.catalog {
            self.catalog = Arc::new(catalog);
            for index in 0..2 {
                self.tell_catalog(index);
            }
        }
        answer
    }

    fn take(&mut self, index: usize, outputs: Outputs<u64>) {
        for (volume, event) in outputs.events {
            self.events.push((index, format!("{volume}: {event}")));
        }
        for OutgoingFrame {
            volume,
            lane,
            head,
            body,
            ..
        } in outputs.frames
        {
            let mut bytes = BytesMut::from(&head[..]);
            bytes.extend_from_slice(&body);
            if !self.link_is_down {
                self.frames
                    .push_back((1 - index, volume, lane, bytes.freeze()));
            }
        }
        for (number, outcome) in outputs.replies {
            self.replies.insert(number, outcome);
        }
        for volume in outputs.demoted {
            self.demoted.push((index, volume));
            let (now, mut outputs) = (Time(self.now), Outputs::default());
            self.host(index).detach(now, volume, &mut outputs);
            self.take(index, outputs);
        }
        for (volume, proposal) in outputs.proposals {
            let command = command_of(volume, me(index), &proposal);
            let refused = matches!(self.apply(command), Answer::Refused(_));
            let (now, mut outputs) = (Time(self.now), Outputs::default());
            self.host(index)
                .on_answer(now, volume, !refused, &mut outputs);
            self.take(index, outputs);
        }
        if outputs.confirm {
            let (now, catalog, mut outputs) = (
                Time(self.now),
                Arc::clone(&self.catalog),
                Outputs::default(),
            );
            self.host(index)
                .on_confirmed(now, now, Some(&catalog), &mut outputs);
            self.take(index, outputs);
        }
    }

    /// Lets a moment pass.
    pub fn step(&mut self) {
        self.now += STEP_NS;
        let now = Time(self.now);
        for index in 0..2 {
            if let Some(host) = &mut self.nodes[index].host {
                host.disk_mut().advance(now.0);
                let mut outputs = Outputs::default();
                host.run(now, &mut outputs);
                self.take(index, outputs);
            }
        }
        for (to, volume, lane, bytes) in std::mem::take(&mut self.frames) {
            if let Some(host) = &mut self.nodes[to].host {
                let mut outputs = Outputs::default();
                host.on_frame(now, me(1 - to).node, volume, lane, &bytes, &mut outputs)
                    .unwrap();
                self.take(to, outputs);
            }
        }
    }

    /// Virtual time.
    pub fn since_start(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration.as_nanos() as u64;
        while self.now < end {
            self.step();
        }
    }

    /// Lets time pass until something is so; fails after a minute.
    pub fn run_until(&mut self, what: &str, mut is_so: impl FnMut(&mut World) -> bool) {
        let end = self.now + 60_000_000_000;
        while !is_so(self) {
            assert!(self.now < end, "{what}: {:#?}", self.events);
            self.step();
        }
    }

    fn answer(&mut self, number: u64) -> Outcome {
        self.run_until("an answer", |world| world.replies.contains_key(&number));
        self.replies.remove(&number).unwrap()
    }

    /// A client opens the volume at a node; tries again as a client does.
    pub fn attach(&mut self, node: usize, volume: u64) {
        for _ in 0..100 {
            if self.try_attach(node, volume).is_ok() {
                return;
            }
        }
        panic!(
            "volume {volume} is not served by {node}: {:#?}",
            self.events
        );
    }

    pub fn try_attach(&mut self, node: usize, volume: u64) -> Result<(), ClientError> {
        self.requests += 1;
        let (number, now, mut outputs) = (self.requests, Time(self.now), Outputs::default());
        self.host(node)
            .attach(now, VolumeId(volume), number, &mut outputs);
        self.take(node, outputs);
        match self.answer(number) {
            Outcome::Attached => Ok(()),
            Outcome::Failed(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub fn detach(&mut self, node: usize, volume: u64) {
        let (now, mut outputs) = (Time(self.now), Outputs::default());
        self.host(node).detach(now, VolumeId(volume), &mut outputs);
        self.take(node, outputs);
    }

    /// Hands a request over; its answer is asked for by number.
    pub fn submit(&mut self, node: usize, volume: u64, request: ClientRequest) -> u64 {
        self.requests += 1;
        let (number, now, mut outputs) = (self.requests, Time(self.now), Outputs::default());
        self.host(node)
            .submit(now, VolumeId(volume), number, request, &mut outputs);
        self.take(node, outputs);
        number
    }

    pub fn finish(&mut self, number: u64) -> Result<Bytes, ClientError> {
        match self.answer(number) {
            Outcome::Done => Ok(Bytes::new()),
            Outcome::Data(parts) => Ok(Bytes::from(parts.concat())),
            Outcome::Failed(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    /// Fills whole blocks with a byte.
    pub fn write(
        &mut self,
        node: usize,
        volume: u64,
        block: u64,
        count: u64,
        fill: u8,
    ) -> Result<(), ClientError> {
        let request = ClientRequest::Write {
            offset: block * BLOCK_BYTES,
            data: Bytes::from(vec![fill; (count * BLOCK_BYTES) as usize]),
        };
        let number = self.submit(node, volume, request);
        self.finish(number).map(|_| ())
    }

    pub fn read(
        &mut self,
        node: usize,
        volume: u64,
        block: u64,
        count: u64,
    ) -> Result<Bytes, ClientError> {
        let request = ClientRequest::Read {
            offset: block * BLOCK_BYTES,
            length: count * BLOCK_BYTES,
        };
        let number = self.submit(node, volume, request);
        self.finish(number)
    }

    pub fn trim(
        &mut self,
        node: usize,
        volume: u64,
        block: u64,
        count: u64,
    ) -> Result<(), ClientError> {
        let request = ClientRequest::Trim {
            offset: block * BLOCK_BYTES,
            length: count * BLOCK_BYTES,
        };
        let number = self.submit(node, volume, request);
        self.finish(number).map(|_| ())
    }

    /// Whether the blocks hold this byte, and nothing else.
    pub fn holds(&mut self, node: usize, volume: u64, block: u64, count: u64, fill: u8) -> bool {
        let data = self.read(node, volume, block, count).unwrap();
        data.len() as u64 == count * BLOCK_BYTES && data.iter().all(|byte| *byte == fill)
    }

    /// Everything applied is in a checkpoint, and the caches know nothing more than the disk.
    pub fn checkpoint(&mut self, node: usize) {
        self.host(node).checkpoint_all();
        self.run_for(Duration::from_millis(100));
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
    Command::Form {
        cluster_name: "disks".to_owned(),
        cluster_id: 7,
        domains: vec![
            domain(1, "site-a", DomainRole::Data),
            domain(2, "site-b", DomainRole::Data),
            domain(3, "witness", DomainRole::Witness),
        ],
        nodes: vec![node(1), node(2), node(3)],
    }
}

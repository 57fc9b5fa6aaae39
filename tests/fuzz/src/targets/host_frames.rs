//! A host in the middle of its life, and frames from its peer that are not what the peer meant.
//!
//! Two real hosts talk: a promotion, writes, the loss of a member and its return by copying. What each of them was given is kept as
//! a script. A case gives one of them its script again, with frames changed, left out, repeated or in another order; everything
//! else (kvdb's word, sessions, time, clients) stays what it was, since it does not come from a peer. No frame may panic, and
//! whatever was taken for good, the next start must be able to read.

use bytes::Bytes;
use isthmus_catalog::{Catalog, Cause, Command, Request, RequestId};
use isthmus_engine::{Incarnation, NodeId, ReplicaId, Settings, Time, VolumeId};
use isthmus_host::{ClientRequest, Host, Identity, Lane, Outcome, Outputs, command_of};
use isthmus_journal::Shape;
use std::sync::Arc;
use std::time::Duration;

use super::{catalog, host_wire};
use crate::chunks::{self, Chunk};
use crate::memory_disk::MemoryDisk;
use crate::mutate::mutate_chunks;
use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

pub(super) const VOLUME: VolumeId = VolumeId(1);
pub(super) const BLOCKS: u64 = 64;
const BLOCK_BYTES: u64 = 4096;
pub(super) const SHAPE: Shape = Shape {
    segment_bytes: 256 << 10,
    segments: 4,
};
/// Conversations that are recorded.
pub(super) const TALES: u64 = 12;

/// Whose script it is: twice the tale's number, and the node's index.
const WHOSE: u8 = 0;
const WRITE_LANE: u8 = 1;
const RESYNC_LANE: u8 = 2;
/// Time goes on by `place` milliseconds.
const RUN: u8 = 3;
/// The catalog of number `place`.
const CATALOG: u8 = 4;
/// The session is up (1) or down (0).
const SESSION: u8 = 5;
const ATTACH: u8 = 6;
/// A client's request: what it is and where follow from `place`.
const SUBMIT: u8 = 7;
/// kvdb's answer: done (1) or refused (0).
const ANSWER: u8 = 8;
const CONFIRMED: u8 = 9;
const CHECKPOINT: u8 = 10;

type Node = Host<MemoryDisk, u64>;

fn me(index: usize) -> ReplicaId {
    let node = index as u32 + 1;
    ReplicaId {
        node: NodeId(node),
        incarnation: Incarnation(u64::from(node)),
    }
}

pub(super) fn open(mut disk: MemoryDisk, index: usize, now: Time) -> Node {
    disk.restart();
    let me = me(index);
    let identity = Identity {
        node: me.node,
        incarnation: me.incarnation,
    };
    Host::open(disk, identity, Settings::default(), SHAPE, now)
        .expect("a directory that a host wrote opens")
}

fn client_request(place: u32) -> ClientRequest {
    let block = u64::from(place >> 8) % (BLOCKS - 4);
    let (offset, length) = (block * BLOCK_BYTES, BLOCK_BYTES * 2);
    let write = ClientRequest::Write {
        offset,
        data: vec![place as u8; BLOCK_BYTES as usize].into(),
    };
    match place & 7 {
        0 => write,
        1 => ClientRequest::Durably(Box::new(write)),
        2 => ClientRequest::Write {
            offset: offset + 512,
            data: vec![place as u8; 1024].into(),
        },
        3 => ClientRequest::Zero { offset, length },
        4 => ClientRequest::Trim { offset, length },
        5 => ClientRequest::Flush,
        6 => ClientRequest::Status { offset, length },
        _ => ClientRequest::Read { offset, length },
    }
}

/// A host with what surrounds it.
struct Life {
    index: usize,
    host: Node,
    now: Time,
    session: bool,
}

impl Life {
    fn new(index: usize) -> Life {
        let now = Time(1_000_000_000);
        Life {
            index,
            host: open(MemoryDisk::default(), index, now),
            now,
            session: false,
        }
    }

    /// Gives it one thing of a script; whether it was a sound one.
    fn give(
        &mut self,
        chunk: &Chunk,
        catalogs: &[Arc<Catalog>],
        outputs: &mut Outputs<u64>,
    ) -> bool {
        let peer = me(1 - self.index).node;
        let (now, host) = (self.now, &mut self.host);
        match chunk.tag {
            WRITE_LANE | RESYNC_LANE if self.session => {
                let lane = if chunk.tag == WRITE_LANE {
                    Lane::Write
                } else {
                    Lane::Resync
                };
                let frame = Bytes::copy_from_slice(&chunk.bytes);
                if host
                    .on_frame(now, peer, VOLUME, lane, &frame, outputs)
                    .is_err()
                {
                    return false;
                }
            }
            RUN => self.now = now + Duration::from_millis(u64::from(chunk.place % 10_000)),
            CATALOG => {
                if let Some(catalog) = catalogs.get(chunk.place as usize) {
                    host.on_catalog(now, Arc::clone(catalog), outputs);
                }
            }
            SESSION => {
                let up = chunk.place == 1;
                if up && !self.session {
                    host.on_session_up(now, peer, outputs);
                } else if !up && self.session {
                    host.on_session_down(now, peer, outputs);
                }
                self.session = up;
            }
            ATTACH => host.attach(now, VOLUME, 0, outputs),
            SUBMIT => host.submit(now, VOLUME, 1, client_request(chunk.place), outputs),
            ANSWER => host.on_answer(now, VOLUME, chunk.place == 1, outputs),
            CONFIRMED => {
                host.on_confirmed(now, now, catalogs.last().map(|newest| &**newest), outputs)
            }
            CHECKPOINT => host.checkpoint_all(),
            _ => {}
        }
        self.settle(outputs);
        true
    }

    fn settle(&mut self, outputs: &mut Outputs<u64>) {
        // A bound, in case it has always something to do.
        for _ in 0..1000 {
            if !self.host.run(self.now, outputs) {
                break;
            }
        }
    }
}

/// A conversation: kvdb's word, and what each of the two was given.
struct Tale {
    catalogs: Vec<Arc<Catalog>>,
    scripts: [Vec<Chunk>; 2],
}

/// Two hosts that talk, being recorded.
struct Recording {
    lives: [Life; 2],
    tale: Tale,
    requests: u64,
    attached: bool,
}

impl Recording {
    fn new(number: u64) -> Recording {
        let mut recording = Recording {
            lives: [Life::new(0), Life::new(1)],
            tale: Tale {
                catalogs: Vec::new(),
                scripts: [0, 1].map(|index| {
                    vec![Chunk {
                        tag: WHOSE,
                        place: number as u32 * 2 + index,
                        bytes: Vec::new(),
                    }]
                }),
            },
            requests: 0,
            attached: false,
        };
        recording.tale.catalogs.push(Arc::default());
        recording.apply(catalog::form());
        for node in 1..=3 {
            recording.apply(Command::NodeStarted {
                node: NodeId(node),
                incarnation: Incarnation(u64::from(node)),
                starts: 1,
            });
        }
        recording.apply(Command::CreateVolume {
            name: "demo".to_owned(),
            bytes: BLOCKS * BLOCK_BYTES,
            block_bytes: 512,
            policy: isthmus_catalog::VolumePolicy::default(),
        });
        recording
    }

    fn apply(&mut self, command: Command) -> bool {
        self.requests += 1;
        let mut catalog = self
            .tale
            .catalogs
            .last()
            .map_or_else(Catalog::default, |newest| Catalog::clone(newest));
        let answer = catalog.apply(&Request {
            id: RequestId {
                client: 1,
                number: self.requests,
            },
            cause: Cause {
                who: "fuzz".to_owned(),
                why: String::new(),
                at_ms: 0,
            },
            command,
        });
        self.tale.catalogs.push(Arc::new(catalog));
        !matches!(answer, isthmus_catalog::Answer::Refused(_))
    }

    /// Gives a host something, and everything to everyone that follows from it.
    fn give(&mut self, index: usize, tag: u8, place: u32, bytes: Vec<u8>) {
        let mut waiting = std::collections::VecDeque::from([(index, Chunk { tag, place, bytes })]);
        while let Some((index, chunk)) = waiting.pop_front() {
            let mut outputs = Outputs::default();
            let sound = self.lives[index].give(&chunk, &self.tale.catalogs, &mut outputs);
            assert!(sound, "hosts understand each other: {chunk:?}");
            self.tale.scripts[index].push(chunk);
            let mut next = |index, tag, place, bytes| {
                waiting.push_back((index, Chunk { tag, place, bytes }));
            };
            for frame in outputs.frames {
                let lane = if frame.lane == Lane::Write {
                    WRITE_LANE
                } else {
                    RESYNC_LANE
                };
                next(1 - index, lane, 0, [frame.head, frame.body].concat());
            }
            self.attached |= outputs
                .replies
                .iter()
                .any(|(_, outcome)| matches!(outcome, Outcome::Attached));
            for (_, proposal) in outputs.proposals {
                let done = self.apply(command_of(VOLUME, me(index), &proposal));
                let newest = self.tale.catalogs.len() as u32 - 1;
                let mut next = |index, tag, place| {
                    let bytes = Vec::new();
                    waiting.push_back((index, Chunk { tag, place, bytes }));
                };
                next(index, ANSWER, u32::from(done));
                (0..2).for_each(|node| next(node, CATALOG, newest));
            }
            if outputs.confirm {
                waiting.push_back((
                    index,
                    Chunk {
                        tag: CONFIRMED,
                        place: 0,
                        bytes: Vec::new(),
                    },
                ));
            }
        }
    }

    fn both(&mut self, tag: u8, place: u32) {
        (0..2).for_each(|index| self.give(index, tag, place, Vec::new()));
    }

    fn requests(&mut self, random: &mut Random) {
        for _ in 0..random.below(4) + 1 {
            self.give(0, SUBMIT, random.next_u64() as u32, Vec::new());
        }
        self.both(RUN, 50);
    }

    fn record(number: u64) -> Recording {
        let mut random = Random::new(number);
        let mut recording = Recording::new(number);
        let newest = recording.tale.catalogs.len() as u32 - 1;
        recording.both(CATALOG, newest);
        recording.both(SESSION, 1);
        recording.give(0, ATTACH, 0, Vec::new());
        for _ in 0..100 {
            if recording.attached {
                break;
            }
            recording.both(RUN, 100);
        }
        assert!(recording.attached, "the volume is served in the end");
        recording.requests(&mut random);
        if random.once_in(2) {
            recording.both(CHECKPOINT, 0);
            recording.requests(&mut random);
        }
        if random.once_in(2) {
            // The member is lost, leaves the set, and comes back.
            recording.both(SESSION, 0);
            (0..4).for_each(|_| recording.both(RUN, 1000));
            recording.requests(&mut random);
            recording.both(SESSION, 1);
            (0..30).for_each(|_| recording.both(RUN, 200));
            recording.requests(&mut random);
        }
        recording
    }
}

/// What the two hosts of a tale have on their disks in the end, and kvdb's last word.
pub(super) fn disks(number: u64) -> (Arc<Catalog>, [MemoryDisk; 2]) {
    let Recording { lives, tale, .. } = Recording::record(number);
    let newest = tale.catalogs.last().cloned().unwrap_or_default();
    (newest, lives.map(|life| life.host.into_disk()))
}

/// `Host::on_frame`, and the start after it.
pub struct Frames {
    tales: Vec<Tale>,
}

impl Frames {
    /// With its conversations recorded.
    #[must_use]
    pub fn new() -> Frames {
        Frames {
            tales: (0..TALES)
                .map(|number| Recording::record(number).tale)
                .collect(),
        }
    }
}

impl Default for Frames {
    fn default() -> Frames {
        Frames::new()
    }
}

fn is_frame(chunk: &Chunk) -> bool {
    chunk.tag == WRITE_LANE || chunk.tag == RESYNC_LANE
}

impl Target for Frames {
    fn name(&self) -> &'static str {
        "host-frames"
    }

    fn share(&self) -> u64 {
        1
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let tale = &self.tales[random.index(self.tales.len())];
        let script = &tale.scripts[random.index(2)];
        // Mostly from a state on the way: the end of a tale is one among many.
        let end = if random.once_in(3) {
            script.len()
        } else {
            1 + random.index(script.len())
        };
        chunks::join(&script[..end])
    }

    fn mutate(&self, bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) -> bool {
        mutate_chunks(bytes, other, is_frame, random);
        true
    }

    fn reseal(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let mut chunks = chunks::split(bytes);
        for chunk in chunks.iter_mut().filter(|chunk| chunk.tag == WRITE_LANE) {
            if chunk.bytes.first() == Some(&1) {
                host_wire::reseal_record(&mut chunk.bytes, VOLUME, random);
            }
        }
        *bytes = chunks::join(&chunks);
    }

    fn input_bytes_max(&self) -> usize {
        1 << 20
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        // The journal is read through a window of 1 MiB, and serde takes a length's word for 1 MiB.
        (16 << 20) + 16 * input_bytes
    }

    fn run(&mut self, input: &[u8], expect: Expect) -> Verdict {
        let chunks = chunks::split(input);
        let whose = chunks.first().map_or(0, |chunk| chunk.place as usize);
        let tale = &self.tales[whose / 2 % self.tales.len()];
        let mut life = Life::new(whose % 2);
        let mut verdict = Verdict::Accepted;
        // Cut or damaged scripts are not scripts any more: their order of kvdb's words means nothing.
        if matches!(expect, Expect::Damaged | Expect::Cut) {
            return verdict;
        }
        for chunk in &chunks {
            if !life.give(chunk, &tale.catalogs, &mut Outputs::default()) {
                verdict = Verdict::Refused;
            }
        }
        let Life {
            index, host, now, ..
        } = life;
        let mut again = open(host.into_disk(), index, now);
        assert!(again.closed().is_empty(), "{:?}", again.closed());
        again.run(now, &mut Outputs::default());
        verdict
    }
}

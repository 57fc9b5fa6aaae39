//! A store on a simulated disk, with the content that it must have.

use crate::store::{StoreEvent, StoreOp, VolumeSpec, VolumeStore};
use bytes::Bytes;
use isthmus_engine::{BLOCK_BYTES, BlockRange, VolumeId, block_checksum};
use isthmus_journal::Disk;
use isthmus_simulated_disk::{Random, SimulatedDisk};
use std::collections::BTreeMap;

pub(super) const VOLUME: VolumeId = VolumeId(7);
pub(super) const FOLDER: &str = "volumes/7";

/// What an operation must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Applied,
    /// The stamp of each block, 0 for zeroes.
    Read(BlockRange, Vec<u64>),
    Status(Vec<bool>),
    /// Where in the log the checkpoint's state points.
    Checkpointed(usize),
}

/// A change, to be redone after a crash.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Write(BlockRange, u64),
    Clear(BlockRange),
}

impl Change {
    pub(super) fn range(self) -> BlockRange {
        match self {
            Change::Write(range, _) | Change::Clear(range) => range,
        }
    }
}

pub(super) struct Rig {
    pub(super) disk: SimulatedDisk,
    pub(super) store: VolumeStore,
    pub(super) random: Random,
    pub(super) blocks: u64,
    /// The stamp of each block, 0 when absent, after all submitted changes.
    pub(super) model: Vec<u64>,
    pub(super) log: Vec<Change>,
    /// The log's length at the last durable checkpoint.
    pub(super) durable: usize,
    pub(super) expected: BTreeMap<u64, Expected>,
    pub(super) failed: Vec<(StoreOp, std::io::ErrorKind)>,
    /// Blocks that reads called bad.
    pub(super) bad: Vec<u64>,
    ops: u64,
    stamps: u64,
    tags: u16,
}

/// A block's content: its stamp, over and over.
pub(super) fn block_of(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(BLOCK_BYTES as usize / 8)
}

pub(super) fn payload(range: BlockRange, stamp: u64) -> (Bytes, Vec<u32>) {
    let block = block_of(stamp);
    let checksums = (range.start..range.end())
        .map(|number| block_checksum(VOLUME, number, &block))
        .collect();
    (Bytes::from(block.repeat(range.count as usize)), checksums)
}

impl Rig {
    pub(super) fn new(seed: u64, blocks: u64) -> Rig {
        let mut disk = SimulatedDisk::new(seed);
        VolumeStore::format(
            &mut disk,
            FOLDER,
            VolumeSpec {
                volume: VOLUME,
                blocks,
            },
        )
        .unwrap();
        let (store, state, spec) = VolumeStore::open(&mut disk, FOLDER, 1).unwrap();
        assert_eq!(
            (state.len(), spec),
            (
                0,
                VolumeSpec {
                    volume: VOLUME,
                    blocks
                }
            )
        );
        Rig {
            disk,
            store,
            random: Random::new(seed ^ 0x5eed),
            blocks,
            model: vec![0; blocks as usize],
            log: Vec::new(),
            durable: 0,
            expected: BTreeMap::new(),
            failed: Vec::new(),
            bad: Vec::new(),
            ops: 0,
            stamps: 0,
            tags: 1,
        }
    }

    fn expect(&mut self, expected: Expected) -> StoreOp {
        self.ops += 1;
        self.expected.insert(self.ops, expected);
        StoreOp(self.ops)
    }

    pub(super) fn range(&mut self, count_max: u64) -> BlockRange {
        let count = 1 + self.random.below(count_max.min(self.blocks));
        BlockRange::new(self.random.below(self.blocks - count + 1), count)
    }

    pub(super) fn submit(&mut self, change: Change) {
        let op = self.expect(Expected::Applied);
        let range = change.range();
        let stamp = match change {
            Change::Write(range, stamp) => {
                let (data, checksums) = payload(range, stamp);
                self.store.write(op, range, data, checksums);
                stamp
            }
            Change::Clear(range) => {
                self.store.clear(op, range);
                0
            }
        };
        self.model[range.start as usize..range.end() as usize].fill(stamp);
    }

    pub(super) fn write(&mut self, range: BlockRange) {
        self.stamps += 1;
        self.log.push(Change::Write(range, self.stamps));
        self.submit(Change::Write(range, self.stamps));
    }

    pub(super) fn clear(&mut self, range: BlockRange) {
        self.log.push(Change::Clear(range));
        self.submit(Change::Clear(range));
    }

    pub(super) fn read(&mut self, range: BlockRange) {
        let stamps = self.model[range.start as usize..range.end() as usize].to_vec();
        let op = self.expect(Expected::Read(range, stamps));
        self.store.read(op, range);
    }

    pub(super) fn status(&mut self, range: BlockRange) {
        let stamps = &self.model[range.start as usize..range.end() as usize];
        let allocated = stamps.iter().map(|stamp| *stamp != 0).collect();
        let op = self.expect(Expected::Status(allocated));
        self.store.status(op, range);
    }

    pub(super) fn checkpoint(&mut self) {
        let at = self.log.len();
        let op = self.expect(Expected::Checkpointed(at));
        let padding = self.random.below(200_000) as usize;
        let state = [&(at as u64).to_le_bytes()[..], &vec![0xa5; padding]].concat();
        self.store.checkpoint(op, state);
    }

    /// Steps the store, and checks what it says.
    pub(super) fn step(&mut self) {
        let mut events = Vec::new();
        self.store.step(&mut self.disk, &mut events);
        for event in events {
            self.check(event);
        }
    }

    /// Lets one operation of the disk complete. False when none is in flight.
    pub(super) fn tick(&mut self) -> bool {
        let Some(at) = self.disk.next_event() else {
            return false;
        };
        self.disk.advance(at);
        let mut done = Vec::new();
        self.disk.completed(&mut done);
        for (id, result) in done {
            self.store.on_completed(id, result);
        }
        self.step();
        true
    }

    /// Runs until nothing is under way, and checks that everything was answered.
    pub(super) fn settle(&mut self) {
        self.step();
        while self.tick() {}
        assert!(
            self.expected.is_empty(),
            "never answered: {:?}",
            self.expected
        );
        assert!(self.store.is_idle());
    }

    fn check(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Applied { op } => {
                assert_eq!(self.expected.remove(&op.0), Some(Expected::Applied))
            }
            StoreEvent::Checkpointed { op } => match self.expected.remove(&op.0) {
                Some(Expected::Checkpointed(at)) => {
                    assert!(at >= self.durable, "checkpoints complete in order");
                    self.durable = at;
                }
                other => panic!("{op:?} is no checkpoint but {other:?}"),
            },
            StoreEvent::Status { op, runs } => {
                let Some(Expected::Status(allocated)) = self.expected.remove(&op.0) else {
                    panic!("{op:?}")
                };
                let found: Vec<bool> = runs
                    .iter()
                    .flat_map(|run| vec![run.1; run.0 as usize])
                    .collect();
                assert_eq!(found, allocated);
            }
            StoreEvent::Failed { op, error } => {
                self.failed.push((op, error.kind()));
                assert!(self.expected.remove(&op.0).is_some(), "{op:?} fails once");
            }
            StoreEvent::Read {
                op,
                data,
                checksums,
                bad,
            } => {
                let Some(Expected::Read(range, stamps)) = self.expected.remove(&op.0) else {
                    panic!("{op:?}")
                };
                self.check_read(range, &stamps, &data, &checksums, &bad);
            }
        }
    }

    fn check_read(
        &mut self,
        range: BlockRange,
        stamps: &[u64],
        data: &Bytes,
        checksums: &[u32],
        bad: &[u64],
    ) {
        assert_eq!(
            (data.len() as u64, checksums.len() as u64),
            (range.bytes(), range.count)
        );
        assert!(bad.is_sorted_by(|left, right| left < right), "{bad:?}");
        for (index, block) in data.chunks_exact(BLOCK_BYTES as usize).enumerate() {
            let number = range.start + index as u64;
            assert_eq!(
                checksums[index],
                block_checksum(VOLUME, number, block),
                "checksum of block {number}"
            );
            let stamp = if bad.contains(&number) {
                0
            } else {
                stamps[index]
            };
            let found = u64::from_le_bytes(block[..8].try_into().unwrap());
            assert!(
                block == block_of(stamp),
                "block {number} has {found}, not {stamp}"
            );
        }
        self.bad.extend(bad);
    }

    /// Reads all of the volume, and checks it against the model.
    pub(super) fn check_all(&mut self) {
        for start in (0..self.blocks).step_by(300) {
            self.read(BlockRange::new(start, 300.min(self.blocks - start)));
        }
        self.settle();
        assert_eq!(self.bad, [], "blocks that should be good");
    }

    /// Opens the store anew, and returns its state.
    pub(super) fn open(&mut self) -> Vec<u8> {
        self.tags += 1;
        let (store, state, spec) = VolumeStore::open(&mut self.disk, FOLDER, self.tags).unwrap();
        assert_eq!(
            spec,
            VolumeSpec {
                volume: VOLUME,
                blocks: self.blocks
            }
        );
        self.store = store;
        state
    }

    /// Ends this life of the store in order and begins another.
    pub(super) fn restart(&mut self) {
        self.settle();
        self.checkpoint();
        self.settle();
        self.disk.reopen();
        self.open();
    }
}

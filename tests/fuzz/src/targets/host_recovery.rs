//! A host's start on what its volume's checkpoint and its journal say, where that is not what a host ever wrote. What makes no
//! sense stops or closes that one volume; it must not stop the node, on which others depend.

use isthmus_catalog::Catalog;
use isthmus_engine::{Time, VolumeId};
use isthmus_host::Outputs;
use isthmus_journal::{Journal, StreamId};
use isthmus_volume::{StoreOp, VolumeSpec, VolumeStore};
use std::sync::Arc;

use super::host_frames::{self, BLOCKS, SHAPE, VOLUME};
use super::{host_wire, journal, volume};
use crate::chunks::{self, Chunk};
use crate::memory_disk::MemoryDisk;
use crate::mutate::mutate_chunks;
use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

const RECORD: u8 = 0;
const STATE: u8 = 1;
const JOURNAL: &str = "journal";

fn folder(volume: VolumeId) -> String {
    format!("volumes/{}", volume.0)
}

/// `Host::open`: the state of a checkpoint (tag 1) and the volume's records in the journal behind it (tag 0).
pub struct Starts {
    /// What two hosts left behind, for each tale and node.
    left: Vec<Vec<Chunk>>,
    catalog: Arc<Catalog>,
}

impl Starts {
    /// With what some conversations have left on disk.
    #[must_use]
    pub fn new() -> Starts {
        let mut left = Vec::new();
        let mut newest = Arc::default();
        for number in 0..host_frames::TALES {
            let (catalog, disks) = host_frames::disks(number);
            left.extend(disks.into_iter().map(left_on));
            newest = catalog;
        }
        Starts {
            left,
            catalog: newest,
        }
    }
}

impl Default for Starts {
    fn default() -> Starts {
        Starts::new()
    }
}

fn left_on(mut disk: MemoryDisk) -> Vec<Chunk> {
    disk.restart();
    let (_, state, _) = VolumeStore::open(&mut disk, &folder(VOLUME), 1).expect("a host wrote it");
    let mut chunks = vec![Chunk {
        tag: STATE,
        place: 0,
        bytes: state,
    }];
    Journal::open(&mut disk, JOURNAL, 1, &mut |_, _, record| {
        chunks.push(Chunk {
            tag: RECORD,
            place: 0,
            bytes: record.to_vec(),
        });
    })
    .expect("a host wrote it");
    chunks
}

impl Target for Starts {
    fn name(&self) -> &'static str {
        "host-recovery"
    }

    fn share(&self) -> u64 {
        1
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let chunks = &self.left[random.index(self.left.len())];
        chunks::join(&chunks[..1 + random.index(chunks.len())])
    }

    fn mutate(&self, bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) -> bool {
        mutate_chunks(bytes, other, |_| true, random);
        true
    }

    fn reseal(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let mut chunks = chunks::split(bytes);
        for chunk in &mut chunks {
            if chunk.tag == RECORD && chunk.bytes.first() == Some(&1) {
                host_wire::reseal_record(&mut chunk.bytes, VOLUME, random);
            }
        }
        *bytes = chunks::join(&chunks);
    }

    fn input_bytes_max(&self) -> usize {
        256 << 10
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        // As for frames.
        (16 << 20) + 16 * input_bytes
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let mut disk = MemoryDisk::default();
        Journal::format(&mut disk, JOURNAL, SHAPE, 7).expect("the shape is sound");
        let mut records =
            Journal::open(&mut disk, JOURNAL, 1, &mut |_, _, _| {}).expect("it is new");
        let spec = VolumeSpec {
            volume: VOLUME,
            blocks: BLOCKS,
        };
        VolumeStore::format(&mut disk, &folder(VOLUME), spec).expect("the size is possible");
        for chunk in chunks::split(input) {
            if chunk.tag == STATE {
                let (mut store, _, _) =
                    VolumeStore::open(&mut disk, &folder(VOLUME), 1).expect("it is sound");
                store.checkpoint(StoreOp(1), chunk.bytes);
                volume::settle(&mut store, &mut disk);
                continue;
            }
            let fits = chunk.bytes.len() as u64 <= records.record_bytes_max();
            let record = [chunk.bytes.into()];
            if !fits || records.append(StreamId(VOLUME.0), &record).is_err() {
                return Verdict::Refused;
            }
        }
        journal::settle(&mut records, &mut disk);
        drop(records);
        let now = Time(1);
        let mut host = host_frames::open(disk, 0, now);
        let closed = !host.closed().is_empty();
        let mut outputs = Outputs::default();
        host.on_catalog(now, Arc::clone(&self.catalog), &mut outputs);
        // A bound, in case it has always something to do.
        (0..100).any(|_| !host.run(now, &mut outputs));
        if closed {
            Verdict::Refused
        } else {
            Verdict::Accepted
        }
    }
}

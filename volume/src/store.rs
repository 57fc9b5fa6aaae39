//! [`VolumeStore`]: one replica on disk: thin extents with a checksum a block, and atomic checkpoints.
//!
//! It holds committed data only. Operations are submitted and complete by events; [`VolumeStore::step`] hands work to the
//! disk, [`VolumeStore::on_completed`] takes the disk's answers. Reading order: `format` (pages as bytes), `extent_map`,
//! `slots` and `header_cache` (what is in memory), `extent_queue` (what may run at once), `requests` and `parts` (an
//! operation from submission to its event), `growth`, `checkpoint`, `opening`. The format and its rules are in
//! `docs/decisions/0003-extents-format.md`.
//!
//! Invariants:
//! * A block is never read while it is written: conflicting parts of operations run in the order of their submission.
//! * A page that the last durable checkpoint refers to is never written; a slot that it refers to goes to no other extent.
//! * A header that differs from its copy on disk stays in memory.

mod block_set;
mod checkpoint;
mod error;
mod extent_map;
mod extent_queue;
mod format;
mod growth;
mod header_cache;
mod opening;
mod parts;
mod requests;
mod slots;

pub use error::StoreError;

use bytes::Bytes;
use checkpoint::Checkpoints;
use extent_map::ExtentMap;
use extent_queue::ExtentQueue;
use header_cache::HeaderCache;
use isthmus_engine::{BlockRange, VolumeId};
use isthmus_journal::{Disk, DiskOp, Done, FileId, OpId, OpIds};
use requests::Request;
use slots::Slots;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

/// Blocks that share a slot, and a header: 1 MiB.
pub const EXTENT_BLOCKS: u64 = format::EXTENT_BLOCKS;
/// Blocks that a volume may have: 256 TiB.
pub const BLOCKS_MAX: u64 = 1 << 36;
/// Clean headers kept in memory, about 1.2 KiB each: those of 4 GiB of data.
const CLEAN_HEADERS_MAX: usize = 4096;
/// Changed headers from which on a checkpoint is wanted: about 10 MiB of memory.
const DIRTY_HEADERS_WANTED_MAX: usize = 8192;
/// Slots given back from which on a checkpoint is wanted, so that they can be used again: 1 GiB.
const RELEASED_SLOTS_WANTED_MAX: usize = 1024;
/// Blocks of one read or write at most: 64 MiB.
pub const TRANSFER_BLOCKS_MAX: u64 = 16_384;

/// The caller's name for an operation; may be any number, also one used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreOp(pub u64);

/// What a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// The volume.
    pub volume: VolumeId,
    /// Its size in blocks, 1 to [`BLOCKS_MAX`].
    pub blocks: u64,
}

/// What became of an operation. Each submitted operation has exactly one event.
#[derive(Debug)]
pub enum StoreEvent {
    /// A write or clear is visible to reads; a later checkpoint makes it durable.
    Applied {
        /// The operation.
        op: StoreOp,
    },
    /// A read's data.
    Read {
        /// The operation.
        op: StoreOp,
        /// The whole range; absent and bad blocks are zeroes.
        data: Bytes,
        /// Of each block, those of a zero block for absent and bad ones.
        checksums: Vec<u32>,
        /// Blocks (by their number in the volume, ascending) that could not be read or don't match their checksum.
        bad: Vec<u64>,
    },
    /// Which blocks have content.
    Status {
        /// The operation.
        op: StoreOp,
        /// From the start of the range: so many blocks that are allocated (true) or absent (false). They may end
        /// before the range does, but cover at least one block of it.
        runs: Vec<(u64, bool)>,
    },
    /// A checkpoint is durable.
    Checkpointed {
        /// The operation.
        op: StoreOp,
    },
    /// The disk refused. A failed write or clear leaves its range undefined until it is done again; a failed checkpoint
    /// leaves the previous one in force.
    Failed {
        /// The operation.
        op: StoreOp,
        /// Why: `StorageFull` where the disk is full.
        error: io::Error,
    },
}

/// The files of a volume's folder.
#[derive(Clone, Copy, Debug)]
struct Files {
    superblock: FileId,
    roots: [FileId; 2],
    map: FileId,
    headers: FileId,
    data: FileId,
}

/// What an operation in flight at the disk is for.
#[derive(Debug)]
enum Job {
    /// Reads an extent's header.
    LoadHeader { extent: u32 },
    /// Reads or writes blocks `first..first + count` of an extent for a request.
    Data {
        extent: u32,
        ticket: u64,
        first: u64,
        count: u64,
    },
    /// A page of the running checkpoint.
    CheckpointWrite,
    /// A sync of the running checkpoint.
    CheckpointSync,
    /// The superblock of the running checkpoint.
    CheckpointSuperblock,
    /// Gives the space of free slots back.
    Punch { slot: u32, count: u32 },
}

/// One replica on disk.
#[derive(Debug)]
pub struct VolumeStore {
    spec: VolumeSpec,
    files: Files,
    ids: OpIds,
    map: ExtentMap,
    slots: Slots,
    /// Room in the map file, in pairs of pages.
    map_pairs: u32,
    headers: HeaderCache,
    active: BTreeMap<u32, ExtentQueue>,
    /// Active extents to look at in the next step.
    listed: VecDeque<u32>,
    tickets: u64,
    requests: BTreeMap<u64, Request>,
    /// Writes and clears that are not applied yet, by ticket.
    changes: BTreeSet<u64>,
    checkpoints: Checkpoints,
    jobs: BTreeMap<OpId, Job>,
    /// A read waits for a write that the disk has or gets.
    hurried: bool,
    /// Operations that the disk has not taken yet.
    outbox: VecDeque<(OpId, DiskOp)>,
    events: Vec<StoreEvent>,
}

impl VolumeStore {
    /// What this store holds. A growth counts at once, and is durable with the next checkpoint.
    #[must_use]
    pub fn spec(&self) -> VolumeSpec {
        self.spec
    }

    /// Makes the volume larger.
    ///
    /// # Panics
    /// When `blocks` is less than before or more than [`BLOCKS_MAX`].
    pub fn grow(&mut self, blocks: u64) {
        assert!(
            blocks >= self.spec.blocks && blocks <= BLOCKS_MAX,
            "{} blocks grow to {blocks}",
            self.spec.blocks
        );
        self.spec.blocks = blocks;
    }

    /// Hands work to the disk, and appends what has happened to `out`. To be called after submitting operations, after
    /// completions, and, while [`VolumeStore::is_waiting_for_disk`], after completions of anyone.
    pub fn step<D: Disk>(&mut self, disk: &mut D, out: &mut Vec<StoreEvent>) {
        while let Some(extent) = self.listed.pop_front() {
            self.look_at(extent, disk);
        }
        self.step_checkpoint(disk);
        while let Some((id, op)) = self.outbox.front() {
            if disk.submit(*id, op.clone()).is_err() {
                break;
            }
            self.outbox.pop_front();
        }
        if std::mem::take(&mut self.hurried) {
            disk.hurry();
        }
        self.headers
            .evict(|extent| self.active.contains_key(&extent));
        out.append(&mut self.events);
    }

    /// The disk completed an operation of this store.
    ///
    /// # Panics
    /// When it is not one that this store submitted and that is still in flight.
    pub fn on_completed(&mut self, id: OpId, result: io::Result<Done>) {
        let job = self
            .jobs
            .remove(&id)
            .expect("the host hands each completion to its owner once");
        match job {
            Job::LoadHeader { extent } => self.on_header_loaded(extent, result),
            Job::Data {
                extent,
                ticket,
                first,
                count,
            } => self.on_data(extent, ticket, first, count, result),
            Job::CheckpointWrite | Job::CheckpointSync | Job::CheckpointSuperblock => {
                self.on_checkpoint_io(&job, result.err());
            }
            // A failed punch leaves space in use until the slot is used again: no harm.
            Job::Punch { slot, count } => self.on_punched(slot, count),
        }
    }

    /// Whether the disk was too busy to take all operations: step again after any completion.
    #[must_use]
    pub fn is_waiting_for_disk(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether nothing is submitted, waiting or in flight, so that the store may be dropped.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
            && self.jobs.is_empty()
            && self.events.is_empty()
            && self.checkpoints.is_idle()
    }

    /// Whether a checkpoint should be made soon: much changed metadata is held in memory, or space waits for
    /// it that is much or was missed.
    #[must_use]
    pub fn wants_checkpoint(&self) -> bool {
        self.headers.dirty_count() > DIRTY_HEADERS_WANTED_MAX
            || self.checkpoints.released_count() > RELEASED_SLOTS_WANTED_MAX
            || self.checkpoints.space_wanted()
    }

    /// Bytes written (and of changed metadata) since the last checkpoint began: what the next one has to make durable.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        self.checkpoints.bytes_since_cut()
            + self.headers.dirty_count() as u64 * format::PAGE_BYTES as u64
    }

    /// Slots of 1 MiB that hold extents.
    #[must_use]
    pub fn slots_used(&self) -> u32 {
        self.map.mapped()
    }

    /// Whether a write to the block needs no further slot.
    #[must_use]
    pub fn has_slot_for(&self, block: u64) -> bool {
        self.map.get(extent_map::extent_of(block)).is_some()
    }

    /// The blocks of the first extent with a slot at or after `block`.
    #[must_use]
    pub fn extent_in_use_from(&self, block: u64) -> Option<BlockRange> {
        if block >= self.spec.blocks {
            return None;
        }
        let last = extent_map::extent_of(self.spec.blocks - 1);
        let extent = self
            .map
            .mapped_within(extent_map::extent_of(block), last)
            .next()?;
        let start = u64::from(extent) * EXTENT_BLOCKS;
        let end = self.spec.blocks.min(start + EXTENT_BLOCKS);
        Some(BlockRange::new(start, end - start))
    }

    /// Bytes of memory that the store takes, about, without the payloads of operations under way.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let active = self.active.len() * (size_of::<ExtentQueue>() + 8);
        let requests = self.requests.len() * (size_of::<Request>() + 8);
        self.map.memory_bytes()
            + self.slots.memory_bytes()
            + self.headers.memory_bytes()
            + active
            + requests
    }

    fn submit(&mut self, job: Job, op: DiskOp) {
        let id = self.ids.next_id();
        self.jobs.insert(id, job);
        self.outbox.push_back((id, op));
    }
}

#[cfg(test)]
mod tests;

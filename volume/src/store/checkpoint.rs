//! Atomic checkpoints by shadow pages.
//!
//! States: waiting (for the changes submitted before it) → writing (headers, map pages, root, each in the copy that is
//! not current) → syncing (all files written) → committing (the superblock, durably) → over. Nothing that is written
//! before the superblock is referred to by the previous checkpoint, so a crash leaves exactly the one or the other.
//!
//! A page that can't be written ends the attempt, and the next checkpoint writes it again. After a failed sync the kernel may have
//! dropped what it could not write, and after a failed superblock nobody knows which checkpoint holds: from then on every
//! checkpoint fails until the store is opened anew and its owner has redone what came after the checkpoint found.

use super::format::{
    Entries, Entry, Header, MapPageName, PAGE_BYTES, Root, SLOT_BYTES, Stamp, StoredPage,
    Superblock,
};
use super::parts::header_offset;
use super::{Job, StoreEvent, StoreOp, VolumeStore};
use bytes::Bytes;
use isthmus_journal::{Disk, DiskOp, FileId};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Pages of a checkpoint in flight at once, so that it doesn't crowd out clients.
const WRITES_IN_FLIGHT_MAX: u32 = 32;
/// Punches in flight at once.
const PUNCHES_IN_FLIGHT_MAX: u32 = 2;
/// Slots in one punch at most.
const PUNCH_SLOTS_MAX: u32 = 256;
/// Bytes of the root in one write at most.
const ROOT_WRITE_BYTES: usize = 1 << 20;
/// The root files grow by this.
pub(super) const ROOT_GROWTH_BYTES: u64 = 64 << 10;

/// Checkpoints wanted, running and past, and the slots that wait for one.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// The last durable one.
    durable: u64,
    /// The number of the next attempt. Always of the other parity than `durable`.
    next: u64,
    waiting: VecDeque<Waiting>,
    running: Option<Running>,
    /// Slots given back since the last cut.
    released: Vec<u32>,
    /// Runs of slots that no checkpoint refers to any more, whose space is to be given back.
    punches: VecDeque<(u32, u32)>,
    punches_in_flight: u32,
    bytes_since_cut: u64,
    /// Data was written since the last sync.
    data_unsynced: bool,
    /// Lengths of the root files.
    root_room: [u64; 2],
    /// A write found no space while slots waited for the next checkpoint.
    space_wanted: bool,
    /// No checkpoint can be trusted any more.
    broken: bool,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    op: StoreOp,
    state: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Writing,
    Syncing,
    Committing,
}

/// A header as it was cut.
#[derive(Debug)]
struct HeaderCut {
    extent: u32,
    slot: u32,
    before: Stamp,
}

#[derive(Debug)]
enum PageWrite {
    Header {
        extent: u32,
        entry: Entry,
        header: Arc<Header>,
    },
    Map {
        stored: StoredPage,
        entries: Arc<Entries>,
    },
    Root {
        offset: u64,
        bytes: Bytes,
    },
}

#[derive(Debug)]
struct Running {
    op: StoreOp,
    superblock: Superblock,
    phase: Phase,
    in_flight: u32,
    failure: Option<io::Error>,
    pending: VecDeque<PageWrite>,
    headers: Vec<HeaderCut>,
    pages: Vec<StoredPage>,
    /// Slots that are free once this checkpoint is durable.
    releasing: Vec<u32>,
    bytes: u64,
}

impl Checkpoints {
    pub(super) fn new(durable: u64, root_room: [u64; 2]) -> Checkpoints {
        Checkpoints {
            durable,
            next: durable + 1,
            waiting: VecDeque::new(),
            running: None,
            released: Vec::new(),
            punches: VecDeque::new(),
            punches_in_flight: 0,
            bytes_since_cut: 0,
            data_unsynced: false,
            root_room,
            space_wanted: false,
            broken: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_none() && self.punches.is_empty()
    }

    pub(super) fn released_count(&self) -> usize {
        self.released.len()
    }

    /// A write found no space.
    pub(super) fn note_full(&mut self) {
        self.space_wanted |= !self.released.is_empty();
    }

    /// Whether a checkpoint would give space that a write missed.
    pub(super) fn space_wanted(&self) -> bool {
        self.space_wanted
    }

    pub(super) fn bytes_since_cut(&self) -> u64 {
        self.bytes_since_cut
    }

    /// Data reached a slot.
    pub(super) fn note_written(&mut self, bytes: u64) {
        self.bytes_since_cut += bytes;
        self.data_unsynced = true;
    }

    /// A slot that a checkpoint may refer to is not used any more.
    pub(super) fn release(&mut self, slot: u32) {
        self.released.push(slot);
    }

    /// Queues the space of free slots, in runs, to be given back.
    fn queue_punches(&mut self, mut slots: Vec<u32>) {
        slots.sort_unstable();
        let runs = slots.chunk_by(|left, right| left + 1 == *right);
        let pieces = runs.flat_map(|run| run.chunks(PUNCH_SLOTS_MAX as usize));
        self.punches
            .extend(pieces.map(|piece| (piece[0], piece.len() as u32)));
    }
}

impl VolumeStore {
    /// Makes the effect of every write and clear submitted before this durable, atomically with `state`. Operations go on
    /// meanwhile; later ones may or may not be part of it, so they must be redone after a crash.
    pub fn checkpoint(&mut self, op: StoreOp, state: Vec<u8>) {
        let ticket = self.next_ticket();
        self.checkpoints
            .waiting
            .push_back(Waiting { ticket, op, state });
        // It waits for the changes before it.
        self.hurried = true;
    }

    /// A change failed: a checkpoint that was submitted after it would be without it, while its owner counts on it.
    pub(super) fn fail_checkpoints_after(&mut self, ticket: u64, error: &io::Error) {
        let waiting = std::mem::take(&mut self.checkpoints.waiting);
        let (failed, others): (Vec<Waiting>, Vec<Waiting>) = waiting
            .into_iter()
            .partition(|waiting| waiting.ticket > ticket);
        self.checkpoints.waiting = others.into();
        self.events
            .extend(failed.into_iter().map(|waiting| StoreEvent::Failed {
                op: waiting.op,
                error: io::Error::new(error.kind(), format!("a change before it failed: {error}")),
            }));
    }

    /// The number of the last durable checkpoint.
    #[must_use]
    pub fn checkpoint_generation(&self) -> u64 {
        self.checkpoints.durable
    }

    /// Takes the running checkpoint as far as it goes without the disk's answers.
    pub(super) fn step_checkpoint<D: Disk>(&mut self, disk: &mut D) {
        loop {
            let Some(running) = &mut self.checkpoints.running else {
                match self.next_ready() {
                    Some(waiting) => self.begin_checkpoint(waiting, disk),
                    None => break,
                }
                continue;
            };
            if running.failure.is_some() {
                running.pending.clear();
            }
            while running.phase == Phase::Writing
                && running.in_flight < WRITES_IN_FLIGHT_MAX
                && let Some(write) = running.pending.pop_front()
            {
                running.in_flight += 1;
                let op = write.into_op(&running.superblock, self.files);
                let id = self.ids.next_id();
                self.jobs.insert(id, Job::CheckpointWrite);
                self.outbox.push_back((id, op));
                self.hurried |= running.pending.is_empty();
            }
            if running.in_flight > 0 {
                break;
            }
            match (running.failure.take(), running.phase) {
                (Some(error), phase) => self.become_failed(error, phase),
                (None, Phase::Writing) => self.become_syncing(),
                (None, Phase::Syncing) => self.become_committing(),
                (None, Phase::Committing) => self.become_durable(),
            }
        }
        self.step_punches();
    }

    pub(super) fn on_checkpoint_io(&mut self, job: &Job, failure: Option<io::Error>) {
        let running = self
            .checkpoints
            .running
            .as_mut()
            .expect("a checkpoint runs until its I/O is over");
        let expected = match job {
            Job::CheckpointWrite => Phase::Writing,
            Job::CheckpointSync => Phase::Syncing,
            _ => Phase::Committing,
        };
        assert_eq!(running.phase, expected, "an answer to {job:?}");
        running.in_flight -= 1;
        if running.failure.is_none() {
            running.failure = failure;
        }
    }

    /// The first waiting checkpoint, when all changes before it are applied.
    fn next_ready(&mut self) -> Option<Waiting> {
        let ticket = self.checkpoints.waiting.front()?.ticket;
        if self.changes.first().is_some_and(|change| *change < ticket) {
            return None;
        }
        self.checkpoints.waiting.pop_front()
    }

    /// Cuts: notes what this checkpoint consists of, all in one instant.
    fn begin_checkpoint<D: Disk>(&mut self, waiting: Waiting, disk: &mut D) {
        if self.checkpoints.broken {
            let error = io::Error::other(
                "an earlier checkpoint could not be made durable; the store has to be opened anew",
            );
            self.events.push(StoreEvent::Failed {
                op: waiting.op,
                error,
            });
            return;
        }
        let generation = self.checkpoints.next;
        let mut pending = VecDeque::new();
        let headers = self.cut_headers(generation, &mut pending);
        let (cuts, table) = self.map.cut(generation);
        let pages = cuts.iter().map(|cut| cut.stored).collect();
        pending.extend(cuts.into_iter().map(|cut| PageWrite::Map {
            stored: cut.stored,
            entries: cut.entries,
        }));
        let root = Root {
            pages: table,
            state: waiting.state,
        }
        .encode(self.spec.volume, generation, LIVE_MAP);
        for at in (0..root.len()).step_by(ROOT_WRITE_BYTES) {
            let bytes = root.slice(at..root.len().min(at + ROOT_WRITE_BYTES));
            pending.push_back(PageWrite::Root {
                offset: at as u64,
                bytes,
            });
        }
        let superblock = Superblock {
            volume: self.spec.volume,
            generation,
            blocks: self.spec.blocks,
            live_map: LIVE_MAP,
            root_bytes: root.len() as u64,
            root_crc: crc32fast::hash(&root),
        };
        self.checkpoints.space_wanted = false;
        let failure = self.make_room_for_root(&superblock, disk).err();
        self.checkpoints.running = Some(Running {
            op: waiting.op,
            superblock,
            phase: Phase::Writing,
            in_flight: 0,
            failure,
            pending,
            headers,
            pages,
            releasing: std::mem::take(&mut self.checkpoints.released),
            bytes: std::mem::take(&mut self.checkpoints.bytes_since_cut),
        });
    }

    /// Points the map at the copies that the changed headers are about to have.
    fn cut_headers(
        &mut self,
        generation: u64,
        pending: &mut VecDeque<PageWrite>,
    ) -> Vec<HeaderCut> {
        let mut cuts = Vec::new();
        for (extent, header) in self.headers.cut() {
            let before = self
                .map
                .get(extent)
                .expect("an extent with a header has a slot");
            let entry = Entry {
                slot: before.slot,
                stamp: before.stamp.next(generation),
            };
            self.map.set(extent, Some(entry));
            cuts.push(HeaderCut {
                extent,
                slot: before.slot,
                before: before.stamp,
            });
            pending.push_back(PageWrite::Header {
                extent,
                entry,
                header,
            });
        }
        cuts
    }

    fn make_room_for_root<D: Disk>(
        &mut self,
        superblock: &Superblock,
        disk: &mut D,
    ) -> io::Result<()> {
        let index = root_index(superblock.generation);
        if superblock.root_bytes > self.checkpoints.root_room[index] {
            let room = superblock.root_bytes.next_multiple_of(ROOT_GROWTH_BYTES);
            disk.resize(self.files.roots[index], room, true)?;
            self.checkpoints.root_room[index] = room;
        }
        Ok(())
    }

    fn become_syncing(&mut self) {
        let running = self
            .checkpoints
            .running
            .as_mut()
            .expect("a checkpoint that writes is running");
        assert!(
            running.phase == Phase::Writing && running.pending.is_empty(),
            "{:?}",
            running.phase
        );
        running.phase = Phase::Syncing;
        let mut files = vec![self.files.roots[root_index(running.superblock.generation)]];
        if !running.headers.is_empty() {
            files.push(self.files.headers);
        }
        if !running.pages.is_empty() {
            files.push(self.files.map);
        }
        if std::mem::take(&mut self.checkpoints.data_unsynced) {
            files.push(self.files.data);
        }
        running.in_flight = files.len() as u32;
        for file in files {
            self.submit(Job::CheckpointSync, DiskOp::Sync { file });
        }
    }

    fn become_committing(&mut self) {
        let running = self
            .checkpoints
            .running
            .as_mut()
            .expect("a checkpoint that syncs is running");
        assert_eq!(running.phase, Phase::Syncing);
        running.phase = Phase::Committing;
        running.in_flight = 1;
        let superblock = running.superblock;
        let op = DiskOp::Write {
            file: self.files.superblock,
            offset: superblock_offset(superblock.generation),
            parts: vec![superblock.encode()],
            durable: true,
        };
        self.submit(Job::CheckpointSuperblock, op);
    }

    fn become_durable(&mut self) {
        let running = self
            .checkpoints
            .running
            .take()
            .expect("a checkpoint that commits is running");
        assert_eq!(running.phase, Phase::Committing);
        for cut in &running.headers {
            self.headers.end_checkpoint(cut.extent, true);
        }
        for page in running.pages {
            self.map.become_stored(page);
        }
        self.checkpoints.durable = running.superblock.generation;
        self.checkpoints.next = running.superblock.generation + 1;
        self.checkpoints.queue_punches(running.releasing);
        self.events
            .push(StoreEvent::Checkpointed { op: running.op });
    }

    /// Undoes the cut, so that the next checkpoint writes everything again, into the same copies.
    fn become_failed(&mut self, error: io::Error, phase: Phase) {
        let mut running = self
            .checkpoints
            .running
            .take()
            .expect("a checkpoint that fails is running");
        self.checkpoints.broken |= phase != Phase::Writing;
        for cut in &running.headers {
            self.headers.end_checkpoint(cut.extent, false);
            if let Some(entry) = self.map.get(cut.extent)
                && entry.slot == cut.slot
            {
                self.map.set(
                    cut.extent,
                    Some(Entry {
                        slot: cut.slot,
                        stamp: cut.before,
                    }),
                );
            }
        }
        for page in running.pages {
            self.map.become_dirty(page.index);
        }
        // The same parity, so the same copies; another number, so that what this attempt wrote is never taken for the next one's.
        self.checkpoints.next += 2;
        self.checkpoints.released.append(&mut running.releasing);
        self.checkpoints.bytes_since_cut += running.bytes;
        self.events.push(StoreEvent::Failed {
            op: running.op,
            error,
        });
    }

    fn step_punches(&mut self) {
        while self.checkpoints.punches_in_flight < PUNCHES_IN_FLIGHT_MAX
            && let Some((slot, count)) = self.checkpoints.punches.pop_front()
        {
            self.checkpoints.punches_in_flight += 1;
            let offset = u64::from(slot) * SLOT_BYTES;
            let op = DiskOp::Punch {
                file: self.files.data,
                offset,
                length: u64::from(count) * SLOT_BYTES,
            };
            self.submit(Job::Punch { slot, count }, op);
        }
    }

    /// A punch is over, done or not.
    pub(super) fn end_punch(&mut self) {
        self.checkpoints.punches_in_flight -= 1;
    }
}

impl PageWrite {
    fn into_op(self, superblock: &Superblock, files: super::Files) -> DiskOp {
        let Superblock {
            volume, generation, ..
        } = *superblock;
        let (file, offset, bytes): (FileId, u64, Bytes) = match self {
            PageWrite::Header {
                extent,
                entry,
                header,
            } => {
                let offset = header_offset(entry.slot, entry.stamp.copy());
                (
                    files.headers,
                    offset,
                    header.encode(volume, extent, entry.slot, generation),
                )
            }
            PageWrite::Map { stored, entries } => {
                let name = MapPageName {
                    volume,
                    map: LIVE_MAP,
                    index: stored.index,
                };
                (
                    files.map,
                    map_offset(&stored),
                    super::format::encode_map_page(name, generation, &entries),
                )
            }
            PageWrite::Root { offset, bytes } => {
                (files.roots[root_index(generation)], offset, bytes)
            }
        };
        DiskOp::Write {
            file,
            offset,
            parts: vec![bytes],
            durable: false,
        }
    }
}

/// The map that clients write to. Snapshots will have maps of their own.
pub(super) const LIVE_MAP: u32 = 0;

/// Where a copy of a map page is.
pub(super) fn map_offset(stored: &StoredPage) -> u64 {
    (u64::from(stored.location) * 2 + u64::from(stored.copy)) * PAGE_BYTES as u64
}

/// Which root file a checkpoint writes.
pub(super) fn root_index(generation: u64) -> usize {
    (generation & 1) as usize
}

/// Which of the superblock's pages a checkpoint writes.
pub(super) fn superblock_offset(generation: u64) -> u64 {
    (generation & 1) * PAGE_BYTES as u64
}

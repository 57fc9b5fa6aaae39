//! Operations from submission to their event: cut into parts, one for each extent, and put together again.

use super::block_set::BlockSet;
use super::extent_map::extent_of;
use super::extent_queue::{Part, PartKind};
use super::format::EXTENT_BLOCKS;
use super::{StoreEvent, StoreOp, TRANSFER_BLOCKS_MAX, VolumeStore};
use bytes::{Bytes, BytesMut};
use isthmus_engine::{BLOCK_BYTES, BlockRange, VolumeId, block_checksum};
use isthmus_mutation::Mutation;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Extents with content that one status looks at; it answers for the part of its range before the next one.
const STATUS_EXTENTS_MAX: usize = 256;

static ZERO_BLOCK: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

/// An operation under way.
#[derive(Debug)]
pub(super) struct Request {
    op: StoreOp,
    range: BlockRange,
    work: Work,
    parts_left: usize,
    failure: Option<io::Error>,
}

/// What a request carries and gathers.
#[derive(Debug)]
pub(super) enum Work {
    Read(Reading),
    /// Allocated blocks by extent.
    Status(BTreeMap<u32, BlockSet>),
    Write {
        data: Bytes,
        checksums: Arc<[u32]>,
    },
    Clear,
}

/// What a read has so far.
#[derive(Debug)]
pub(super) struct Reading {
    volume: VolumeId,
    range: BlockRange,
    data: ReadData,
    /// `None` for absent and bad blocks.
    checksums: Vec<Option<u32>>,
    bad: Vec<u64>,
}

#[derive(Debug)]
enum ReadData {
    /// Only absent blocks so far.
    Zeroes,
    /// The whole range as the disk gave it.
    Whole(Bytes),
    /// Put together from several pieces.
    Assembled(BytesMut),
}

impl Reading {
    fn new(volume: VolumeId, range: BlockRange) -> Reading {
        let checksums = vec![None; range.count as usize];
        Reading {
            volume,
            range,
            data: ReadData::Zeroes,
            checksums,
            bad: Vec::new(),
        }
    }

    pub(super) fn add_bad(&mut self, block: u64) {
        self.bad.push(block);
    }

    /// Blocks from `first` on as they came from the disk, with the checksum that each must have. `None` marks a block
    /// that is absent or known to be bad.
    pub(super) fn add(&mut self, first: u64, bytes: &Bytes, expected: &[Option<u32>]) {
        assert_eq!(
            bytes.len() as u64,
            expected.len() as u64 * BLOCK_BYTES,
            "whole blocks"
        );
        let at = (first - self.range.start) as usize;
        let mut all_good = true;
        let mut good = Vec::with_capacity(expected.len());
        for (index, (block, checksum)) in bytes
            .chunks_exact(BLOCK_BYTES as usize)
            .zip(expected)
            .enumerate()
        {
            let number = first + index as u64;
            let matches = checksum
                .is_some_and(|checksum| block_checksum(self.volume, number, block) == checksum)
                || (checksum.is_some() && Mutation::ReturnBadBlocks.is_on());
            if matches {
                self.checksums[at + index] = *checksum;
            } else {
                all_good = false;
                if checksum.is_some() {
                    self.bad.push(number);
                }
            }
            good.push(matches);
        }
        if all_good && expected.len() == self.checksums.len() {
            self.data = ReadData::Whole(bytes.clone());
            return;
        }
        if matches!(self.data, ReadData::Zeroes) {
            self.data = ReadData::Assembled(BytesMut::zeroed(self.range.bytes() as usize));
        }
        let ReadData::Assembled(data) = &mut self.data else {
            panic!("a block of {:?} was read twice", self.range)
        };
        let to = data[at * BLOCK_BYTES as usize..].chunks_exact_mut(BLOCK_BYTES as usize);
        for ((to, from), good) in to.zip(bytes.chunks_exact(BLOCK_BYTES as usize)).zip(good) {
            if good {
                to.copy_from_slice(from);
            }
        }
    }

    fn into_event(mut self, op: StoreOp) -> StoreEvent {
        self.bad.sort_unstable();
        let data = match self.data {
            ReadData::Zeroes if self.range.count == 1 => Bytes::from_static(&ZERO_BLOCK),
            ReadData::Zeroes => BytesMut::zeroed(self.range.bytes() as usize).freeze(),
            ReadData::Whole(bytes) => bytes,
            ReadData::Assembled(bytes) => bytes.freeze(),
        };
        let checksums = (self.range.start..).zip(&self.checksums);
        let checksums = checksums.map(|(block, known)| {
            known.unwrap_or_else(|| block_checksum(self.volume, block, &ZERO_BLOCK))
        });
        StoreEvent::Read {
            op,
            data,
            checksums: checksums.collect(),
            bad: self.bad,
        }
    }
}

impl VolumeStore {
    /// Writes whole blocks with their checksums ([`block_checksum`], not verified here).
    ///
    /// # Panics
    /// When the range is empty, not within the volume, longer than [`TRANSFER_BLOCKS_MAX`], or of another length than
    /// data or checksums.
    pub fn write(
        &mut self,
        op: StoreOp,
        range: BlockRange,
        data: Bytes,
        checksums: impl Into<Arc<[u32]>>,
    ) {
        let checksums = checksums.into();
        assert_eq!(data.len() as u64, range.bytes(), "data of {range:?}");
        assert_eq!(
            checksums.len() as u64,
            range.count,
            "checksums of {range:?}"
        );
        assert!(range.count <= TRANSFER_BLOCKS_MAX, "a write of {range:?}");
        let extents = (extent_of(range.start)..=extent_of(range.end() - 1)).collect();
        self.begin(
            op,
            range,
            Work::Write { data, checksums },
            PartKind::Write,
            extents,
        );
    }

    /// Makes the blocks absent: they read as zeroes, and slots without any block left are given back.
    ///
    /// # Panics
    /// When the range is empty or not within the volume.
    pub fn clear(&mut self, op: StoreOp, range: BlockRange) {
        let extents = self.extents_in_use(range).collect();
        self.begin(op, range, Work::Clear, PartKind::Clear, extents);
    }

    /// Reads blocks.
    ///
    /// # Panics
    /// When the range is empty, not within the volume, or longer than [`TRANSFER_BLOCKS_MAX`].
    pub fn read(&mut self, op: StoreOp, range: BlockRange) {
        assert!(range.count <= TRANSFER_BLOCKS_MAX, "a read of {range:?}");
        let extents = self.extents_in_use(range).collect();
        let reading = Reading::new(self.spec.volume, range);
        self.begin(op, range, Work::Read(reading), PartKind::Read, extents);
    }

    /// Asks which blocks have content.
    ///
    /// # Panics
    /// When the range is empty or not within the volume.
    pub fn status(&mut self, op: StoreOp, range: BlockRange) {
        let mut extents: Vec<u32> = self
            .extents_in_use(range)
            .take(STATUS_EXTENTS_MAX + 1)
            .collect();
        let mut range = range;
        if extents.len() > STATUS_EXTENTS_MAX
            && let Some(next) = extents.pop()
        {
            range.count = u64::from(next) * EXTENT_BLOCKS - range.start;
        }
        self.begin(
            op,
            range,
            Work::Status(BTreeMap::new()),
            PartKind::Status,
            extents,
        );
    }

    /// The extents of the range that have a slot or operations under way, ascending. All others are absent, and stay so
    /// for an operation that is submitted now.
    fn extents_in_use(&self, range: BlockRange) -> impl Iterator<Item = u32> + '_ {
        assert!(
            range.count > 0 && range.fits(self.spec.blocks),
            "{range:?} in {} blocks",
            self.spec.blocks
        );
        let (first, last) = (extent_of(range.start), extent_of(range.end() - 1));
        let mut mapped = self.map.mapped_within(first, last).peekable();
        let mut active = self
            .active
            .range(first..=last)
            .map(|(extent, _)| *extent)
            .peekable();
        std::iter::from_fn(move || {
            let next = mapped
                .peek()
                .into_iter()
                .chain(active.peek())
                .min()
                .copied()?;
            mapped.next_if_eq(&next);
            active.next_if_eq(&next);
            Some(next)
        })
    }

    /// Queues a request's parts at their extents.
    fn begin(
        &mut self,
        op: StoreOp,
        range: BlockRange,
        work: Work,
        kind: PartKind,
        extents: Vec<u32>,
    ) {
        assert!(
            range.count > 0 && range.fits(self.spec.blocks),
            "{range:?} in {} blocks",
            self.spec.blocks
        );
        let ticket = self.next_ticket();
        let parts_left = extents.len();
        for extent in extents {
            let base = u64::from(extent) * EXTENT_BLOCKS;
            let first = range.start.max(base) - base;
            let end = range.end().min(base + EXTENT_BLOCKS) - base;
            let queue = self.active.entry(extent).or_default();
            queue.push(Part {
                ticket,
                kind,
                first,
                count: end - first,
            });
            if !queue.listed {
                queue.listed = true;
                self.listed.push_back(extent);
            }
        }
        if kind == PartKind::Write || kind == PartKind::Clear {
            self.changes.insert(ticket);
        }
        self.requests.insert(
            ticket,
            Request {
                op,
                range,
                work,
                parts_left,
                failure: None,
            },
        );
        if parts_left == 0 {
            self.finish(ticket);
        }
    }

    /// Numbers an operation in the order of submission.
    pub(super) fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// A part of a request is over.
    pub(super) fn finish_part(&mut self, ticket: u64, failure: Option<io::Error>) {
        let request = self
            .requests
            .get_mut(&ticket)
            .expect("a request lives until its last part is over");
        request.parts_left -= 1;
        if request.failure.is_none() {
            request.failure = failure;
        }
        if request.parts_left == 0 {
            self.finish(ticket);
        }
    }

    fn finish(&mut self, ticket: u64) {
        let request = self
            .requests
            .remove(&ticket)
            .expect("a request is finished once");
        self.changes.remove(&ticket);
        if let (Some(error), Work::Write { .. } | Work::Clear) = (&request.failure, &request.work) {
            self.fail_checkpoints_after(ticket, error);
        }
        let op = request.op;
        self.events.push(match (request.failure, request.work) {
            (Some(error), _) => StoreEvent::Failed { op, error },
            (None, Work::Write { .. } | Work::Clear) => StoreEvent::Applied { op },
            (None, Work::Read(reading)) => reading.into_event(op),
            (None, Work::Status(found)) => StoreEvent::Status {
                op,
                runs: runs_of(request.range, &found),
            },
        });
    }

    /// The data and checksums of a part of a write.
    pub(super) fn written(&self, extent: u32, part: &Part) -> (Bytes, &[u32]) {
        let request = &self.requests[&part.ticket];
        let Work::Write { data, checksums } = &request.work else {
            panic!("a write's part is of a write")
        };
        let at = (u64::from(extent) * EXTENT_BLOCKS + part.first - request.range.start) as usize;
        let bytes = at * BLOCK_BYTES as usize..(at + part.count as usize) * BLOCK_BYTES as usize;
        (data.slice(bytes), &checksums[at..at + part.count as usize])
    }

    /// Whether the request of this ticket is a read.
    pub(super) fn is_read(&self, ticket: u64) -> bool {
        matches!(self.requests[&ticket].work, Work::Read(_))
    }

    /// What the read of this ticket has so far.
    pub(super) fn reading(&mut self, ticket: u64) -> &mut Reading {
        match &mut self
            .requests
            .get_mut(&ticket)
            .expect("a request lives until its last part is over")
            .work
        {
            Work::Read(reading) => reading,
            other => panic!("a read's part is of a read, not of {other:?}"),
        }
    }

    /// Notes which of an extent's blocks are allocated.
    pub(super) fn add_status(&mut self, ticket: u64, extent: u32, allocated: BlockSet) {
        match &mut self
            .requests
            .get_mut(&ticket)
            .expect("a request lives until its last part is over")
            .work
        {
            Work::Status(found) => found.insert(extent, allocated),
            other => panic!("a status's part is of a status, not of {other:?}"),
        };
    }
}

fn runs_of(range: BlockRange, found: &BTreeMap<u32, BlockSet>) -> Vec<(u64, bool)> {
    let mut runs: Vec<(u64, bool)> = Vec::new();
    let mut add = |count: u64, allocated: bool| match runs.last_mut() {
        Some(last) if last.1 == allocated => last.0 += count,
        _ if count == 0 => {}
        _ => runs.push((count, allocated)),
    };
    let mut at = range.start;
    for (extent, allocated) in found {
        let base = u64::from(*extent) * EXTENT_BLOCKS;
        add(base.saturating_sub(at), false);
        at = at.max(base);
        while at < range.end().min(base + EXTENT_BLOCKS) {
            add(1, allocated.contains(at - base));
            at += 1;
        }
    }
    add(range.end() - at, false);
    runs
}

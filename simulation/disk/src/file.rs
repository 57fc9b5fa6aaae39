//! One file: what a crash can't take, what readers see, and the changes in between that no sync has covered yet.

use crate::pages::{PAGE_BYTES, Pages};
use crate::random::Random;
use bytes::Bytes;
use std::ops::Range;

/// The unit that a crash keeps or loses whole.
pub const SECTOR_BYTES: u64 = 512;

/// What an operation does to a file's content.
#[derive(Clone, Debug)]
pub enum Change {
    /// Bytes written at an offset, in parts.
    Write {
        /// Byte offset.
        offset: u64,
        /// The bytes.
        parts: Vec<Bytes>,
    },
    /// A range made zero.
    Punch {
        /// Byte offset.
        offset: u64,
        /// Bytes.
        length: u64,
    },
}

impl Change {
    /// The bytes that it touches.
    pub fn range(&self) -> Range<u64> {
        match self {
            Change::Write { offset, parts } => {
                *offset..*offset + parts.iter().map(|part| part.len() as u64).sum::<u64>()
            }
            Change::Punch { offset, length } => *offset..offset.saturating_add(*length),
        }
    }

    fn apply(&self, pages: &mut Pages) {
        match self {
            Change::Write { offset, parts } => {
                let mut at = *offset;
                for part in parts {
                    pages.write(at, part);
                    at += part.len() as u64;
                }
            }
            Change::Punch { offset, length } => pages.clear(*offset, *length),
        }
    }

    /// What is left of the change after a crash: all of it, nothing, or any of its sectors.
    pub fn torn(&self, random: &mut Random) -> Vec<Change> {
        match random.below(3) {
            0 => Vec::new(),
            1 => vec![self.clone()],
            _ => match self {
                Change::Write { offset, parts } => torn_write(*offset, &parts.concat(), random),
                Change::Punch { offset, length } => {
                    let sectors = length.div_ceil(SECTOR_BYTES).max(1);
                    let kept = random.below(sectors) * SECTOR_BYTES;
                    vec![Change::Punch {
                        offset: *offset,
                        length: kept.min(*length),
                    }]
                }
            },
        }
    }
}

fn torn_write(offset: u64, data: &[u8], random: &mut Random) -> Vec<Change> {
    let kept_of_8 = random.below(9);
    let mut kept = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let sector_end = ((offset + at as u64) / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let end = data.len().min((sector_end - offset) as usize);
        if random.chance(kept_of_8, 8) {
            kept.push(Change::Write {
                offset: offset + at as u64,
                parts: vec![Bytes::copy_from_slice(&data[at..end])],
            });
        }
        at = end;
    }
    kept
}

/// A file of the simulated disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedFile {
    /// Bytes. A growth by `resize` is durable with the next sync, every other change of it at once.
    pub length: u64,
    /// A growth that no sync has covered: the change after which it came, and the length before it.
    grown: Option<(u64, u64)>,
    /// What readers see.
    current: Pages,
    /// What a crash leaves, before it picks from `unsynced`.
    stable: Pages,
    /// Changes that readers see and no sync has covered, in order, each with its number.
    unsynced: Vec<(u64, Change)>,
    changes: u64,
    /// Ranges whose space was allocated when they were made.
    reserved: Vec<Range<u64>>,
    /// Pages that exist outside of the reserved ranges.
    loose_pages: u64,
}

impl SimulatedFile {
    /// A file of `bytes` zeroes that takes no space yet.
    #[must_use]
    pub fn with_length(bytes: u64) -> SimulatedFile {
        SimulatedFile {
            length: bytes,
            ..SimulatedFile::default()
        }
    }

    /// Fills `buffer` with what readers see.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        self.current.read(offset, buffer);
        let held = self.length.saturating_sub(offset).min(buffer.len() as u64) as usize;
        buffer[held..].fill(0);
    }

    /// What readers see.
    pub fn pages(&self) -> &Pages {
        &self.current
    }

    /// Space that the file takes on the disk.
    pub fn allocated_bytes(&self) -> u64 {
        self.reserved
            .iter()
            .map(|range| range.end - range.start)
            .sum::<u64>()
            + self.loose_pages * PAGE_BYTES
    }

    /// Space that the change would take beyond what the file has.
    pub fn growth_bytes(&self, change: &Change) -> u64 {
        match change {
            Change::Write { .. } => {
                let range = change.range();
                if self.is_reserved_whole(&range) {
                    return 0;
                }
                let absent = self
                    .current
                    .absent(range.start, range.end - range.start, |page| {
                        self.is_reserved(page)
                    });
                absent * PAGE_BYTES
            }
            Change::Punch { .. } => 0,
        }
    }

    fn is_reserved_whole(&self, range: &Range<u64>) -> bool {
        let pages = range.start / PAGE_BYTES * PAGE_BYTES..range.end;
        self.reserved
            .iter()
            .any(|held| held.start <= pages.start && pages.end <= held.end)
    }

    fn is_reserved(&self, page: u64) -> bool {
        self.reserved
            .iter()
            .any(|range| range.contains(&(page * PAGE_BYTES)))
    }

    /// Notes that the range's space is allocated.
    pub fn reserve(&mut self, range: Range<u64>) {
        if range.start < range.end {
            self.unreserve(&range);
            self.reserved.push(range);
            self.count_loose_pages();
        }
    }

    /// Space that allocating the range would take beyond what the file has.
    pub fn reserve_bytes(&self, range: &Range<u64>) -> u64 {
        let absent = self
            .current
            .absent(range.start, range.end - range.start, |page| {
                self.is_reserved(page)
            });
        absent * PAGE_BYTES
    }

    /// The range's space is allocated no more, except where something is written.
    fn unreserve(&mut self, range: &Range<u64>) {
        let reserved = std::mem::take(&mut self.reserved);
        let pieces = reserved.into_iter().flat_map(|held| {
            [
                held.start..held.end.min(range.start),
                held.start.max(range.end)..held.end,
            ]
        });
        self.reserved = pieces.filter(|piece| piece.start < piece.end).collect();
    }

    fn count_loose_pages(&mut self) {
        self.loose_pages = self
            .current
            .numbers()
            .filter(|page| !self.is_reserved(*page))
            .count() as u64;
    }

    /// The number of the last change that readers see: what a sync that is submitted now will cover.
    pub fn mark(&self) -> u64 {
        self.changes
    }

    /// Lets readers see the change; a crash may still take it.
    pub fn change(&mut self, change: Change) {
        let range = change.range();
        let grown = self.growth_bytes(&change) / PAGE_BYTES;
        change.apply(&mut self.current);
        match change {
            Change::Write { .. } => {
                self.loose_pages += grown;
                self.length = self.length.max(range.end);
            }
            Change::Punch { .. } => {
                // The file system may give the space to others.
                self.unreserve(&range);
                self.count_loose_pages();
            }
        }
        self.changes += 1;
        self.unsynced.push((self.changes, change));
    }

    /// Makes the changes up to number `mark` stable.
    pub fn sync(&mut self, mark: u64) {
        self.grown = self.grown.filter(|(after, _)| *after > mark);
        let later = self.unsynced.partition_point(|(number, _)| *number <= mark);
        let synced: Vec<Change> = self
            .unsynced
            .drain(..later)
            .map(|(_, change)| change)
            .collect();
        for change in synced {
            let range = change.range();
            if self.unsynced.is_empty() {
                let end = range.end.min(self.length.max(range.start));
                self.stable
                    .share(&self.current, range.start, end - range.start);
            } else {
                change.apply(&mut self.stable);
            }
        }
    }

    /// Lets readers see the change and makes it stable, with all that completed by `mark`, or with everything where a
    /// younger unsynced change touches the same bytes.
    pub fn change_durably(&mut self, change: Change, mark: u64) {
        let range = change.range();
        let touched = self.unsynced.iter().any(|(number, other)| {
            let other = other.range();
            *number > mark && other.start < range.end && range.start < other.end
        });
        if touched {
            self.change(change);
            self.sync(self.changes);
        } else {
            self.sync(mark);
            self.change(change);
            let (_, change) = self.unsynced.pop().expect("the change was just pushed");
            if self.unsynced.is_empty() {
                // What readers see is stable then, to the last byte.
                self.stable
                    .share(&self.current, range.start, range.end - range.start);
            } else {
                change.apply(&mut self.stable);
            }
        }
    }

    /// Loses power: of each unsynced change all, nothing or some sectors are left.
    pub fn crash(&mut self, random: &mut Random) {
        for (_, change) in std::mem::take(&mut self.unsynced) {
            for kept in change.torn(random) {
                kept.apply(&mut self.stable);
            }
        }
        self.current = self.stable.clone();
        if let Some((_, before)) = self.grown.take()
            && random.chance(1, 2)
        {
            self.shrink(before);
        }
        self.count_loose_pages();
    }

    /// Changes the length: where it shrinks durably, together with all changes so far.
    pub fn resize(&mut self, bytes: u64) {
        if bytes < self.length {
            self.sync(self.changes);
            self.shrink(bytes);
            self.count_loose_pages();
        } else if bytes > self.length {
            self.changes += 1;
            let before = self.grown.map_or(self.length, |(_, before)| before);
            self.grown = Some((self.changes, before));
            self.length = bytes;
        }
    }

    fn shrink(&mut self, bytes: u64) {
        self.current.clear(bytes, self.length - bytes);
        self.stable.clear(bytes, self.length - bytes);
        for range in &mut self.reserved {
            range.end = range.end.min(bytes).max(range.start);
        }
        self.length = bytes;
    }

    /// Turns one bit over, for good: in what readers see and in what a crash leaves.
    pub fn flip_bit(&mut self, offset: u64, bit: u8) {
        for pages in [&mut self.current, &mut self.stable] {
            let mut byte = [0];
            pages.read(offset, &mut byte);
            pages.write(offset, &[byte[0] ^ (1 << bit)]);
        }
    }
}

//! The bytes of one file: what a reader sees now, what is durable, and every version of each sector in between.

use crate::random::Random;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

/// Bytes that a disk writes whole or not at all.
pub const SECTOR_BYTES: u64 = 512;
/// Bytes of the smallest space that a file takes.
pub const PAGE_BYTES: u64 = 4096;

type Page = [u8; PAGE_BYTES as usize];
type Sector = [u8; SECTOR_BYTES as usize];

static ZEROES: LazyLock<Arc<Page>> = LazyLock::new(|| Arc::new([0; PAGE_BYTES as usize]));

/// Counts changes of the whole file system.
pub type Order = u64;

/// Bytes with holes.
#[derive(Clone, Debug, Default)]
struct Bytes {
    length: u64,
    /// A page that is missing takes no space and reads as zeroes.
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) {
        buffer.fill(0);
        let end = (offset + buffer.len() as u64).min(self.length);
        if offset >= end {
            return;
        }
        for (number, page) in self
            .pages
            .range(offset / PAGE_BYTES..=(end - 1) / PAGE_BYTES)
        {
            let start = number * PAGE_BYTES;
            let (from, to) = (offset.max(start), end.min(start + PAGE_BYTES));
            buffer[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.length = self.length.max(offset + data.len() as u64);
        let mut position = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let within = (position % PAGE_BYTES) as usize;
            let count = rest.len().min(PAGE_BYTES as usize - within);
            let (piece, more) = rest.split_at(count);
            let page = self
                .pages
                .entry(position / PAGE_BYTES)
                .or_insert_with(|| Arc::clone(&ZEROES));
            // Zeroes that are written over zeroes take no memory of their own.
            if page[within..within + count] != *piece {
                Arc::make_mut(page)[within..within + count].copy_from_slice(piece);
            }
            position += count as u64;
            rest = more;
        }
    }

    fn sector(&self, sector: u64) -> Option<Sector> {
        let (number, within) = (
            sector * SECTOR_BYTES / PAGE_BYTES,
            (sector * SECTOR_BYTES % PAGE_BYTES) as usize,
        );
        let page = self.pages.get(&number)?;
        let mut bytes = [0; SECTOR_BYTES as usize];
        bytes.copy_from_slice(&page[within..within + SECTOR_BYTES as usize]);
        Some(bytes)
    }

    /// Forgets what lies behind the end, so that it does not show when the file grows.
    fn end_at_length(&mut self) {
        let end = self.length;
        drop(self.pages.split_off(&end.div_ceil(PAGE_BYTES)));
        if !end.is_multiple_of(PAGE_BYTES) && self.pages.contains_key(&(end / PAGE_BYTES)) {
            self.write(end, &vec![0; (PAGE_BYTES - end % PAGE_BYTES) as usize]);
            self.length = end;
        }
    }

    /// One sector as it is, or a hole, without any change of the length.
    fn set_sector(&mut self, sector: u64, bytes: Option<&Sector>) {
        let length = self.length;
        match bytes {
            Some(bytes) => self.write(sector * SECTOR_BYTES, bytes),
            None if self
                .pages
                .contains_key(&(sector * SECTOR_BYTES / PAGE_BYTES)) =>
            {
                self.write(sector * SECTOR_BYTES, &[0; SECTOR_BYTES as usize]);
            }
            None => {}
        }
        self.length = length;
    }
}

/// What a power cut leaves of a file's changes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Nothing,
    Everything,
    /// What came before a moment.
    Before(Order),
    /// Some sectors, each in some version.
    Torn,
}

/// One file's bytes.
#[derive(Clone, Debug, Default)]
pub struct Content {
    now: Bytes,
    durable: Bytes,
    /// By sector: its versions since the durable one, oldest first; none for a hole.
    unsynced: BTreeMap<u64, Vec<(Order, Option<Sector>)>>,
    /// Lengths since the durable one, oldest first.
    lengths: Vec<(Order, u64)>,
    /// Space was taken that the durable file does not have yet.
    allocated: bool,
}

impl Content {
    /// How long the file is.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.now.length
    }

    /// How many pages it takes.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.now.pages.len() as u64
    }

    /// How many pages more a write of this range would take.
    #[must_use]
    pub fn pages_wanted(&self, range: &Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let pages = range.start / PAGE_BYTES..=(range.end - 1) / PAGE_BYTES;
        let all = pages.end() - pages.start() + 1;
        all - self.now.pages.range(pages).count() as u64
    }

    /// What a reader sees: as much as there is.
    #[must_use]
    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let end = offset.saturating_add(length).min(self.now.length);
        let mut buffer = vec![0; end.saturating_sub(offset) as usize];
        self.now.read(offset, &mut buffer);
        buffer
    }

    /// Writes, to be lost or torn until it is synced.
    pub fn write(&mut self, order: Order, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let length = self.now.length;
        self.now.write(offset, data);
        self.note(order, offset..offset + data.len() as u64);
        self.note_length(order, length);
    }

    /// Takes space for a range; with `longer`, the file reaches to its end afterwards.
    pub fn allocate(&mut self, order: Order, range: &Range<u64>, longer: bool) {
        let length = self.now.length;
        for page in range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES) {
            self.now
                .pages
                .entry(page)
                .or_insert_with(|| Arc::clone(&ZEROES));
        }
        if longer {
            self.now.length = length.max(range.end);
        }
        self.allocated = true;
        self.note_length(order, length);
    }

    /// Makes a hole.
    pub fn punch(&mut self, order: Order, range: &Range<u64>) {
        let end = range.end.min(self.now.length.next_multiple_of(PAGE_BYTES));
        if range.start >= end {
            return;
        }
        let pages: Vec<u64> = self
            .now
            .pages
            .range(range.start / PAGE_BYTES..=(end - 1) / PAGE_BYTES)
            .map(|(number, _)| *number)
            .collect();
        for number in pages {
            let page = number * PAGE_BYTES..(number + 1) * PAGE_BYTES;
            let (from, to) = (range.start.max(page.start), end.min(page.end));
            let length = self.now.length;
            if (from, to) == (page.start, page.end) {
                self.now.pages.remove(&number);
            } else {
                self.now.write(from, &vec![0; (to - from) as usize]);
                self.now.length = length;
            }
            self.note(order, from..to);
        }
    }

    /// Cuts or lengthens the file.
    pub fn set_length(&mut self, order: Order, length: u64) {
        let before = self.now.length;
        if length < before {
            self.punch(order, &(length..before.next_multiple_of(PAGE_BYTES)));
        }
        self.now.length = length;
        self.note_length(order, before);
    }

    /// Everything up to that moment is durable.
    pub fn sync(&mut self, until: Order) {
        if std::mem::take(&mut self.allocated) {
            for page in self.now.pages.keys() {
                self.durable
                    .pages
                    .entry(*page)
                    .or_insert_with(|| Arc::clone(&ZEROES));
            }
        }
        if let Some((_, length)) = self.lengths.iter().rfind(|(order, _)| *order <= until) {
            self.durable.length = *length;
        }
        self.lengths.retain(|(order, _)| *order > until);
        let sectors: Vec<u64> = self.unsynced.keys().copied().collect();
        for sector in sectors {
            self.settle(sector, until);
        }
    }

    /// What was written to that range up to that moment is durable, and the file at least that long.
    pub fn sync_range(&mut self, range: &Range<u64>, until: Order) {
        self.durable.length = self.durable.length.max(range.end.min(self.now.length));
        for sector in range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES) {
            self.settle(sector, until);
        }
    }

    /// The power is cut: what is left becomes what is there. How many sectors were lost.
    pub fn cut(&mut self, random: &mut Random) -> u64 {
        let orders = self.unsynced.values().flatten().map(|(order, _)| *order);
        let (first, last) = (orders.clone().min().unwrap_or(0), orders.max().unwrap_or(0));
        let fate = match random.below(6) {
            0 => Fate::Nothing,
            1 => Fate::Everything,
            2 => Fate::Before(random.between(first, last)),
            _ => Fate::Torn,
        };
        let mut lost = 0;
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            let left = match fate {
                Fate::Nothing => 0,
                Fate::Everything => versions.len(),
                Fate::Before(end) => versions.iter().filter(|(order, _)| *order < end).count(),
                Fate::Torn => random.below(versions.len() as u64 + 1) as usize,
            };
            lost += u64::from(left < versions.len());
            if let Some((_, bytes)) = left.checked_sub(1).map(|last| &versions[last]) {
                self.durable.set_sector(sector, bytes.as_ref());
            }
        }
        let lengths = std::mem::take(&mut self.lengths);
        let left = match fate {
            Fate::Nothing => 0,
            Fate::Everything => lengths.len(),
            Fate::Before(end) => lengths.iter().filter(|(order, _)| *order < end).count(),
            Fate::Torn => random.below(lengths.len() as u64 + 1) as usize,
        };
        if let Some((_, length)) = left.checked_sub(1).map(|last| lengths[last]) {
            self.durable.length = length;
        }
        self.durable.end_at_length();
        self.allocated = false;
        self.now = self.durable.clone();
        lost
    }

    /// Turns one bit over, on the medium itself.
    ///
    /// # Panics
    /// When the file does not reach there.
    pub fn flip(&mut self, offset: u64, bit: u8) {
        assert!(offset < self.now.length, "there is nothing at {offset}");
        for bytes in [&mut self.now, &mut self.durable] {
            let mut byte = [0];
            bytes.read(offset, &mut byte);
            let length = bytes.length;
            bytes.write(offset, &[byte[0] ^ (1 << bit)]);
            bytes.length = length;
        }
    }

    fn note(&mut self, order: Order, range: Range<u64>) {
        for sector in range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES) {
            let bytes = self.now.sector(sector);
            // What was written as it is durably already changes nothing, whether it gets there or not.
            if !self.unsynced.contains_key(&sector)
                && bytes.unwrap_or([0; SECTOR_BYTES as usize])
                    == self
                        .durable
                        .sector(sector)
                        .unwrap_or([0; SECTOR_BYTES as usize])
                && bytes.is_some() == self.durable.sector(sector).is_some()
            {
                continue;
            }
            self.unsynced
                .entry(sector)
                .or_default()
                .push((order, bytes));
        }
    }

    fn note_length(&mut self, order: Order, before: u64) {
        if self.now.length != before {
            self.lengths.push((order, self.now.length));
        }
    }

    fn settle(&mut self, sector: u64, until: Order) {
        let Some(versions) = self.unsynced.get_mut(&sector) else {
            return;
        };
        let settled = versions.partition_point(|(order, _)| *order <= until);
        if let Some((_, bytes)) = versions.drain(..settled).next_back() {
            self.durable.set_sector(sector, bytes.as_ref());
        }
        if versions.is_empty() {
            self.unsynced.remove(&sector);
        }
    }
}

#[cfg(test)]
mod tests;

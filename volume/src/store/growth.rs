//! Slots given out and taken back. The files grow here, with their space reserved, so that a full disk is met here.

use super::VolumeStore;
use super::format::{Entry, Header, PAGE_BYTES, SLOT_BYTES, Stamp};
use isthmus_journal::Disk;
use std::io;

/// Slots by which the files grow at least and at most: small at first, so that a small volume stays small.
const GROWTH_SLOTS_MIN: u32 = 16;
const GROWTH_SLOTS_MAX: u32 = 64;
/// Pairs of pages by which the map file grows.
const GROWTH_MAP_PAIRS: u32 = 8;

impl VolumeStore {
    /// Gives the extent a fresh slot, with an empty header.
    pub(super) fn allocate<D: Disk>(&mut self, extent: u32, disk: &mut D) -> io::Result<u32> {
        if !self.map.has_page_of(extent) {
            if self.map.locations() == self.map_pairs {
                let pairs = self.map_pairs + GROWTH_MAP_PAIRS;
                disk.resize(self.files.map, map_bytes(pairs), true)?;
                self.map_pairs = pairs;
            }
            self.map.add_page_of(extent);
        }
        let slot = match self.slots.take() {
            Some(slot) => slot,
            None => {
                self.grow_files(disk)
                    .inspect_err(|_| self.checkpoints.note_full())?;
                self.slots.take().expect("the files have just grown")
            }
        };
        self.map.set(
            extent,
            Some(Entry {
                slot,
                stamp: Stamp::NEVER,
            }),
        );
        self.headers.insert_dirty(extent, Header::empty());
        Ok(slot)
    }

    /// Makes room for more slots: a good many at once, or a single one where no more fits.
    fn grow_files<D: Disk>(&mut self, disk: &mut D) -> io::Result<()> {
        let capacity = self.slots.capacity();
        let mut grow_to = |capacity: u32| -> io::Result<()> {
            disk.resize(self.files.headers, headers_bytes(capacity), true)?;
            disk.resize(self.files.data, u64::from(capacity) * SLOT_BYTES, true)
        };
        let mut grown = capacity + capacity.clamp(GROWTH_SLOTS_MIN, GROWTH_SLOTS_MAX);
        if grow_to(grown).is_err() {
            grown = capacity + 1;
            grow_to(grown)?;
        }
        self.slots.grow(grown);
        Ok(())
    }

    /// Takes an extent's slot back. One that a checkpoint refers to, or may refer to, is free after the next one.
    pub(super) fn give_back(&mut self, entry: Entry) {
        if entry.stamp == Stamp::NEVER {
            self.slots.give(entry.slot);
        } else {
            self.checkpoints.release(entry.slot);
        }
    }

    /// Slots whose space was given back are free.
    pub(super) fn on_punched(&mut self, slot: u32, count: u32) {
        self.end_punch();
        (slot..slot + count).for_each(|slot| self.slots.give(slot));
    }
}

/// Length of the header file with room for so many slots.
pub(super) fn headers_bytes(slots: u32) -> u64 {
    u64::from(slots) * 2 * PAGE_BYTES as u64
}

/// Length of the map file with room for so many pairs of pages.
pub(super) fn map_bytes(pairs: u32) -> u64 {
    u64::from(pairs) * 2 * PAGE_BYTES as u64
}

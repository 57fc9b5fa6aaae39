//! Slots given out and taken back. The files grow here, with their space reserved, so that a full disk is met here.

use super::VolumeStore;
use super::format::{EXTENT_BLOCKS, Entry, Header, PAGE_BYTES, PAGE_ENTRIES, SLOT_BYTES, Stamp};
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
                self.grow_map(1, disk)?;
            }
            self.map.add_page_of(extent);
        }
        let slot = self
            .take_slot(disk)
            .inspect_err(|_| self.checkpoints.note_full())?;
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

    /// The first free slot; where its space can't be had, one that has its space.
    fn take_slot<D: Disk>(&mut self, disk: &mut D) -> io::Result<u32> {
        if let Some(slot) = self.slots.take() {
            let allocated = self.slots.is_allocated(slot);
            let result = if allocated {
                Ok(())
            } else {
                self.allocate_slots(slot, 1, disk)
            };
            let Err(error) = result else {
                return Ok(slot);
            };
            self.slots.give(slot, true);
            return self.slots.take_ready().ok_or(error);
        }
        self.grow_files(disk)?;
        Ok(self.slots.take().expect("the files have just grown"))
    }

    /// Extents that can get a slot now, whatever becomes of the file system's space.
    #[must_use]
    pub fn slots_ready(&self) -> u32 {
        self.slots.ready_count().min(self.map_pages_ready())
    }

    /// Map pages that may come into use without more room in the file; no bound when all pages are in use.
    fn map_pages_ready(&self) -> u32 {
        let extents = self.spec.blocks.div_ceil(EXTENT_BLOCKS);
        let missing = extents.div_ceil(u64::from(PAGE_ENTRIES)) - u64::from(self.map.page_count());
        let spare = self.map_pairs - self.map.locations();
        if u64::from(spare) >= missing {
            u32::MAX
        } else {
            spare
        }
    }

    /// Allocates space until [`VolumeStore::slots_ready`] is at least `slots`.
    ///
    /// # Errors
    /// The disk's, `StorageFull` first of all; then some may have been allocated all the same.
    pub fn reserve<D: Disk>(&mut self, slots: u32, disk: &mut D) -> io::Result<()> {
        while self.slots_ready() < slots {
            self.reserve_some(slots, disk)
                .inspect_err(|_| self.checkpoints.note_full())?;
        }
        Ok(())
    }

    fn reserve_some<D: Disk>(&mut self, slots: u32, disk: &mut D) -> io::Result<()> {
        if self.map_pages_ready() < slots {
            return self.grow_map(slots, disk);
        }
        let Some((first, count)) = self.slots.unallocated_run(GROWTH_SLOTS_MAX) else {
            return self.grow_files(disk);
        };
        if self.allocate_slots(first, count, disk).is_err() {
            return self.allocate_slots(first, 1, disk);
        }
        Ok(())
    }

    fn allocate_slots<D: Disk>(&mut self, first: u32, count: u32, disk: &mut D) -> io::Result<()> {
        let (offset, bytes) = (u64::from(first), u64::from(count));
        disk.reserve(self.files.data, offset * SLOT_BYTES, bytes * SLOT_BYTES)?;
        self.slots.become_allocated(first, count);
        Ok(())
    }

    fn grow_map<D: Disk>(&mut self, pairs: u32, disk: &mut D) -> io::Result<()> {
        let pairs = self.map.locations() + pairs.max(GROWTH_MAP_PAIRS);
        disk.resize(self.files.map, map_bytes(pairs), true)?;
        self.map_pairs = pairs;
        Ok(())
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
        self.slots.become_allocated(capacity, grown - capacity);
        Ok(())
    }

    /// Takes an extent's slot back. One that a checkpoint refers to, or may refer to, is free after the next one.
    pub(super) fn give_back(&mut self, entry: Entry) {
        if entry.stamp == Stamp::NEVER {
            self.slots.give(entry.slot, false);
        } else {
            self.checkpoints.release(entry.slot);
        }
    }

    /// Slots whose space was given back are free.
    pub(super) fn on_punched(&mut self, slot: u32, count: u32) {
        self.end_punch();
        (slot..slot + count).for_each(|slot| self.slots.give(slot, true));
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

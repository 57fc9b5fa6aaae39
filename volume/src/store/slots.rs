//! [`Slots`]: which slots of the data file are free.

/// The slots that files have room for, and which of them may be taken.
#[derive(Debug, Default)]
pub(super) struct Slots {
    capacity: u32,
    free: Vec<u64>,
    free_count: u32,
    /// No word before this one has a free slot.
    hint: usize,
}

impl Slots {
    /// Slots that the files have room for.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Adds free slots at the end.
    pub(super) fn grow(&mut self, capacity: u32) {
        assert!(
            capacity >= self.capacity,
            "{} slots grow to {capacity}",
            self.capacity
        );
        self.free.resize((capacity as usize).div_ceil(64), 0);
        for slot in self.capacity..capacity {
            self.free[slot as usize / 64] |= 1 << (slot % 64);
        }
        self.hint = self.hint.min(self.capacity as usize / 64);
        self.free_count += capacity - self.capacity;
        self.capacity = capacity;
    }

    /// Takes the first free slot.
    pub(super) fn take(&mut self) -> Option<u32> {
        if self.free_count == 0 {
            return None;
        }
        while self.free[self.hint] == 0 {
            self.hint += 1;
        }
        let slot = self.hint as u32 * 64 + self.free[self.hint].trailing_zeros();
        assert!(self.take_exactly(slot), "slot {slot} is free");
        Some(slot)
    }

    /// Takes this slot, as a map that is being opened says. False when it is not there or already taken.
    pub(super) fn take_exactly(&mut self, slot: u32) -> bool {
        let bit = 1 << (slot % 64);
        match self.free.get_mut(slot as usize / 64) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                self.free_count -= 1;
                true
            }
            _ => false,
        }
    }

    /// Gives a slot back.
    pub(super) fn give(&mut self, slot: u32) {
        let index = slot as usize / 64;
        let bit = 1 << (slot % 64);
        assert!(
            slot < self.capacity && self.free[index] & bit == 0,
            "slot {slot} of {} is taken",
            self.capacity
        );
        self.free[index] |= bit;
        self.free_count += 1;
        self.hint = self.hint.min(index);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.free.capacity() * 8
    }
}

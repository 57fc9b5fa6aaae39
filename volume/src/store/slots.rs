//! [`Slots`]: which slots of the data file are free.

/// The slots that files have room for, and which of them may be taken.
#[derive(Debug, Default)]
pub(super) struct Slots {
    capacity: u32,
    free: Vec<u64>,
    free_count: u32,
    /// Slots whose space is allocated in the file system; says nothing of taken ones.
    allocated: Vec<u64>,
    /// Slots that are free and allocated.
    ready_count: u32,
    /// No word before this one has a free slot.
    hint: usize,
}

impl Slots {
    /// Slots that the files have room for.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Slots that may be taken now, whatever becomes of the file system's space.
    pub(super) fn ready_count(&self) -> u32 {
        self.ready_count
    }

    /// Whether the slot's space is allocated. Asked of a free one, or of one that was just taken.
    pub(super) fn is_allocated(&self, slot: u32) -> bool {
        self.allocated[slot as usize / 64] & (1 << (slot % 64)) != 0
    }

    /// The first run of free slots without space, at most so many: where it starts, and how many they are.
    pub(super) fn unallocated_run(&self, count_max: u32) -> Option<(u32, u32)> {
        let bare = |word: usize| self.free[word] & !self.allocated[word];
        let word = (0..self.free.len()).find(|word| bare(*word) != 0)?;
        let first = word as u32 * 64 + bare(word).trailing_zeros();
        let is_bare = |slot: &u32| bare(*slot as usize / 64) & (1 << (slot % 64)) != 0;
        let run = (first..self.capacity).take_while(is_bare);
        Some((first, run.take(count_max as usize).count() as u32))
    }

    /// The space of free slots was allocated.
    pub(super) fn become_allocated(&mut self, first: u32, count: u32) {
        for slot in first..first + count {
            let (index, bit) = (slot as usize / 64, 1 << (slot % 64));
            if self.free[index] & bit != 0 && self.allocated[index] & bit == 0 {
                self.ready_count += 1;
            }
            self.allocated[index] |= bit;
        }
    }

    /// The first slot that is free and allocated.
    pub(super) fn take_ready(&mut self) -> Option<u32> {
        let word =
            (0..self.free.len()).find(|word| self.free[*word] & self.allocated[*word] != 0)?;
        let bits = self.free[word] & self.allocated[word];
        let slot = word as u32 * 64 + bits.trailing_zeros();
        assert!(self.take_exactly(slot), "slot {slot} is free");
        Some(slot)
    }

    /// Adds free slots at the end; not known to be allocated.
    pub(super) fn grow(&mut self, capacity: u32) {
        assert!(
            capacity >= self.capacity,
            "{} slots grow to {capacity}",
            self.capacity
        );
        self.free.resize((capacity as usize).div_ceil(64), 0);
        self.allocated.resize(self.free.len(), 0);
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
                self.ready_count -= u32::from(self.allocated[slot as usize / 64] & bit != 0);
                true
            }
            _ => false,
        }
    }

    /// Gives a slot back; its space was punched, or not.
    pub(super) fn give(&mut self, slot: u32, punched: bool) {
        let index = slot as usize / 64;
        let bit = 1 << (slot % 64);
        assert!(
            slot < self.capacity && self.free[index] & bit == 0,
            "slot {slot} of {} is taken",
            self.capacity
        );
        self.free[index] |= bit;
        self.free_count += 1;
        if punched {
            self.allocated[index] &= !bit;
        }
        self.ready_count += u32::from(self.allocated[index] & bit != 0);
        self.hint = self.hint.min(index);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        (self.free.capacity() + self.allocated.capacity()) * 8
    }
}

//! Sparse content: 4 KiB pages in a tree, shared until written, so that a file of 1 TiB with little in it costs little,
//! and the copy that survives a crash costs only the pages that differ.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// Bytes in a page.
pub const PAGE_BYTES: u64 = 4096;

type Page = [u8; PAGE_BYTES as usize];

/// The content of a file; what was never written reads as zeroes.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Pages {
    /// Fills `buffer` from `offset`.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        if buffer.is_empty() {
            return;
        }
        let end = offset + buffer.len() as u64;
        let mut filled = 0;
        for (&number, page) in self
            .pages
            .range(offset / PAGE_BYTES..=(end - 1) / PAGE_BYTES)
        {
            let start = number * PAGE_BYTES;
            let from = offset.max(start);
            let to = end.min(start + PAGE_BYTES);
            let (at, until) = ((from - offset) as usize, (to - offset) as usize);
            buffer[filled..at].fill(0);
            buffer[at..until]
                .copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
            filled = until;
        }
        buffer[filled..].fill(0);
    }

    /// Writes `data` at `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let number = at / PAGE_BYTES;
            let within = (at % PAGE_BYTES) as usize;
            let count = rest.len().min(PAGE_BYTES as usize - within);
            if let Some(whole) = rest.first_chunk().filter(|_| within == 0) {
                // Nothing is left of what was there: no copy of it is made where it is shared.
                match self.pages.entry(number) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(Arc::new(*whole));
                    }
                    Entry::Occupied(mut held) => match Arc::get_mut(held.get_mut()) {
                        Some(page) => *page = *whole,
                        None => {
                            held.insert(Arc::new(*whole));
                        }
                    },
                }
            } else {
                let page = self
                    .pages
                    .entry(number)
                    .or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
                Arc::make_mut(page)[within..within + count].copy_from_slice(&rest[..count]);
            }
            at += count as u64;
            rest = &rest[count..];
        }
    }

    /// Makes `length` bytes from `offset` zero; whole pages are given back.
    pub fn clear(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        if offset >= end {
            return;
        }
        let numbers: Vec<u64> = self
            .pages
            .range(offset / PAGE_BYTES..=(end - 1) / PAGE_BYTES)
            .map(|(&number, _)| number)
            .collect();
        for number in numbers {
            let start = number * PAGE_BYTES;
            if offset <= start && start + PAGE_BYTES <= end {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number) {
                let from = offset.max(start) - start;
                let to = end.min(start + PAGE_BYTES) - start;
                Arc::make_mut(page)[from as usize..to as usize].fill(0);
            }
        }
    }

    /// Makes the pages that `length` bytes from `offset` touch the very same as `other`'s.
    pub fn share(&mut self, other: &Pages, offset: u64, length: u64) {
        if length == 0 {
            return;
        }
        let numbers = offset / PAGE_BYTES..=(offset + length - 1) / PAGE_BYTES;
        let gone: Vec<u64> = self
            .pages
            .range(numbers.clone())
            .map(|(&number, _)| number)
            .filter(|number| !other.pages.contains_key(number))
            .collect();
        for number in gone {
            self.pages.remove(&number);
        }
        for (&number, page) in other.pages.range(numbers) {
            self.pages.insert(number, Arc::clone(page));
        }
    }

    /// The numbers of the pages that hold something, in order.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.keys().copied()
    }

    /// How many pages that do not exist yet, outside of what `reserved` says is allocated, a write would add.
    pub fn absent(&self, offset: u64, length: u64, reserved: impl Fn(u64) -> bool) -> u64 {
        if length == 0 {
            return 0;
        }
        let numbers = offset / PAGE_BYTES..=(offset + length - 1) / PAGE_BYTES;
        numbers
            .filter(|number| !self.pages.contains_key(number) && !reserved(*number))
            .count() as u64
    }
}

//! The scrub: every block that is kept is read now and then, so that one that went bad is found while there is a good copy.

use super::{Context, Mirror, StoreWork};
use isthmus_engine::{BlockRange, Time};
use isthmus_volume::EXTENT_BLOCKS;
use std::collections::BTreeSet;
use std::time::Duration;

/// Extents to look at soon, at most.
const SOON_MAX: usize = 1024;

/// Where a replica's scrub is.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// Everything before this block was read in this pass.
    at: u64,
    /// One extent is read at a time.
    reading: bool,
    /// Extents in which a bad block was met: the others in them are looked at without waiting for their turn.
    soon: BTreeSet<u64>,
    next_pass: Time,
}

impl Scrub {
    /// One that goes on at a block.
    pub(super) fn from(at: u64) -> Scrub {
        Scrub {
            at,
            ..Scrub::default()
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// A bad block was met in this extent.
    pub(super) fn look_at(&mut self, extent: u64) {
        if self.soon.len() < SOON_MAX {
            self.soon.insert(extent);
        }
    }
}

impl<R> Mirror<R> {
    /// When the next extent may be read; none while one is being read, or nothing can be.
    #[must_use]
    pub fn next_scrub(&self) -> Option<Time> {
        (!self.scrub.reading && self.fault.is_none()).then_some(self.scrub.next_pass)
    }

    /// Begins a pass now, whenever the last one was.
    pub fn scrub_now(&mut self) {
        self.scrub.next_pass = Time::default();
    }

    /// Reads the extents that are to be looked at soon, one at a time.
    pub(super) fn scrub_soon(&mut self) {
        if !self.scrub.reading
            && self.fault.is_none()
            && let Some(extent) = self.scrub.soon.pop_first()
        {
            let start = extent * EXTENT_BLOCKS;
            if let Some(range) = self
                .store
                .extent_in_use_from(start)
                .filter(|range| range.start == start)
            {
                self.scrub_read(range);
            }
        }
    }

    /// Reads the next extent, or ends the pass; `pause` is the time to the next one. Returns how many bytes are read.
    pub fn scrub_on(&mut self, now: Time, pause: Duration) -> u64 {
        match self.store.extent_in_use_from(self.scrub.at) {
            Some(range) => {
                self.scrub.at = range.end();
                self.scrub_read(range);
                range.bytes()
            }
            None => {
                self.scrub.at = 0;
                self.scrub.next_pass = now + pause;
                0
            }
        }
    }

    fn scrub_read(&mut self, range: BlockRange) {
        self.scrub.reading = true;
        let op = self.store_op(StoreWork::Scrub);
        self.store.read(op, range);
    }

    pub(super) fn scrub_done(&mut self, context: &mut Context<'_, R>, bad: &[u64]) {
        self.scrub.reading = false;
        if !bad.is_empty() {
            self.note_bad(context, bad);
        }
        self.scrub_soon();
    }
}

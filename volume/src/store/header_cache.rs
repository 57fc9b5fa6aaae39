//! [`HeaderCache`]: extent headers in memory. Clean ones are dropped, least recently used first, above a bound; changed
//! ones stay until a checkpoint has made them durable.

use super::format::Header;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A header in memory. It is clean when neither dirty nor in a checkpoint.
#[derive(Debug)]
struct Cached {
    /// Shared with a running checkpoint; copied when changed meanwhile.
    header: Arc<Header>,
    /// Changed since the last cut.
    dirty: bool,
    /// Part of the running checkpoint.
    in_checkpoint: bool,
    /// When it was last used; the key in `order` while it is clean.
    used: u64,
}

impl Cached {
    fn is_clean(&self) -> bool {
        !self.dirty && !self.in_checkpoint
    }
}

/// Headers in memory by extent.
#[derive(Debug)]
pub(super) struct HeaderCache {
    cached: BTreeMap<u32, Cached>,
    /// Clean headers by their last use.
    order: BTreeMap<u64, u32>,
    dirty: BTreeSet<u32>,
    clock: u64,
    clean_max: usize,
}

impl HeaderCache {
    pub(super) fn new(clean_max: usize) -> HeaderCache {
        HeaderCache {
            cached: BTreeMap::new(),
            order: BTreeMap::new(),
            dirty: BTreeSet::new(),
            clock: 0,
            clean_max,
        }
    }

    pub(super) fn contains(&self, extent: u32) -> bool {
        self.cached.contains_key(&extent)
    }

    pub(super) fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    /// The header, which must be there.
    pub(super) fn get(&mut self, extent: u32) -> &Arc<Header> {
        self.clock += 1;
        let cached = self
            .cached
            .get_mut(&extent)
            .expect("a header is loaded before it is used");
        // One that was used lately is not moved: the order needs not be exact.
        if cached.is_clean() && cached.used + (self.clean_max as u64 / 8) < self.clock {
            self.order.remove(&cached.used);
            cached.used = self.clock;
            self.order.insert(self.clock, extent);
        }
        &cached.header
    }

    /// Adds a header as it is on disk.
    pub(super) fn insert_clean(&mut self, extent: u32, header: Header) {
        self.insert(extent, header, false);
        self.order.insert(self.clock, extent);
    }

    /// Adds the header of a fresh slot.
    pub(super) fn insert_dirty(&mut self, extent: u32, header: Header) {
        self.insert(extent, header, true);
        self.dirty.insert(extent);
    }

    fn insert(&mut self, extent: u32, header: Header, dirty: bool) {
        self.clock += 1;
        let cached = Cached {
            header: Arc::new(header),
            dirty,
            in_checkpoint: false,
            used: self.clock,
        };
        let before = self.cached.insert(extent, cached);
        assert!(before.is_none(), "extent {extent} has one header");
    }

    /// The header, to be changed.
    pub(super) fn change(&mut self, extent: u32) -> &mut Header {
        let cached = self
            .cached
            .get_mut(&extent)
            .expect("a header is loaded before it is changed");
        if cached.is_clean() {
            self.order.remove(&cached.used);
        }
        cached.dirty = true;
        self.dirty.insert(extent);
        Arc::make_mut(&mut cached.header)
    }

    /// Forgets the header of an extent that gave its slot back.
    pub(super) fn remove(&mut self, extent: u32) {
        if let Some(cached) = self.cached.remove(&extent) {
            if cached.is_clean() {
                self.order.remove(&cached.used);
            }
            self.dirty.remove(&extent);
        }
    }

    /// Hands all changed headers to a checkpoint.
    pub(super) fn cut(&mut self) -> Vec<(u32, Arc<Header>)> {
        let extents = std::mem::take(&mut self.dirty);
        let cuts = extents.into_iter().map(|extent| {
            let cached = self.cached.get_mut(&extent).expect("dirty headers stay");
            assert!(
                cached.dirty && !cached.in_checkpoint,
                "one checkpoint at a time"
            );
            cached.dirty = false;
            cached.in_checkpoint = true;
            (extent, cached.header.clone())
        });
        cuts.collect()
    }

    /// The checkpoint that a header was handed to is over.
    pub(super) fn end_checkpoint(&mut self, extent: u32, durable: bool) {
        let Some(cached) = self.cached.get_mut(&extent) else {
            return;
        };
        if !cached.in_checkpoint {
            // Another slot's header: the extent gave the first one back meanwhile.
            return;
        }
        cached.in_checkpoint = false;
        if !durable {
            cached.dirty = true;
            self.dirty.insert(extent);
        } else if !cached.dirty {
            self.clock += 1;
            cached.used = self.clock;
            self.order.insert(self.clock, extent);
        }
    }

    /// Drops the least recently used clean headers above the bound, sparing those that are `needed` now.
    pub(super) fn evict(&mut self, needed: impl Fn(u32) -> bool) {
        while self.order.len() > self.clean_max {
            let victim = self.order.iter().find(|(_, extent)| !needed(**extent));
            let Some((&used, &extent)) = victim else {
                return;
            };
            self.order.remove(&used);
            self.cached.remove(&extent);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.cached.len() * (size_of::<Header>() + 64) + self.order.len() * 16
    }
}

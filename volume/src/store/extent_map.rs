//! [`ExtentMap`]: which slot holds which extent, in pages as on disk. Only pages that were ever used exist.

use super::format::{EXTENT_BLOCKS, Entries, Entry, PAGE_ENTRIES, StoredPage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One page of the map.
#[derive(Debug)]
struct Page {
    /// Shared with a running checkpoint; copied when changed meanwhile.
    entries: Arc<Entries>,
    used: u32,
    location: u32,
    /// Copy and generation of the last checkpoint that wrote the page.
    stored: Option<(u32, u64)>,
}

/// A page as a checkpoint writes it.
#[derive(Debug)]
pub(super) struct PageCut {
    pub(super) stored: StoredPage,
    pub(super) entries: Arc<Entries>,
}

/// The map from extents to slots.
#[derive(Debug)]
pub(super) struct ExtentMap {
    pages: BTreeMap<u32, Page>,
    /// Pages changed since the last cut.
    dirty: BTreeSet<u32>,
    mapped: u32,
    /// Pairs of pages in the map file that were given out; never given back.
    locations: u32,
    /// Shared by all pages without entries.
    no_entries: Arc<Entries>,
}

impl ExtentMap {
    pub(super) fn new() -> ExtentMap {
        ExtentMap {
            pages: BTreeMap::new(),
            dirty: BTreeSet::new(),
            mapped: 0,
            locations: 0,
            no_entries: Arc::new([0; PAGE_ENTRIES as usize]),
        }
    }

    /// Adds a page read from disk.
    pub(super) fn add_stored(&mut self, stored: StoredPage, entries: &Entries) {
        let used = entries
            .iter()
            .filter(|entry| Entry::unpack(**entry).is_some())
            .count() as u32;
        let entries = if used == 0 {
            self.no_entries.clone()
        } else {
            Arc::new(*entries)
        };
        let page = Page {
            entries,
            used,
            location: stored.location,
            stored: Some((stored.copy, stored.generation)),
        };
        assert!(
            self.pages.insert(stored.index, page).is_none(),
            "page {} is added once",
            stored.index
        );
        self.mapped += used;
        self.locations = self.locations.max(stored.location + 1);
    }

    /// How many extents have a slot.
    pub(super) fn mapped(&self) -> u32 {
        self.mapped
    }

    /// How many pages there are, with entries or without.
    pub(super) fn page_count(&self) -> u32 {
        self.pages.len() as u32
    }

    /// For how many pairs of pages the map file must have room.
    pub(super) fn locations(&self) -> u32 {
        self.locations
    }

    pub(super) fn get(&self, extent: u32) -> Option<Entry> {
        let page = self.pages.get(&(extent / PAGE_ENTRIES))?;
        Entry::unpack(page.entries[(extent % PAGE_ENTRIES) as usize])
    }

    /// Whether the extent's page exists, so that [`ExtentMap::set`] may be called.
    pub(super) fn has_page_of(&self, extent: u32) -> bool {
        self.pages.contains_key(&(extent / PAGE_ENTRIES))
    }

    /// Makes the extent's page, at the next location of the map file.
    pub(super) fn add_page_of(&mut self, extent: u32) {
        let location = self.locations;
        self.locations += 1;
        let page = Page {
            entries: self.no_entries.clone(),
            used: 0,
            location,
            stored: None,
        };
        let before = self.pages.insert(extent / PAGE_ENTRIES, page);
        assert!(before.is_none(), "the page of extent {extent} is made once");
    }

    pub(super) fn set(&mut self, extent: u32, entry: Option<Entry>) {
        let index = extent / PAGE_ENTRIES;
        let page = self
            .pages
            .get_mut(&index)
            .expect("the page is made before its entries");
        let packed = &mut Arc::make_mut(&mut page.entries)[(extent % PAGE_ENTRIES) as usize];
        let was = u32::from(Entry::unpack(*packed).is_some());
        let is = u32::from(entry.is_some());
        *packed = Entry::pack(entry);
        page.used = page.used + is - was;
        self.mapped = self.mapped + is - was;
        if page.used == 0 {
            page.entries = self.no_entries.clone();
        }
        self.dirty.insert(index);
    }

    /// The extents with a slot from `first` to `last`, ascending.
    pub(super) fn mapped_within(&self, first: u32, last: u32) -> impl Iterator<Item = u32> + '_ {
        let pages = self.pages.range(first / PAGE_ENTRIES..=last / PAGE_ENTRIES);
        pages
            .filter(|(_, page)| page.used > 0)
            .flat_map(move |(index, page)| {
                let base = index * PAGE_ENTRIES;
                let from = first.max(base) - base;
                let to = (last - base).min(PAGE_ENTRIES - 1);
                let entries =
                    (from..=to).filter(|at| Entry::unpack(page.entries[*at as usize]).is_some());
                entries.map(move |at| base + at)
            })
    }

    /// The changed pages for checkpoint `generation`, each in the copy that is not current, and where all pages are once
    /// it is current.
    pub(super) fn cut(&mut self, generation: u64) -> (Vec<PageCut>, Vec<StoredPage>) {
        let mut cuts = Vec::with_capacity(self.dirty.len());
        let mut table = Vec::with_capacity(self.pages.len());
        for (&index, page) in &self.pages {
            let location = page.location;
            if self.dirty.contains(&index) {
                let copy = page.stored.map_or(0, |(copy, _)| 1 - copy);
                let stored = StoredPage {
                    index,
                    location,
                    copy,
                    generation,
                };
                cuts.push(PageCut {
                    stored,
                    entries: page.entries.clone(),
                });
                table.push(stored);
            } else if let Some((copy, generation)) = page.stored {
                table.push(StoredPage {
                    index,
                    location,
                    copy,
                    generation,
                });
            }
        }
        self.dirty.clear();
        (cuts, table)
    }

    /// The checkpoint that cut this page is durable.
    pub(super) fn become_stored(&mut self, stored: StoredPage) {
        let page = self
            .pages
            .get_mut(&stored.index)
            .expect("pages stay once made");
        page.stored = Some((stored.copy, stored.generation));
    }

    /// The checkpoint that cut this page failed: the next one writes it again.
    pub(super) fn become_dirty(&mut self, index: u32) {
        self.dirty.insert(index);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let full = self.pages.values().filter(|page| page.used > 0).count();
        full * size_of::<Entries>() + self.pages.len() * 48 + self.dirty.len() * 8
    }
}

/// The extent of a block.
pub(super) fn extent_of(block: u64) -> u32 {
    u32::try_from(block / EXTENT_BLOCKS).expect("a volume's size is bounded when it is formatted")
}

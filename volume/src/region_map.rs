//! [`RegionMap`]: a sparse bitmap over a volume's blocks in granules of 64 KiB. What an absent replica missed and how far
//! a resync came are such maps.
//!
//! Granules are kept in chunks of 2 GiB of volume: none marked (absent), all marked (no bits), or 4 KiB of bits. So an
//! empty map and a full one cost nearly nothing, and the worst one 2 MiB for each TiB of volume.

mod codec;

pub use codec::RegionMapError;

use isthmus_engine::BlockRange;
use std::collections::BTreeMap;

/// Blocks in a granule.
pub const GRANULE_BLOCKS: u64 = 16;
/// Granules in a chunk.
const CHUNK_GRANULES: u64 = 32_768;
/// Words of a chunk's bits.
const CHUNK_WORDS: usize = CHUNK_GRANULES as usize / 64;

/// What is marked in one chunk that has marks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Chunk {
    /// Every granule of the volume that lies in the chunk.
    All,
    /// Some: at least one, not all.
    Bits(Box<Bits>),
}

/// The bits of a chunk and how many are set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bits {
    marked: u64,
    words: [u64; CHUNK_WORDS],
}

impl Bits {
    fn empty() -> Box<Bits> {
        Box::new(Bits {
            marked: 0,
            words: [0; CHUNK_WORDS],
        })
    }

    /// The first `count` granules marked.
    fn full(count: u64) -> Box<Bits> {
        let mut bits = Bits::empty();
        bits.set(0, count, true);
        bits
    }

    /// Marks (or clears) granules `from..to` of the chunk.
    fn set(&mut self, from: u64, to: u64, marked: bool) {
        assert!(
            from <= to && to <= CHUNK_GRANULES,
            "granules {from}..{to} of a chunk"
        );
        let mut at = from;
        while at < to {
            let word = &mut self.words[(at / 64) as usize];
            let first = at % 64;
            let count = (64 - first).min(to - at);
            let mask = (u64::MAX >> (64 - count)) << first;
            let before = u64::from(word.count_ones());
            *word = if marked { *word | mask } else { *word & !mask };
            self.marked = self.marked + u64::from(word.count_ones()) - before;
            at += count;
        }
    }

    fn is_set(&self, granule: u64) -> bool {
        self.words[(granule / 64) as usize] >> (granule % 64) & 1 == 1
    }

    /// The first granule from `from` on whose mark is `marked`.
    fn next(&self, from: u64, marked: bool) -> Option<u64> {
        let mut index = (from / 64) as usize;
        let mut keep = u64::MAX << (from % 64);
        while index < CHUNK_WORDS {
            let word = if marked {
                self.words[index]
            } else {
                !self.words[index]
            } & keep;
            if word != 0 {
                return Some(index as u64 * 64 + u64::from(word.trailing_zeros()));
            }
            keep = u64::MAX;
            index += 1;
        }
        None
    }
}

/// A set of granules of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionMap {
    blocks: u64,
    marked: u64,
    chunks: BTreeMap<u32, Chunk>,
}

impl RegionMap {
    /// An empty map for a volume of `blocks` blocks.
    ///
    /// # Panics
    /// When the volume is larger than chunks can be numbered (8 EiB).
    #[must_use]
    pub fn new(blocks: u64) -> RegionMap {
        assert!(
            blocks <= u64::from(u32::MAX) * CHUNK_GRANULES * GRANULE_BLOCKS,
            "a volume of {blocks} blocks"
        );
        RegionMap {
            blocks,
            marked: 0,
            chunks: BTreeMap::new(),
        }
    }

    /// Blocks of the volume.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Marks every granule that the range touches.
    ///
    /// # Panics
    /// When the range is not within the volume.
    pub fn mark(&mut self, range: BlockRange) {
        assert!(
            range.fits(self.blocks),
            "{range:?} in {} blocks",
            self.blocks
        );
        if range.count > 0 {
            self.set(
                range.start / GRANULE_BLOCKS,
                range.end().div_ceil(GRANULE_BLOCKS),
                true,
            );
        }
    }

    /// Clears the granules that lie fully inside the range. (The volume's last granule may be shorter than others.)
    ///
    /// # Panics
    /// When the range is not within the volume.
    pub fn clear(&mut self, range: BlockRange) {
        assert!(
            range.fits(self.blocks),
            "{range:?} in {} blocks",
            self.blocks
        );
        let from = range.start.div_ceil(GRANULE_BLOCKS);
        let to = if range.end() == self.blocks {
            self.granules()
        } else {
            range.end() / GRANULE_BLOCKS
        };
        if from < to {
            self.set(from, to, false);
        }
    }

    /// Whether the block's granule is marked.
    #[must_use]
    pub fn is_marked(&self, block: u64) -> bool {
        let granule = block / GRANULE_BLOCKS;
        match self.chunks.get(&chunk_of(granule)) {
            None => false,
            Some(Chunk::All) => granule < self.granules(),
            Some(Chunk::Bits(bits)) => bits.is_set(granule % CHUNK_GRANULES),
        }
    }

    /// Marks the whole volume.
    pub fn mark_all(&mut self) {
        self.set(0, self.granules(), true);
    }

    /// Whether nothing is marked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marked == 0
    }

    /// How many granules are marked.
    #[must_use]
    pub fn count_granules(&self) -> u64 {
        self.marked
    }

    /// Bytes of the volume in marked granules.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        let missing = self.granules() * GRANULE_BLOCKS - self.blocks;
        let last_is_marked = self.blocks > 0 && self.is_marked(self.blocks - 1);
        let blocks = self.marked * GRANULE_BLOCKS - if last_is_marked { missing } else { 0 };
        blocks * isthmus_engine::BLOCK_BYTES
    }

    /// The first marked granule from granule `from` on.
    #[must_use]
    pub fn next_marked(&self, from: u64) -> Option<u64> {
        for (&index, chunk) in self.chunks.range(chunk_of_clamped(from)..) {
            let first = u64::from(index) * CHUNK_GRANULES;
            let inside = from.saturating_sub(first);
            let found = match chunk {
                Chunk::All => (inside < self.chunk_granules(index)).then_some(inside),
                Chunk::Bits(bits) => bits.next(inside, true),
            };
            if let Some(found) = found {
                return Some(first + found);
            }
        }
        None
    }

    /// The first run of marked granules that ends after block `from`, as blocks, not before `from`.
    #[must_use]
    pub fn next_run(&self, from: u64) -> Option<BlockRange> {
        let first = self.next_marked(from / GRANULE_BLOCKS)?;
        let start = (first * GRANULE_BLOCKS).max(from);
        let end = (self.next_unmarked(first) * GRANULE_BLOCKS).min(self.blocks);
        (start < end).then(|| BlockRange::new(start, end - start))
    }

    /// The runs of marked blocks from block `from` on, in order, as long as possible each.
    pub fn iter_runs(&self, from: u64) -> impl Iterator<Item = BlockRange> + '_ {
        let mut at = from;
        std::iter::from_fn(move || {
            let run = self.next_run(at)?;
            at = run.end();
            Some(run)
        })
    }

    /// Marks what `other` has marked.
    ///
    /// # Panics
    /// When the maps are of volumes of different sizes.
    pub fn union(&mut self, other: &RegionMap) {
        assert_eq!(self.blocks, other.blocks, "maps of one volume");
        for (&index, chunk) in &other.chunks {
            match chunk {
                Chunk::All => self.set_in_chunk(index, 0, other.chunk_granules(index), true),
                Chunk::Bits(bits) => {
                    let mut at = 0;
                    while let Some(from) = bits.next(at, true) {
                        let to = bits.next(from, false).unwrap_or(CHUNK_GRANULES);
                        self.set_in_chunk(index, from, to, true);
                        at = to;
                        if at == CHUNK_GRANULES {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Makes the map that of a volume that has grown. New blocks are not marked, but those in a marked granule that was short.
    ///
    /// # Panics
    /// When `blocks` is less than before.
    pub fn grow(&mut self, blocks: u64) {
        assert!(
            blocks >= self.blocks,
            "{} blocks grow to {blocks}",
            self.blocks
        );
        let last = self.granules().checked_sub(1).map(chunk_of);
        let before = last.map_or(0, |last| self.chunk_granules(last));
        self.blocks = blocks;
        if let Some(last) = last
            && self.chunks.get(&last) == Some(&Chunk::All)
            && self.chunk_granules(last) > before
        {
            self.chunks.insert(last, Chunk::Bits(Bits::full(before)));
        }
    }

    /// Bytes of memory that the map takes, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let bits = self
            .chunks
            .values()
            .filter(|chunk| matches!(chunk, Chunk::Bits(_)))
            .count();
        size_of::<RegionMap>() + self.chunks.len() * 24 + bits * size_of::<Bits>()
    }

    fn granules(&self) -> u64 {
        self.blocks.div_ceil(GRANULE_BLOCKS)
    }

    /// How many granules of the volume lie in the chunk.
    fn chunk_granules(&self, index: u32) -> u64 {
        (self
            .granules()
            .saturating_sub(u64::from(index) * CHUNK_GRANULES))
        .min(CHUNK_GRANULES)
    }

    /// The first granule from `from` (which is marked) on that is not marked, or the number of granules.
    fn next_unmarked(&self, from: u64) -> u64 {
        let mut at = from;
        for (&index, chunk) in self.chunks.range(chunk_of(from)..) {
            let first = u64::from(index) * CHUNK_GRANULES;
            if first > at {
                return at;
            }
            at = match chunk {
                Chunk::All => first + self.chunk_granules(index),
                Chunk::Bits(bits) => match bits.next(at - first, false) {
                    Some(found) => return first + found,
                    None => first + CHUNK_GRANULES,
                },
            };
        }
        at.min(self.granules())
    }

    fn set(&mut self, from: u64, to: u64, marked: bool) {
        let mut at = from;
        while at < to {
            let index = chunk_of(at);
            let first = u64::from(index) * CHUNK_GRANULES;
            let end = to.min(first + CHUNK_GRANULES);
            self.set_in_chunk(index, at - first, end - first, marked);
            at = end;
        }
    }

    /// Marks or clears granules `from..to` of one chunk, and keeps its form the smallest that fits.
    fn set_in_chunk(&mut self, index: u32, from: u64, to: u64, marked: bool) {
        let size = self.chunk_granules(index);
        assert!(
            from <= to && to <= size,
            "granules {from}..{to} of a chunk of {size}"
        );
        let before = match self.chunks.get(&index) {
            None => 0,
            Some(Chunk::All) => size,
            Some(Chunk::Bits(bits)) => bits.marked,
        };
        if (marked && before == size) || (!marked && before == 0) || from == to {
            return;
        }
        let after = if to - from == size {
            if marked { size } else { 0 }
        } else {
            let chunk = self
                .chunks
                .entry(index)
                .or_insert_with(|| Chunk::Bits(Bits::empty()));
            if *chunk == Chunk::All {
                *chunk = Chunk::Bits(Bits::full(size));
            }
            let Chunk::Bits(bits) = chunk else {
                unreachable!("the chunk was just given bits")
            };
            bits.set(from, to, marked);
            bits.marked
        };
        if after == 0 {
            self.chunks.remove(&index);
        } else if after == size {
            self.chunks.insert(index, Chunk::All);
        }
        self.marked = self.marked + after - before;
    }
}

fn chunk_of(granule: u64) -> u32 {
    u32::try_from(granule / CHUNK_GRANULES)
        .expect("a volume's chunks are numbered by 32 bits, which `new` asserts")
}

/// As [`chunk_of`], for a granule that may lie beyond any volume.
fn chunk_of_clamped(granule: u64) -> u32 {
    u32::try_from(granule / CHUNK_GRANULES).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

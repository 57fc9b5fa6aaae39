//! A region map as bytes, for checkpoints and for the wire.
//!
//! `version u8 = 1 · blocks u64 · segments u32`, then each segment, ascending: `chunk u32 · kind u8`, and by kind
//! 0 (all): `chunks u32`, that many chunks in a row are all marked;
//! 1 (bits): the chunk's words, u64 each, as many as the chunk has granules for;
//! 2 (runs): `runs u16`, each `first u16 · length - 1 u16` in granules, ascending, not touching.
//! A chunk takes the shorter of bits and runs, so the whole is at most about 4 KiB for 2 GiB of volume.

use super::{Bits, CHUNK_GRANULES, Chunk, RegionMap};
use crate::store::BLOCKS_MAX;
use thiserror::Error;

const VERSION: u8 = 1;
const KIND_ALL: u8 = 0;
const KIND_BITS: u8 = 1;
const KIND_RUNS: u8 = 2;

/// Bytes that are no region map of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RegionMapError {
    /// The bytes end too early.
    #[error("a region map that ends too early")]
    Short,
    /// A format that this version doesn't know.
    #[error("a region map of format {0}, only {VERSION} is known")]
    Version(u8),
    /// The map of a larger volume.
    #[error("a region map of {found} blocks for a volume of {expected}")]
    OtherSize {
        /// Blocks that the caller expects.
        expected: u64,
        /// Blocks that the map names.
        found: u64,
    },
    /// Segments out of order, beyond the volume's end, or with bytes left over.
    #[error("a region map whose content is not well-formed")]
    Malformed,
}

impl RegionMap {
    /// The map as bytes: at most about 4 KiB for each 2 GiB of volume that has marks.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.blocks.to_le_bytes());
        out.extend([0; 4]);
        let mut segments = 0u32;
        let mut chunks = self.chunks.iter().peekable();
        while let Some((&index, chunk)) = chunks.next() {
            segments += 1;
            out.extend(index.to_le_bytes());
            match chunk {
                Chunk::All => {
                    let mut count = 1;
                    while chunks
                        .next_if(|next| *next.0 == index + count && *next.1 == Chunk::All)
                        .is_some()
                    {
                        count += 1;
                    }
                    out.push(KIND_ALL);
                    out.extend(count.to_le_bytes());
                }
                Chunk::Bits(bits) => encode_bits(bits, self.chunk_granules(index), &mut out),
            }
        }
        out[9..13].copy_from_slice(&segments.to_le_bytes());
        out
    }

    /// How many blocks the volume had whose map `bytes` holds, if they begin as a map.
    #[must_use]
    pub fn blocks_of(bytes: &[u8]) -> Option<u64> {
        let (version, rest) = bytes.split_first()?;
        let blocks = u64::from_le_bytes(*rest.first_chunk()?);
        (*version == VERSION && blocks <= BLOCKS_MAX).then_some(blocks)
    }

    /// The map that `bytes` holds, of a volume that has `blocks` blocks now and may have had fewer then.
    ///
    /// # Errors
    /// When the bytes are not exactly one map of such a volume. Takes time and memory bounded by both sizes.
    pub fn decode(bytes: &[u8], blocks: u64) -> Result<RegionMap, RegionMapError> {
        let mut bytes = Input(bytes);
        match bytes.take::<1>()? {
            [VERSION] => {}
            [other] => return Err(RegionMapError::Version(other)),
        }
        let found = u64::from_le_bytes(bytes.take()?);
        if found > blocks {
            return Err(RegionMapError::OtherSize {
                expected: blocks,
                found,
            });
        }
        let segments = u32::from_le_bytes(bytes.take()?);
        let mut map = RegionMap::new(found);
        let mut next = 0u32;
        for _ in 0..segments {
            let index = u32::from_le_bytes(bytes.take()?);
            if index < next || map.chunk_granules(index) == 0 {
                return Err(RegionMapError::Malformed);
            }
            next = map.decode_segment(index, &mut bytes)?;
        }
        if bytes.0.is_empty() {
            map.grow(blocks);
            Ok(map)
        } else {
            Err(RegionMapError::Malformed)
        }
    }

    /// Reads a segment that starts at chunk `index`, and returns the chunk behind it.
    fn decode_segment(&mut self, index: u32, bytes: &mut Input<'_>) -> Result<u32, RegionMapError> {
        let size = self.chunk_granules(index);
        match bytes.take::<1>()? {
            [KIND_ALL] => {
                let count = u32::from_le_bytes(bytes.take()?);
                let end = index.checked_add(count).ok_or(RegionMapError::Malformed)?;
                if count == 0 || self.chunk_granules(end - 1) == 0 {
                    return Err(RegionMapError::Malformed);
                }
                for chunk in index..end {
                    self.set_in_chunk(chunk, 0, self.chunk_granules(chunk), true);
                }
                Ok(end)
            }
            [KIND_BITS] => {
                let mut bits = Bits::empty();
                for word in &mut bits.words[..size.div_ceil(64) as usize] {
                    *word = u64::from_le_bytes(bytes.take()?);
                    bits.marked += u64::from(word.count_ones());
                }
                let beyond = size < CHUNK_GRANULES && bits.next(size, true).is_some();
                if beyond || bits.marked == 0 || bits.marked == size {
                    return Err(RegionMapError::Malformed);
                }
                self.marked += bits.marked;
                self.chunks.insert(index, Chunk::Bits(bits));
                Ok(index + 1)
            }
            [KIND_RUNS] => {
                let runs = u16::from_le_bytes(bytes.take()?);
                let mut at = 0;
                for _ in 0..runs {
                    let from = u64::from(u16::from_le_bytes(bytes.take()?));
                    let to = from + u64::from(u16::from_le_bytes(bytes.take()?)) + 1;
                    if from < at || to > size {
                        return Err(RegionMapError::Malformed);
                    }
                    self.set_in_chunk(index, from, to, true);
                    at = to + 1;
                }
                if runs == 0 {
                    Err(RegionMapError::Malformed)
                } else {
                    Ok(index + 1)
                }
            }
            _ => Err(RegionMapError::Malformed),
        }
    }
}

fn encode_bits(bits: &Bits, size: u64, out: &mut Vec<u8>) {
    let words = size.div_ceil(64) as usize;
    let kind_at = out.len();
    out.push(KIND_RUNS);
    out.extend([0; 2]);
    let mut runs = 0u16;
    let mut at = 0;
    while at < size
        && let Some(from) = bits.next(at, true)
    {
        at = bits.next(from, false).unwrap_or(CHUNK_GRANULES);
        runs += 1;
        out.extend((from as u16).to_le_bytes());
        out.extend(((at - from - 1) as u16).to_le_bytes());
        if out.len() - kind_at > 1 + words * 8 {
            out.truncate(kind_at);
            out.push(KIND_BITS);
            out.extend(
                bits.words[..words]
                    .iter()
                    .flat_map(|word| word.to_le_bytes()),
            );
            return;
        }
    }
    out[kind_at + 1..kind_at + 3].copy_from_slice(&runs.to_le_bytes());
}

/// Bytes still to be read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RegionMapError> {
        let (taken, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(RegionMapError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }
}

//! Blocks: the unit in which replicas keep, order, copy and check data. Bytes become blocks at the NBD edge only.

use crate::ids::VolumeId;
use serde::{Deserialize, Serialize};

/// Bytes in a block. A volume's logical block size may be smaller (512); the primary then reads, merges and writes whole blocks.
pub const BLOCK_BYTES: u64 = 4096;

/// A run of blocks of one volume: `start`, `start + 1`, … (`count` of them, at least one when it names work to do).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockRange {
    /// The first block.
    pub start: u64,
    /// How many blocks.
    pub count: u64,
}

impl BlockRange {
    /// `count` blocks from `start`.
    #[must_use]
    pub const fn new(start: u64, count: u64) -> BlockRange {
        BlockRange { start, count }
    }

    /// The first block after the range.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start + self.count
    }

    /// The range's length in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.count * BLOCK_BYTES
    }

    /// Whether the two share a block.
    #[must_use]
    pub const fn overlaps(self, other: BlockRange) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// The blocks that both have, if any.
    #[must_use]
    pub fn intersection(self, other: BlockRange) -> Option<BlockRange> {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        (start < end).then(|| BlockRange::new(start, end - start))
    }

    /// Whether the range lies in a volume of `blocks` blocks, without overflow.
    #[must_use]
    pub fn fits(self, blocks: u64) -> bool {
        self.start
            .checked_add(self.count)
            .is_some_and(|end| end <= blocks)
    }
}

/// The checksum of one block: CRC-32 over its bytes, started from its volume and block number, so that right bytes
/// in the wrong place are found, too. It is computed once, where the data enters the cluster, and goes with the data
/// over the wire, through the journal and into the extent's header.
///
/// # Panics
/// When `data` is not exactly one block.
#[must_use]
pub fn block_checksum(volume: VolumeId, block: u64, data: &[u8]) -> u32 {
    assert_eq!(
        data.len() as u64,
        BLOCK_BYTES,
        "a checksum is of one whole block"
    );
    // SplitMix64's finalizer spreads volume and block over the 32 bits that start the CRC.
    let mut seed =
        volume.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ block.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mut hasher = crc32fast::Hasher::new_with_initial((seed ^ (seed >> 31)) as u32);
    hasher.update(data);
    hasher.finalize()
}

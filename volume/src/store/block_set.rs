//! [`BlockSet`]: some of an extent's 256 blocks, as bits.

use super::format::EXTENT_BLOCKS;

/// A set of block positions within one extent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BlockSet([u64; 4]);

impl BlockSet {
    pub(super) const EMPTY: BlockSet = BlockSet([0; 4]);
    pub(super) const ALL: BlockSet = BlockSet([u64::MAX; 4]);

    /// Positions `first..first + count`.
    pub(super) fn range(first: u64, count: u64) -> BlockSet {
        let end = first + count;
        assert!(end <= EXTENT_BLOCKS, "blocks {first}..{end} of an extent");
        let mut set = BlockSet::EMPTY;
        for (index, word) in set.0.iter_mut().enumerate() {
            let base = index as u64 * 64;
            let from = first.clamp(base, base + 64) - base;
            let to = end.clamp(base, base + 64) - base;
            if from < to {
                *word = (u64::MAX >> (64 - (to - from))) << from;
            }
        }
        set
    }

    pub(super) fn from_bytes(bytes: &[u8; 32]) -> BlockSet {
        let (words, _) = bytes.as_chunks::<8>();
        BlockSet(std::array::from_fn(|index| {
            u64::from_le_bytes(words[index])
        }))
    }

    pub(super) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *to = word.to_le_bytes();
        }
        bytes
    }

    pub(super) fn contains(self, position: u64) -> bool {
        self.0[(position / 64) as usize] >> (position % 64) & 1 == 1
    }

    pub(super) fn is_empty(self) -> bool {
        self == BlockSet::EMPTY
    }

    pub(super) fn intersects(self, other: BlockSet) -> bool {
        !self.and(other).is_empty()
    }

    pub(super) fn and(self, other: BlockSet) -> BlockSet {
        BlockSet(std::array::from_fn(|index| self.0[index] & other.0[index]))
    }

    pub(super) fn or(self, other: BlockSet) -> BlockSet {
        BlockSet(std::array::from_fn(|index| self.0[index] | other.0[index]))
    }

    pub(super) fn without(self, other: BlockSet) -> BlockSet {
        BlockSet(std::array::from_fn(|index| self.0[index] & !other.0[index]))
    }

    /// The lowest and the highest position, when there is any.
    pub(super) fn bounds(self) -> Option<(u64, u64)> {
        let low = self.0.iter().position(|word| *word != 0)?;
        let high = self.0.iter().rposition(|word| *word != 0)?;
        let first = low as u64 * 64 + u64::from(self.0[low].trailing_zeros());
        let last = high as u64 * 64 + 63 - u64::from(self.0[high].leading_zeros());
        Some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_exactly_their_positions() {
        for first in (0..256).step_by(7) {
            for count in (0..=256 - first).step_by(5) {
                let set = BlockSet::range(first, count);
                for position in 0..256 {
                    assert_eq!(
                        set.contains(position),
                        position >= first && position < first + count
                    );
                }
                assert_eq!(
                    set.bounds(),
                    (count > 0).then(|| (first, first + count - 1))
                );
                assert_eq!(BlockSet::from_bytes(&set.to_bytes()), set);
            }
        }
    }
}

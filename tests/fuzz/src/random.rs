//! Random numbers from a seed: SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).

/// A stream of random numbers, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A seed that nobody has used before, from the operating system.
    #[must_use]
    pub fn fresh_seed() -> u64 {
        use std::hash::{BuildHasher, Hasher};
        // Short enough to be typed again.
        std::hash::RandomState::new().build_hasher().finish() % 1_000_000_000
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 where there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            self.next_u64() % bound
        }
    }

    /// An index of something with `length` elements.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Small numbers mostly, sometimes any: what counters and positions look like.
    pub fn number(&mut self) -> u64 {
        match self.below(16) {
            0 => self.next_u64(),
            1 => u64::MAX - self.below(4),
            2 => 1 << self.below(64),
            _ => self.below(1000),
        }
    }

    /// Random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next_u64() as u8).collect()
    }

    /// A name as people write them.
    pub fn name(&mut self) -> String {
        const LETTERS: &[u8] = b"abcdefghij0123456789-._";
        let length = self.below(12) + 1;
        let letters = (0..length).map(|_| char::from(LETTERS[self.index(LETTERS.len())]));
        std::iter::once('n').chain(letters).collect()
    }
}

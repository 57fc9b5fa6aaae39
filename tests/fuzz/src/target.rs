//! What is fuzzed, seen from the loop: seeds, repair of checksums, one case, and what it may cost.

use crate::random::Random;

/// What must come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything but a broken rule.
    Anything,
    /// The bytes are what the crate's own encoder made: accepted.
    Whole,
    /// The same with one bit turned over, and no checksum repaired.
    Damaged,
    /// The same, cut off somewhere before the end.
    Cut,
}

impl Expect {
    /// All of them.
    pub const ALL: [Expect; 4] = [
        Expect::Anything,
        Expect::Whole,
        Expect::Damaged,
        Expect::Cut,
    ];

    /// As in file names.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Expect::Anything => "anything",
            Expect::Whole => "whole",
            Expect::Damaged => "damaged",
            Expect::Cut => "cut",
        }
    }
}

/// What a decoder made of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A value came of it.
    Accepted,
    /// An error, or "more bytes are needed".
    Refused,
}

impl Verdict {
    /// Accepted where there is something.
    #[must_use]
    pub fn of<T>(value: &Option<T>) -> Verdict {
        if value.is_some() {
            Verdict::Accepted
        } else {
            Verdict::Refused
        }
    }
}

/// A decoder, or several that go together.
pub trait Target {
    /// As on the command line.
    fn name(&self) -> &'static str;

    /// How many cases of each thousand or so it should get: little where a case costs much.
    fn share(&self) -> u64 {
        32
    }

    /// A valid input, made by the crate's own encoder.
    fn seed(&mut self, random: &mut Random) -> Vec<u8>;

    /// Repairs what guards the bytes, checksums first of all, so that what lies behind it is reached.
    fn reseal(&self, _bytes: &mut Vec<u8>, _random: &mut Random) {}

    /// Changes the input in its own way; false where the general one is better.
    fn mutate(&self, _bytes: &mut Vec<u8>, _other: &[u8], _random: &mut Random) -> bool {
        false
    }

    /// Words of the language, where it has one.
    fn words(&self) -> &'static [&'static [u8]] {
        &[]
    }

    /// Longer inputs are cut.
    fn input_bytes_max(&self) -> usize {
        8 << 10
    }

    /// Bytes of memory that one case may have live at once.
    fn memory_bytes_max(&self, input_bytes: usize) -> usize;

    /// Whether one wrong bit is always refused.
    fn is_sealed(&self) -> bool {
        false
    }

    /// Whether what is cut off is always refused, or "incomplete".
    fn refuses_prefixes(&self) -> bool {
        false
    }

    /// Decodes. Panics where a rule is broken. What the loop can check by itself (see [`Expect`]), it checks.
    fn run(&mut self, input: &[u8], expect: Expect) -> Verdict;
}

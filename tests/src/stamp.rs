//! What the tests write: each 512 B sector says which write it came from and where it belongs, and the rest of it follows
//! from that, so that one sector alone shows whether it is whole.

use crate::random;

/// Bytes of the smallest thing that is written.
pub const SECTOR_BYTES: usize = 512;
const MAGIC: u64 = 0x6973_7468_6d75_7331;

/// What a sector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Only zeros.
    Empty,
    /// A whole sector of that write, at its place.
    Write(u64),
    /// A whole sector that belongs elsewhere: another history's, or another place's.
    Foreign {
        /// The history's number.
        history: u64,
        /// The write's number.
        write: u64,
        /// Where it belongs.
        sector: u64,
    },
    /// Neither: parts of several writes, or damage.
    Torn,
}

/// Fills `bytes`, whole sectors, as that write does when it begins at `first_sector`.
///
/// # Panics
/// When `bytes` are no whole sectors.
pub fn fill(bytes: &mut [u8], history: u64, write: u64, first_sector: u64) {
    assert!(
        bytes.len().is_multiple_of(SECTOR_BYTES),
        "{} bytes are no whole sectors",
        bytes.len()
    );
    for (sector, chunk) in (first_sector..).zip(bytes.chunks_exact_mut(SECTOR_BYTES)) {
        let words = [MAGIC, history, write, sector];
        let mut state = words
            .iter()
            .fold(0, |state, word| random::mix(state ^ word));
        let (head, body) = chunk.split_at_mut(32);
        for (place, word) in head.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        for place in body.chunks_exact_mut(8) {
            state = random::mix(state.wrapping_add(1));
            place.copy_from_slice(&state.to_le_bytes());
        }
    }
}

/// What the sector at this place holds.
///
/// # Panics
/// When `bytes` is not one sector.
#[must_use]
pub fn look(bytes: &[u8], history: u64, sector: u64) -> Seen {
    assert_eq!(bytes.len(), SECTOR_BYTES, "one sector is looked at");
    if bytes.iter().all(|byte| *byte == 0) {
        return Seen::Empty;
    }
    let word = |index: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
        u64::from_le_bytes(word)
    };
    let (theirs, write, place) = (word(1), word(2), word(3));
    let mut expected = [0; SECTOR_BYTES];
    fill(&mut expected, theirs, write, place);
    if expected != *bytes {
        Seen::Torn
    } else if theirs == history && place == sector {
        Seen::Write(write)
    } else {
        Seen::Foreign {
            history: theirs,
            write,
            sector: place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_says_which_write_it_came_from_and_where_it_belongs() {
        let mut bytes = vec![0; 2 * SECTOR_BYTES];
        assert_eq!(look(&bytes[..512], 7, 40), Seen::Empty);
        fill(&mut bytes, 7, 3, 40);
        assert_eq!(look(&bytes[..512], 7, 40), Seen::Write(3));
        assert_eq!(look(&bytes[512..], 7, 41), Seen::Write(3));
        assert_eq!(
            look(&bytes[512..], 7, 40),
            Seen::Foreign {
                history: 7,
                write: 3,
                sector: 41
            }
        );
        assert_eq!(
            look(&bytes[512..], 8, 41),
            Seen::Foreign {
                history: 7,
                write: 3,
                sector: 41
            }
        );
        for place in [0, 9, 17, 25, 100, 511] {
            let mut damaged = bytes[..512].to_vec();
            damaged[place] ^= 1;
            assert_eq!(look(&damaged, 7, 40), Seen::Torn, "byte {place}");
        }
    }
}

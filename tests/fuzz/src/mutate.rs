//! Turns bytes into bytes that are nearly as good: the mutations of AFL's "havoc" stage, as far as they helped here.

use crate::chunks::{self, Chunk};
use crate::random::Random;

/// Numbers at which code turns.
const TURNS: [u64; 12] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Changes the bytes in up to eight places. `other` is something to take pieces of; `words` are pieces of the language, where it
/// has one.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut Random) {
    let more_max = if random.once_in(2) { 1 } else { 8 };
    for _ in 0..=random.below(more_max) {
        once(bytes, other, words, random);
    }
}

/// Changes, drops, repeats or moves pieces of an input that consists of them ([`chunks`]), as far as `may_change` allows it.
pub fn mutate_chunks(
    bytes: &mut Vec<u8>,
    other: &[u8],
    may_change: fn(&Chunk) -> bool,
    random: &mut Random,
) {
    let mut all = chunks::split(bytes);
    let mut others = chunks::split(other);
    others.retain(may_change);
    let more_max = if random.once_in(2) { 1 } else { 5 };
    for _ in 0..=random.below(more_max) {
        let places: Vec<usize> = (0..all.len())
            .filter(|index| may_change(&all[*index]))
            .collect();
        if places.is_empty() {
            break;
        }
        let at = places[random.index(places.len())];
        let to = places[random.index(places.len())];
        match random.below(12) {
            0 => _ = all.remove(at),
            1 => {
                let copy = all[at].clone();
                all.insert(to, copy);
            }
            2 => all.swap(at, to),
            3 => {
                let moved = all.remove(at);
                all.insert(to.min(all.len()), moved);
            }
            4 => {
                all[at].place = all[at]
                    .place
                    .wrapping_add(random.below(5) as u32)
                    .wrapping_sub(2)
            }
            5 => all[at].tag = all[to].tag,
            6 if !others.is_empty() => {
                let new = others[random.index(others.len())].clone();
                all.insert(at, new);
            }
            7 if !others.is_empty() => {
                all[at].bytes = others[random.index(others.len())].bytes.clone();
            }
            _ => {
                let pattern = all[to].bytes.clone();
                mutate(&mut all[at].bytes, &pattern, &[], random);
            }
        }
    }
    *bytes = chunks::join(&all);
}

/// Turns over one bit.
pub fn flip_bit(bytes: &mut [u8], random: &mut Random) {
    if !bytes.is_empty() {
        let at = random.index(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
}

fn once(bytes: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut Random) {
    if bytes.is_empty() {
        let length = random.index(64);
        *bytes = random.bytes(length);
        return;
    }
    let at = random.index(bytes.len());
    match random.below(14) {
        0 | 1 => flip_bit(bytes, random),
        2 => bytes[at] = random.next_u64() as u8,
        3 => {
            bytes[at] = bytes[at]
                .wrapping_add(random.below(35) as u8)
                .wrapping_sub(17)
        }
        // A length field, most likely.
        4..=6 => overwrite_number(bytes, at, random),
        7 => {
            let range = piece(bytes.len(), 64, random);
            bytes.drain(range);
        }
        8 => {
            let range = piece(bytes.len(), 64, random);
            let copy = bytes[range].to_vec();
            let more_max = if random.once_in(8) { 16 } else { 1 };
            for _ in 0..=random.below(more_max) {
                bytes.splice(at..at, copy.iter().copied());
            }
        }
        9 => {
            let length = random.index(16) + 1;
            let new = random.bytes(length);
            bytes.splice(at..at, new);
        }
        10 => bytes.truncate(at),
        11 if !other.is_empty() => {
            let range = piece(other.len(), 256, random);
            let new = &other[range];
            if random.once_in(2) {
                bytes.splice(at..at, new.iter().copied());
            } else {
                let end = (at + new.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&new[..end - at]);
            }
        }
        12 => {
            let from = piece(bytes.len(), 64, random);
            let copy = bytes[from].to_vec();
            let end = (at + copy.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&copy[..end - at]);
        }
        _ if !words.is_empty() => {
            let word = words[random.index(words.len())];
            let replaced = random.index(word.len() + 1).min(bytes.len() - at);
            bytes.splice(at..at + replaced, word.iter().copied());
        }
        _ => flip_bit(bytes, random),
    }
}

fn piece(length: usize, bytes_max: usize, random: &mut Random) -> std::ops::Range<usize> {
    let start = random.index(length);
    let end = start + 1 + random.index(bytes_max.min(length - start));
    start..end.min(length)
}

fn overwrite_number(bytes: &mut [u8], at: usize, random: &mut Random) {
    let width = 1 << random.below(4);
    let at = at.min(bytes.len().saturating_sub(width));
    let Some(place) = bytes.get_mut(at..at + width) else {
        return;
    };
    let mut whole = [0; 8];
    whole[..width].copy_from_slice(place);
    let big_endian = random.once_in(2);
    if big_endian {
        whole[..width].reverse();
    }
    let old = u64::from_le_bytes(whole);
    let new = match random.below(5) {
        0 => TURNS[random.index(TURNS.len())],
        1 => old.wrapping_add(random.below(9)).wrapping_sub(4),
        2 => old ^ 1 << random.below(8 * width as u64),
        3 => 1 << random.below(8 * width as u64),
        _ => random.number(),
    };
    let mut new = new.to_le_bytes();
    if big_endian {
        new[..width].reverse();
    }
    place.copy_from_slice(&new[..width]);
}

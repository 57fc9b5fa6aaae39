//! What a client writes names itself: every sector carries the number of the write that brought it, its volume and its place, and a
//! pattern made of these. So each read says which write it saw, and anything torn, misplaced or made up is seen at once.

use crate::checkers::Operation;
use bytes::Bytes;
use isthmus_engine::VolumeId;

/// The unit of checking: the smallest piece that a client reads or writes.
pub const SECTOR_BYTES: u64 = 512;
/// What a sector holds that reads as zeroes.
pub const ZEROES: u64 = 0;

const WORDS: u64 = SECTOR_BYTES / 8;

fn word(write: u64, volume: VolumeId, sector: u64, index: u64) -> u64 {
    match index {
        0 => write,
        1 => volume.0 << 48 | sector,
        _ => (write ^ sector << 20 ^ volume.0 << 40)
            .wrapping_add(index)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

/// The bytes of write number `write` (not 0) for `sectors` sectors from `first` on.
#[must_use]
pub fn written(write: u64, volume: VolumeId, first: u64, sectors: u64) -> Bytes {
    assert!(write != ZEROES, "write 0 would not be told from zeroes");
    let mut bytes = vec![0; (sectors * SECTOR_BYTES) as usize];
    let (words, _) = bytes.as_chunks_mut::<8>();
    for (of_sector, sector) in words.chunks_exact_mut(WORDS as usize).zip(first..) {
        for (to, index) in of_sector.iter_mut().zip(0..) {
            *to = word(write, volume, sector, index).to_le_bytes();
        }
    }
    Bytes::from(bytes)
}

/// The number of the write that a sector read from `sector` holds, or [`ZEROES`].
///
/// # Errors
/// What is wrong with the bytes, when no write and no zeroing made them.
pub fn read(volume: VolumeId, sector: u64, bytes: &[u8]) -> Result<u64, String> {
    let mut words = bytes
        .chunks_exact(8)
        .map(|chunk| u64::from_le_bytes(chunk.try_into().expect("chunks of 8 bytes")));
    let write = words.next().unwrap_or(ZEROES);
    if write == ZEROES {
        return if words.all(|word| word == 0) {
            Ok(ZEROES)
        } else {
            Err(format!(
                "sector {sector} is zero at first and not later: torn"
            ))
        };
    }
    for (found, index) in words.zip(1..) {
        if found != word(write, volume, sector, index) {
            return Err(format!(
                "sector {sector} says it is of write {write}, but word {index} is {found:#x}: torn, misplaced or made up"
            ));
        }
    }
    Ok(write)
}

/// What a whole read saw, sector by sector.
///
/// # Errors
/// What is wrong with its bytes or their number.
pub fn read_all(operation: &Operation, parts: &[Bytes]) -> Result<Vec<u64>, String> {
    let (volume, number) = (operation.volume, operation.number);
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    if bytes as u64 != operation.count * SECTOR_BYTES {
        return Err(format!(
            "{volume}: read {number} got {bytes} bytes for {} sectors",
            operation.count
        ));
    }
    let whole;
    let sectors = if let [only] = parts {
        only.chunks_exact(SECTOR_BYTES as usize)
    } else {
        whole = parts.concat();
        whole.chunks_exact(SECTOR_BYTES as usize)
    };
    sectors
        .zip(operation.first..)
        .map(|(bytes, sector)| {
            read(volume, sector, bytes).map_err(|what| format!("{volume}: read {number}: {what}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_tells_its_write_and_anything_else_is_refused() {
        let volume = VolumeId(3);
        let bytes = written(7, volume, 10, 2);
        assert_eq!(read(volume, 10, &bytes[..512]), Ok(7));
        assert_eq!(read(volume, 11, &bytes[512..]), Ok(7));
        assert!(read(volume, 11, &bytes[..512]).is_err());
        assert!(read(VolumeId(4), 10, &bytes[..512]).is_err());
        let mut torn = bytes[..512].to_vec();
        torn[300..].fill(0);
        assert!(read(volume, 10, &torn).is_err());
        assert_eq!(read(volume, 10, &[0; 512]), Ok(ZEROES));
    }
}

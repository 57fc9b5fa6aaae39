//! The envelope around kvdb's values: its length and checksum, made right again. The layout is that of
//! `isthmus_catalog::codec`.

const ENVELOPE_BYTES: usize = 16;

/// Repairs length and checksum of one envelope that takes all the bytes.
pub(super) fn reseal(bytes: &mut [u8]) {
    if bytes.len() < ENVELOPE_BYTES {
        return;
    }
    let (header, payload) = bytes.split_at_mut(ENVELOPE_BYTES);
    header[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[4..8]);
    hasher.update(payload);
    header[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
}

//! Several pieces of bytes as one input: `tag u8 · place u32 · length u32 · bytes` each. What a mutation has broken is read as far
//! as it goes, so that any bytes are some pieces.

/// A piece: of what kind, where it belongs, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its kind: a file, say.
    pub tag: u8,
    /// Its place there.
    pub place: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

const HEAD_BYTES: usize = 9;

/// All pieces as one input.
#[must_use]
pub fn join(chunks: &[Chunk]) -> Vec<u8> {
    let mut all = Vec::new();
    for chunk in chunks {
        all.push(chunk.tag);
        all.extend(chunk.place.to_le_bytes());
        all.extend((chunk.bytes.len() as u32).to_le_bytes());
        all.extend(&chunk.bytes);
    }
    all
}

/// The pieces of an input.
#[must_use]
pub fn split(mut all: &[u8]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    while let Some((head, rest)) = all.split_first_chunk::<HEAD_BYTES>() {
        let [tag, p0, p1, p2, p3, l0, l1, l2, l3] = *head;
        let length = (u32::from_le_bytes([l0, l1, l2, l3]) as usize).min(rest.len());
        let (bytes, next) = rest.split_at(length);
        chunks.push(Chunk {
            tag,
            place: u32::from_le_bytes([p0, p1, p2, p3]),
            bytes: bytes.to_vec(),
        });
        all = next;
    }
    chunks
}

//! A reusable buffer that starts at a multiple of 4096, as direct I/O asks.

use bytes::Bytes;

/// Direct I/O works on offsets, lengths and addresses that are multiples of this many bytes.
pub(crate) const ALIGNMENT: usize = 4096;

/// A larger buffer is given back after its use, not kept for the next one.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// Memory of one thread into which the parts of a write are gathered.
#[derive(Default)]
pub(crate) struct AlignedBuffer {
    memory: Vec<u8>,
}

impl AlignedBuffer {
    /// The parts one behind the other, in memory that starts at a multiple of [`ALIGNMENT`].
    pub(crate) fn gather(&mut self, parts: &[Bytes]) -> &[u8] {
        let length: usize = parts.iter().map(Bytes::len).sum();
        let needed = length + ALIGNMENT;
        if self.memory.len() < needed || self.memory.len() > KEPT_BYTES_MAX.max(needed) {
            self.memory = vec![0; needed.next_power_of_two()];
        }
        let start = self.memory.as_ptr().align_offset(ALIGNMENT);
        assert!(
            start < ALIGNMENT,
            "an aligned start is found within one alignment, got {start}"
        );
        let gathered = &mut self.memory[start..start + length];
        let mut filled = 0;
        for part in parts {
            gathered[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        gathered
    }
}

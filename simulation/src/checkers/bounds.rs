//! Space and memory stay in bounds: a node's disk holds its journal and at most a small multiple of its volumes, and what is in doubt
//! in memory is never more than its journal holds.
//!
//! Why it must hold: promise 7 (an outage costs no memory that grows with its length), and a disk that fills up by itself would take
//! its replica out of every set. An extent may have a second copy that the last checkpoint still needs, and files double when they are
//! full, beginning with 16 slots (`volume/src/store/growth.rs`).

use isthmus_engine::BLOCK_BYTES;
use isthmus_journal::Shape;

/// An extent's bytes, header included, rounded up.
const EXTENT_BYTES: u64 = (1 << 20) + (64 << 10);
/// Checkpoint files, maps and kvdb's store on the same disk.
const FIXED_BYTES: u64 = 16 << 20;

/// What a node holds now.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Space that its files take.
    pub disk_bytes: u64,
    /// Of records in doubt, by volume, with the volume's size in blocks.
    pub in_doubt: Vec<(u64, u64)>,
}

/// Checks what a node holds.
///
/// # Errors
/// What is too much.
pub fn check_bounds(shape: Shape, held: &Held) -> Result<(), String> {
    let journal = shape.segment_bytes * u64::from(shape.segments);
    let extents = |blocks: u64| (blocks * BLOCK_BYTES).div_ceil(1 << 20) * EXTENT_BYTES;
    let volumes: u64 = held
        .in_doubt
        .iter()
        .map(|(_, blocks)| 2 * 2 * extents(*blocks) + 16 * EXTENT_BYTES)
        .sum();
    let bound = journal + volumes + FIXED_BYTES;
    if held.disk_bytes > bound {
        return Err(format!(
            "its files take {} bytes, more than {bound}",
            held.disk_bytes
        ));
    }
    let in_doubt: u64 = held.in_doubt.iter().map(|(bytes, _)| bytes).sum();
    if in_doubt > journal {
        return Err(format!(
            "{in_doubt} bytes are in doubt, more than its journal's {journal}"
        ));
    }
    Ok(())
}

//! A volume that has grown: each replica takes its new size when it hears of it, from kvdb or by a record of another replica.
//!
//! Why nothing else is needed (decision 0018): a volume never shrinks, blocks that nobody wrote are zeroes on every replica, and a
//! replica's size is only a bound. So a replica that has not heard yet differs in nothing, and one that hears by a record makes room.

use super::Mirror;
use isthmus_engine::BLOCK_BYTES;

impl<R> Mirror<R> {
    /// kvdb says how large the volume is.
    pub fn on_size(&mut self, bytes: u64) {
        self.bytes = bytes;
        self.grow_to(bytes / BLOCK_BYTES);
    }

    /// Makes room for `blocks` blocks at least.
    ///
    /// # Panics
    /// When that is more than a volume can have.
    pub(super) fn grow_to(&mut self, blocks: u64) {
        if blocks <= self.blocks {
            return;
        }
        self.store.grow(blocks);
        for map in self.absent.values_mut() {
            map.regions.grow(blocks);
        }
        if let Some(todo) = &mut self.todo {
            todo.grow(blocks);
        }
        self.blocks = blocks;
    }
}

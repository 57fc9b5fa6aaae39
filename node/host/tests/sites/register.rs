//! What a block may hold: a register with one writer, whose writes may have been lost on their way or not.

use std::collections::BTreeSet;

/// A block's value; 0 before the first write.
pub type Value = u64;

/// What is known of a block.
#[derive(Clone, Debug)]
pub struct Register {
    /// The last one known to count.
    certain: Value,
    /// Writes since, in order, of which nobody said what came of them.
    perhaps: Vec<Value>,
}

impl Register {
    /// Nothing was written.
    pub fn new() -> Register {
        Register {
            certain: 0,
            perhaps: Vec::new(),
        }
    }

    /// What may be read now.
    pub fn allowed(&self) -> BTreeSet<Value> {
        self.perhaps.iter().copied().chain([self.certain]).collect()
    }

    /// A write is on its way.
    pub fn begins(&mut self, value: Value) {
        self.perhaps.push(value);
    }

    /// It was acknowledged: whatever was written before is over.
    pub fn acknowledged(&mut self, value: Value) {
        self.perhaps.retain(|other| *other > value);
        self.certain = self.certain.max(value);
    }

    /// It was read, so it counts: what is older is over.
    pub fn seen(&mut self, value: Value) {
        if self.perhaps.contains(&value) {
            self.acknowledged(value);
        }
    }
}

//! The journal: durable, ordered, checksummed records with group commit and recovery, over the [`disk`] seam.
//!
//! It decides nothing and knows nothing of what its owners put in: a volume's writes and kvdb's Raft log are both such records.

pub mod disk;

pub use disk::{Disk, DiskBusy, DiskOp, Done, FileId, OpId, OpIds};

//! What kvdb keeps on disk: vote and log as records of a journal, snapshots as files. The disk has one owner.
//!
//! Reading order: `records` (bytes of a record), `retained` (what the records so far come to), `snapshots`, `writer` (the
//! state machine over these), `owner` (the thread or task that calls it), `blocking` (an asynchronous disk as a synchronous one).

mod blocking;
mod forced;
mod owner;
mod records;
mod retained;
mod snapshots;
mod writer;

pub use forced::force;
pub(crate) use owner::Storage;
pub use owner::{AwaitedDisk, DiskOwner};
pub(crate) use records::Record;
pub(crate) use snapshots::{StoredSnapshot, bytes as snapshot_bytes, parse as parse_snapshot};
pub(crate) use writer::{Flushed, Recovered, recover};

use isthmus_journal::{Disk, Journal, Shape};

use crate::error::KvdbError;

/// kvdb's journal: 8 segments of 8 MiB.
const SHAPE: Shape = Shape {
    segment_bytes: 8 << 20,
    segments: 8,
};

fn journal_folder(folder: &str) -> String {
    format!("{folder}/journal")
}

/// Makes the empty store of a member that has given no vote yet. Call it only where the whole store of the node is formatted,
/// together with a new incarnation (I12): a member that forgot its votes must not come back under its old name.
/// `identity` is a random number that clients can't know.
///
/// # Errors
/// `Store`, when there is a store already, or the disk fails or is full.
pub fn format<D: Disk>(disk: &mut D, folder: &str, identity: u64) -> Result<(), KvdbError> {
    format_with(disk, folder, SHAPE, identity)
}

/// The same, with a journal of another shape: a simulation sees small ones fill up.
///
/// # Errors
/// As [`format()`].
pub fn format_with<D: Disk>(
    disk: &mut D,
    folder: &str,
    shape: Shape,
    identity: u64,
) -> Result<(), KvdbError> {
    let store = |error: &dyn std::fmt::Display| KvdbError::Store(error.to_string());
    snapshots::remove_all(disk, folder).map_err(|error| store(&error))?;
    Journal::format(disk, &journal_folder(folder), shape, identity).map_err(|error| store(&error))
}

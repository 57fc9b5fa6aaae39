//! The journal: durable, ordered, checksummed records with group commit and recovery, over the [`disk`] seam.
//!
//! It decides nothing and knows nothing of what its owners put in: a volume's writes and kvdb's Raft log are both such
//! records. It is synchronous and has no thread and no clock: [`Journal::append`] queues, [`Journal::step`] submits one
//! durable write for all that is queued, [`Journal::on_completed`] moves [`Journal::durable`]. For records that need not be durable
//! at once it moves [`Journal::written`] first.
//!
//! Invariants:
//! * A record at or below [`Journal::durable`] survives any crash until its stream releases it; one at or below
//!   [`Journal::written`] survives the end of this process.
//! * Recovery gives back a prefix of what was appended, in order, in whole groups, and at least up to `durable`.
//! * What recovery left out never comes back, and an earlier use of a segment is never taken for the current one.
//! * A segment is overwritten only after it is *durably* known that no stream needs anything in it.
//!
//! Reading order: [`error`], [`shape`], [`layout`] (bytes on disk), `segments` (what is still needed), [`journal`],
//! `syncing` (written and not durable), `recovery`. The format and its reasons are in `docs/decisions/0002-journal-format.md`.

pub mod disk;
pub mod error;
pub mod journal;
pub mod layout;
mod recovery;
mod segments;
pub mod shape;
mod syncing;

pub use disk::{Disk, DiskBusy, DiskOp, Done, FileId, OpId, OpIds};
pub use error::{Full, JournalError};
pub use journal::{Journal, RECORD_BYTES_MAX, RECORD_PARTS_MAX};
pub use layout::{Lsn, StreamId};
pub use shape::Shape;

//! What can go wrong, in words for the person who has to act.

use crate::layout::Lsn;
use std::io;

/// A journal that can't be used, or can't be used any more.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refused a call.
    #[error(
        "the journal can't {action} {path}: {source}; check the disk and the permissions of the data directory"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// The disk's answer.
        source: io::Error,
    },
    /// There is no journal in the folder, or its format did not run to its end.
    #[error("there is no journal in {folder}; format the data directory first")]
    NotFormatted {
        /// The folder.
        folder: String,
    },
    /// Formatting would destroy a journal.
    #[error(
        "{folder} holds a journal already, and formatting would destroy it; remove the folder first if that is what you want"
    )]
    AlreadyFormatted {
        /// The folder.
        folder: String,
    },
    /// The shape is outside of its bounds.
    #[error("a journal can't have this shape: {reason}")]
    BadShape {
        /// Which bound, and what it is.
        reason: String,
    },
    /// Written by a newer release.
    #[error(
        "{path} has journal format {found}, but this release knows format {known}; start the release that wrote it, or a newer one"
    )]
    UnknownVersion {
        /// The file.
        path: String,
        /// The version found.
        found: u32,
        /// The version that this code writes.
        known: u32,
    },
    /// Both copies of the description are bad.
    #[error(
        "both copies of the journal's description in {path} are damaged; restore the file, or replace this replica's store and resync it"
    )]
    BadDescription {
        /// The file.
        path: String,
    },
    /// Durable records are missing or changed: not a torn tail, which recovery cuts off by itself.
    #[error(
        "the journal is damaged at offset {offset} of segment file {segment}: {reason}; records that were durable are lost here, \
         so replace this replica's store and resync it from a good one"
    )]
    Damaged {
        /// The number in the segment file's name.
        segment: u32,
        /// Byte offset in that file.
        offset: u64,
        /// What was expected, and what was found.
        reason: String,
    },
    /// A durable write failed: what it held may or may not be on disk, and nothing more is written.
    #[error(
        "writing records {first} to {last} to the journal failed: {source}; the journal takes nothing more until it is opened again, \
         because only recovery can tell what of this write is on disk"
    )]
    WriteFailed {
        /// The first record of the group.
        first: Lsn,
        /// The last record of the group (below `first` when the group held none).
        last: Lsn,
        /// The disk's answer.
        source: io::Error,
    },
}

/// The journal has no room for the record, or has failed ([`crate::Journal::has_failed`]). Nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal has no room; its oldest records must be released first")]
pub struct Full;

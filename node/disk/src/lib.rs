//! The real disk: the files of one data directory behind [`isthmus_journal::Disk`], and the lock that keeps a second
//! process out of that directory.
//!
//! The thread that calls [`FileDisk`] does not wait for the device while it has anything else to do: what the page cache can answer
//! is answered at once, all else goes to worker threads or to a ring; the one exception is in `lone`. Reads, buffered writes, syncs and durable writes have threads of
//! their own, so that a long sync holds up neither a read nor the journal.
//!
//! Reading order: [`file_disk`] (the seam), `open_file` (what is done to one file), `workers` (who does it),
//! `ring` (durable writes without a thread), `lone` (those that are waited for), `folders` (names, and how they are made durable), `aligned`, [`lock`].

mod aligned;
pub mod file_disk;
mod folders;
pub mod lock;
mod lone;
mod open_file;
mod ring;
mod workers;

pub use file_disk::FileDisk;
pub use lock::DirectoryLock;

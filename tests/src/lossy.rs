//! A file system that loses what was not synced: for power cuts and failing disks with real processes, test-only.
//!
//! It behaves like a disk with a volatile write cache under a file system that promises no more than POSIX does:
//! * Of the writes that were not synced, each 512 B sector survives a power cut or not, whatever became of its neighbours and in
//!   whatever order they were written; of a sector that was written several times, any version may be what is left.
//! * An `fsync` or `fdatasync` makes a file's content and length durable, never its name.
//! * A name (made, renamed, removed) is durable after an `fsync` of its folder; until then a folder comes back with its changes
//!   up to some moment. A rename within a folder is one change.
//! * A write through a handle with `O_DSYNC` makes durable what it wrote, and nothing else: not what was written to that file
//!   before. (A real file system often does more. A program must not rely on that.)
//! * Metadata that we have no use for is not kept: owners, modes, times, links.
//!
//! While it runs it can also refuse, fill up, turn read-only, be slow, and flip bits: [`faults`].
//!
//! It speaks the kernel's FUSE protocol itself, over `/dev/fuse` (`include/uapi/linux/fuse.h` of the kernel, version 7.31), in
//! threads of the test's process; nothing is cached by the kernel (`FOPEN_DIRECT_IO`, times to live of 0), so that the model here is
//! all there is. Needs root. Everything is kept in memory.
//!
//! Reading order: [`content`] (a file's bytes), [`model`] (files and folders, now and after a cut), [`faults`], [`protocol`]
//! (messages as bytes), [`serving`] (a message becomes a change of the model), [`mount`].

pub mod content;
pub mod faults;
pub mod model;
pub mod mount;
pub mod protocol;
pub mod serving;

pub use faults::Faults;
pub use model::{Lost, Model};
pub use mount::LossyDisk;

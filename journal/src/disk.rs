//! The seam to storage: what a journal or a volume's store asks of a disk. The real one (`node/disk`) has threads and
//! files under one data directory, the simulated one (`simulation/disk`) an event heap and a seed.

use bytes::Bytes;
use std::io;

/// Names one submitted operation until its completion. The upper 16 bits name the component that submitted it
/// (see [`OpIds`]), so that the host can hand the completion to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

impl OpId {
    /// The tag of the component that submitted the operation.
    #[must_use]
    pub fn tag(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// Makes the operation ids of one component: never twice the same.
#[derive(Debug)]
pub struct OpIds {
    tag: u16,
    next: u64,
}

impl OpIds {
    /// Ids with this component tag.
    #[must_use]
    pub fn new(tag: u16) -> OpIds {
        OpIds { tag, next: 0 }
    }

    /// A new id.
    pub fn next_id(&mut self) -> OpId {
        self.next += 1;
        assert!(
            self.next < 1 << 48,
            "48 bits of operations are never used up"
        );
        OpId(u64::from(self.tag) << 48 | self.next)
    }
}

/// An open file of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// One operation on a file. Operations that are in flight together may take effect in any order, and a crash may
/// keep, lose or tear (at 512-byte sectors) each write that no completed sync covers.
#[derive(Clone, Debug)]
pub enum DiskOp {
    /// Read `length` bytes at `offset`. Bytes past the end of the file read as zeroes.
    Read {
        /// The file.
        file: FileId,
        /// Byte offset.
        offset: u64,
        /// Bytes to read.
        length: usize,
    },
    /// Write the parts one behind the other at `offset`; with `durable`, complete only when they are on stable
    /// storage (with everything else that this file had completed before).
    Write {
        /// The file.
        file: FileId,
        /// Byte offset.
        offset: u64,
        /// The bytes, in parts (gathered, not copied).
        parts: Vec<Bytes>,
        /// Whether completion means "on stable storage".
        durable: bool,
    },
    /// Make every write to the file that completed before this was submitted durable.
    Sync {
        /// The file.
        file: FileId,
    },
    /// Give the space of a range back; it reads as zeroes afterwards. May be a no-op in effect on space, never on content.
    Punch {
        /// The file.
        file: FileId,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        length: u64,
    },
}

/// The result of a completed operation.
#[derive(Clone, Debug)]
pub enum Done {
    /// The bytes read: exactly as many as asked for.
    Read(Bytes),
    /// A write, sync or punch took effect.
    Finished,
}

/// More operations are in flight than the disk takes; try again after a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskBusy;

/// Storage under one data directory.
///
/// The first group of calls is for start-up and for rare changes (format, create or delete a volume): synchronous, and
/// durable when they return. The second group is the path of every I/O: submit, then collect completions.
pub trait Disk {
    /// Opens the file at `path` (relative, `/`-separated), or `NotFound`.
    fn open(&mut self, path: &str) -> io::Result<FileId>;
    /// Creates the file with `bytes` zero bytes; with `reserve` its space is allocated now (else sparse). Parent folders
    /// are made. An existing file is an error. File and name are durable on return.
    fn create(&mut self, path: &str, bytes: u64, reserve: bool) -> io::Result<FileId>;
    /// Grows or shrinks the file. A growth is durable with the next sync of the file, as a write is; with `reserve`, new space is allocated now, so that later writes there can't find the disk full.
    fn resize(&mut self, file: FileId, bytes: u64, reserve: bool) -> io::Result<()>;
    /// Allocates the space of a range within the file, which keeps its content: later writes there can't find the disk full, until
    /// the range is punched.
    fn reserve(&mut self, file: FileId, offset: u64, bytes: u64) -> io::Result<()>;
    /// The file's length in bytes.
    fn length(&mut self, file: FileId) -> io::Result<u64>;
    /// Removes a file, or a folder with all it holds. Absent is fine. Open ids of removed files are closed.
    fn remove(&mut self, path: &str) -> io::Result<()>;
    /// The names (not paths) in a folder, sorted; an absent folder is empty.
    fn list(&mut self, folder: &str) -> io::Result<Vec<String>>;
    /// Reads now. Bytes past the end of the file read as zeroes.
    fn read_now(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes now, and makes the file durable before returning.
    fn write_now(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Starts an operation. Its completion comes by [`Disk::completed`], in any order with others.
    fn submit(&mut self, id: OpId, op: DiskOp) -> Result<(), DiskBusy>;
    /// Starts a write that completes as soon as the kernel has its bytes: the end of this process leaves them, a loss of power may take
    /// them. Unlike any other write that is not durable, somebody waits for it.
    fn submit_held(
        &mut self,
        id: OpId,
        file: FileId,
        offset: u64,
        parts: Vec<Bytes>,
    ) -> Result<(), DiskBusy> {
        let durable = false;
        self.submit(
            id,
            DiskOp::Write {
                file,
                offset,
                parts,
                durable,
            },
        )
    }
    /// Something waits for a write that is not durable: if that was kept back, to be done together with others, it is to be done now.
    fn hurry(&mut self) {}
    /// Appends the operations that have completed since the last call.
    fn completed(&mut self, out: &mut Vec<(OpId, io::Result<Done>)>);
}

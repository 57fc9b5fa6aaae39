//! The FUSE file system of an attachment: one folder with one file, `volume`, whose bytes are the volume's. Nothing is cached: each
//! request of the kernel becomes one of NBD.

use super::requests::{Action, Requests};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::warn;

/// The file's name.
pub const FILE: &str = "volume";

const FILE_INODE: INodeNo = INodeNo(2);
/// The size may change behind the kernel's back.
const VALID: Duration = Duration::ZERO;
/// Bytes of a request of the kernel at most.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Requests of the kernel at once.
const REQUESTS_MAX: u16 = 64;
/// Bytes that are made zeroes at once.
const ZERO_BYTES_MAX: u64 = 1 << 30;
/// How long a look for the new size may take.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// `fallocate`'s modes, from `linux/falloc.h`.
const KEEP_SIZE: i32 = 0x1;
const PUNCH_HOLE: i32 = 0x2;
const ZERO_RANGE: i32 = 0x10;

/// The file system.
pub struct ExportFolder {
    requests: Requests,
    block_bytes: u32,
}

impl ExportFolder {
    /// Of that volume.
    pub fn new(requests: Requests, block_bytes: u32) -> ExportFolder {
        ExportFolder {
            requests,
            block_bytes,
        }
    }

    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = if inode == INodeNo::ROOT {
            (FileType::Directory, 0o500, 0)
        } else if inode == FILE_INODE {
            (FileType::RegularFile, 0o600, self.requests.bytes())
        } else {
            return None;
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: self.block_bytes,
            flags: 0,
        })
    }

    /// How much of a range is within the volume.
    fn within(&self, offset: u64, length: u64) -> u64 {
        self.requests.bytes().saturating_sub(offset).min(length)
    }
}

/// Makes a range zeroes, piece by piece.
fn zero(requests: Requests, offset: u64, left: u64, reply: ReplyEmpty) {
    if left == 0 {
        reply.ok();
        return;
    }
    let piece = left.min(ZERO_BYTES_MAX);
    let next = requests.clone();
    requests.submit(
        // It is at most a GiB.
        Action::Zero(piece as u32),
        offset,
        Box::new(move |result| match result {
            Ok(_) => zero(next, offset + piece, left - piece, reply),
            Err(error) => reply.error(Errno::from_i32(error)),
        }),
    );
}

impl Filesystem for ExportFolder {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused =
            |wanted: &str| warn!(wanted, "the kernel's FUSE does not have it: I/O is slower");
        if config.set_max_write(REQUEST_BYTES_MAX).is_err() {
            refused("requests of 1 MiB");
        }
        if config.set_max_background(REQUESTS_MAX).is_err() {
            refused("64 requests at once");
        }
        for flag in [InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_MAX_PAGES] {
            if config.add_capabilities(flag).is_err() {
                refused("requests that do not wait for each other, of more than 128 KiB");
            }
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(FILE_INODE) {
            Some(attributes) if parent == INodeNo::ROOT && name == FILE => {
                reply.entry(&VALID, &attributes, Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&VALID, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// A size larger than the present one is a question: has the volume grown to that?
    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let Some(attributes) = self.attributes(inode) else {
            return reply.error(Errno::ENOENT);
        };
        match size {
            Some(size) if size > attributes.size && inode == FILE_INODE => {
                let looked = self.requests.look_anew();
                let waiting = thread::Builder::new().name("look-anew".to_owned());
                // Without a thread the reply is dropped, which the kernel hears as an error.
                let _ = waiting.spawn(move || match looked.recv_timeout(LOOK_LIMIT) {
                    Ok(bytes) if bytes >= size => reply.attr(
                        &VALID,
                        &FileAttr {
                            size: bytes,
                            ..attributes
                        },
                    ),
                    Ok(_) | Err(_) => reply.error(Errno::EAGAIN),
                });
            }
            Some(size) if size != attributes.size => reply.error(Errno::EPERM),
            _ => reply.attr(&VALID, &attributes),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if inode != FILE_INODE {
            return reply.error(Errno::ENOENT);
        }
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(1), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = self.within(offset, u64::from(size));
        if size == 0 {
            return reply.data(&[]);
        }
        let done = move |result: Result<Vec<u8>, i32>| match result {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(Errno::from_i32(error)),
        };
        // It is at most what the kernel asked for.
        self.requests
            .submit(Action::Read(size as u32), offset, Box::new(done));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if data.is_empty() {
            return reply.written(0);
        }
        let length = data.len() as u64;
        if self.within(offset, length) < length {
            return reply.error(Errno::ENOSPC);
        }
        let done = move |result: Result<Vec<u8>, i32>| match result {
            Ok(_) => reply.written(length as u32),
            Err(error) => reply.error(Errno::from_i32(error)),
        };
        self.requests
            .submit(Action::Write(Arc::from(data)), offset, Box::new(done));
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let done = move |result: Result<Vec<u8>, i32>| match result {
            Ok(_) => reply.ok(),
            Err(error) => reply.error(Errno::from_i32(error)),
        };
        self.requests.submit(Action::Flush, 0, Box::new(done));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    /// Holes read as zeroes: NBD's WRITE_ZEROES promises that, its TRIM does not.
    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & (PUNCH_HOLE | ZERO_RANGE) == 0
            || mode & !(PUNCH_HOLE | ZERO_RANGE | KEEP_SIZE) != 0
        {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let length = self.within(offset, length);
        zero(self.requests.clone(), offset, length, reply);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::EOPNOTSUPP);
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = [
            (INodeNo::ROOT, FileType::Directory, "."),
            (INodeNo::ROOT, FileType::Directory, ".."),
            (FILE_INODE, FileType::RegularFile, FILE),
        ];
        for (position, (inode, kind, name)) in (1..).zip(entries) {
            if position > offset && reply.add(inode, position, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}

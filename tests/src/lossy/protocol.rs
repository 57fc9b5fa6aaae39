//! The kernel's FUSE messages as bytes: `include/uapi/linux/fuse.h`, version 7.31, little-endian as on the machines we test on.
//!
//! A request is a head of 40 bytes and a body that depends on its kind; an answer is a head of 16 bytes and a body.

use crate::lossy::content::PAGE_BYTES;
use crate::lossy::model::{Facts, Inode};
use rustix::io::Errno;

/// Bytes of a request's head.
pub const HEAD_BYTES: usize = 40;
/// Bytes that the kernel may send in one write.
pub const WRITE_BYTES_MAX: u32 = 1 << 20;
const MINOR: u32 = 31;
const ASYNC_READ: u32 = 1;
const BIG_WRITES: u32 = 1 << 5;
const ASYNC_DIRECT_IO: u32 = 1 << 15;
const MAX_PAGES: u32 = 1 << 22;
/// Nothing of the file is cached, and writes to it need not wait for one another.
const OPEN_DIRECT: u32 = 1 | 1 << 6;

/// What the kernel asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To agree on the protocol; what the kernel can do.
    Begin {
        /// Flags of `fuse_init_in`.
        flags: u32,
    },
    /// The entry of that name.
    LookUp(String),
    /// What is known about it.
    Facts,
    /// A new length; none when only what is not kept changes.
    SetLength(Option<u64>),
    /// A new folder.
    MakeFolder(String),
    /// A new file, opened with these flags.
    MakeFile(String, u32),
    /// The name away.
    Remove(String),
    /// The folder's name away.
    RemoveFolder(String),
    /// Another name, in another folder.
    Rename(String, Inode, String),
    /// To open a file with these flags.
    Open(u32),
    /// To open a folder.
    OpenFolder,
    /// Bytes.
    Read {
        /// From here.
        offset: u64,
        /// So many.
        length: u64,
    },
    /// To take bytes.
    Write {
        /// From here.
        offset: u64,
        /// The handle's flags, with those of this one write.
        flags: u32,
        /// What.
        data: Vec<u8>,
    },
    /// Space, or holes.
    Allocate {
        /// From here.
        offset: u64,
        /// So many bytes.
        length: u64,
        /// As fallocate(2) has it.
        mode: u32,
    },
    /// To make it durable; with the flags that its handle was opened with.
    Sync {
        /// The handle's flags.
        flags: u32,
    },
    /// To make a folder's names durable.
    SyncFolder,
    /// A folder's names, from that one on.
    Names {
        /// How many were given already.
        from: u64,
        /// Bytes that the answer may have.
        length: u64,
    },
    /// How much space there is.
    Space,
    /// A handle is closed.
    Close,
    /// Nothing that wants an answer.
    Nothing,
    /// To answer that request at once, whatever the answer: who asked got a signal.
    Interrupt(u64),
    /// Something that we don't do.
    Unknown(u32),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number, for the answer.
    pub unique: u64,
    /// Which file or folder.
    pub inode: Inode,
    /// What.
    pub ask: Ask,
}

/// Reads a request; none when it is not one.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Request> {
    let kind = u32_at(bytes, 4)?;
    let (unique, inode) = (u64_at(bytes, 8)?, u64_at(bytes, 16)?);
    let body = bytes.get(HEAD_BYTES..)?;
    let ask = ask(kind, body)?;
    Some(Request { unique, inode, ask })
}

fn ask(kind: u32, body: &[u8]) -> Option<Ask> {
    Some(match kind {
        1 => Ask::LookUp(name(body)?),
        // FORGET, BATCH_FORGET.
        2 | 42 => Ask::Nothing,
        36 => Ask::Interrupt(u64_at(body, 0)?),
        3 => Ask::Facts,
        // FATTR_SIZE
        4 => Ask::SetLength((u32_at(body, 0)? & 8 != 0).then_some(u64_at(body, 16)?)),
        9 => Ask::MakeFolder(name(body.get(8..)?)?),
        10 => Ask::Remove(name(body)?),
        11 => Ask::RemoveFolder(name(body)?),
        12 => rename(u64_at(body, 0)?, body.get(8..)?)?,
        // RENAME2, where its flags ask for nothing more.
        45 if u32_at(body, 8)? == 0 => rename(u64_at(body, 0)?, body.get(16..)?)?,
        14 => Ask::Open(u32_at(body, 0)?),
        15 => Ask::Read {
            offset: u64_at(body, 8)?,
            length: u64::from(u32_at(body, 16)?),
        },
        16 => Ask::Write {
            offset: u64_at(body, 8)?,
            flags: u32_at(body, 32)?,
            data: body.get(40..)?.get(..u32_at(body, 16)? as usize)?.to_vec(),
        },
        17 => Ask::Space,
        // RELEASE, RELEASEDIR, and DESTROY.
        18 | 29 | 38 => Ask::Close,
        // The handle is the flags that the file was opened with.
        20 => Ask::Sync {
            flags: u64_at(body, 0)? as u32,
        },
        26 => Ask::Begin {
            flags: u32_at(body, 12)?,
        },
        27 => Ask::OpenFolder,
        28 => Ask::Names {
            from: u64_at(body, 8)?,
            length: u64::from(u32_at(body, 16)?),
        },
        30 => Ask::SyncFolder,
        35 => Ask::MakeFile(name(body.get(16..)?)?, u32_at(body, 0)?),
        43 => Ask::Allocate {
            offset: u64_at(body, 8)?,
            length: u64_at(body, 16)?,
            mode: u32_at(body, 24)?,
        },
        other => Ask::Unknown(other),
    })
}

fn rename(folder: Inode, names: &[u8]) -> Option<Ask> {
    let from = name(names)?;
    let to = name(names.get(from.len() + 1..)?)?;
    Some(Ask::Rename(from, folder, to))
}

fn name(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    String::from_utf8(bytes[..end].to_vec()).ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// An answer's bytes.
#[must_use]
pub fn answer(unique: u64, result: &Result<Vec<u8>, Errno>) -> Vec<u8> {
    let (error, body): (i32, &[u8]) = match result {
        Ok(body) => (0, body),
        Err(error) => (-error.raw_os_error(), &[]),
    };
    let mut bytes = (16 + body.len() as u32).to_le_bytes().to_vec();
    bytes.extend(error.to_le_bytes());
    bytes.extend(unique.to_le_bytes());
    bytes.extend(body);
    bytes
}

/// `fuse_init_out`: what we agree to.
#[must_use]
pub fn agreement(flags: u32) -> Vec<u8> {
    let wanted = ASYNC_READ | BIG_WRITES | ASYNC_DIRECT_IO | MAX_PAGES;
    let mut body = Vec::with_capacity(64);
    for word in [7, MINOR, 1 << 17, flags & wanted] {
        body.extend(u32::to_le_bytes(word));
    }
    for half in [64_u16, 48] {
        body.extend(half.to_le_bytes());
    }
    for word in [WRITE_BYTES_MAX, 1] {
        body.extend(word.to_le_bytes());
    }
    body.extend(((WRITE_BYTES_MAX as u64 / PAGE_BYTES) as u16).to_le_bytes());
    body.resize(64, 0);
    body
}

/// `fuse_attr_out`.
#[must_use]
pub fn facts(facts: &Facts) -> Vec<u8> {
    // Valid for no time.
    let mut body = vec![0; 16];
    body.extend(attributes(facts));
    body
}

/// `fuse_entry_out`.
#[must_use]
pub fn entry(facts: &Facts) -> Vec<u8> {
    let mut body = facts.inode.to_le_bytes().to_vec();
    // The first generation; valid for no time.
    body.extend([0; 32]);
    body.extend(attributes(facts));
    body
}

/// `fuse_open_out`; the handle is the flags that were asked for.
#[must_use]
pub fn opened(flags: u32, folder: bool) -> Vec<u8> {
    let mut body = u64::from(flags).to_le_bytes().to_vec();
    body.extend(if folder { 0 } else { OPEN_DIRECT }.to_le_bytes());
    body.extend([0; 4]);
    body
}

/// `fuse_write_out`.
#[must_use]
pub fn written(bytes: u32) -> Vec<u8> {
    u64::from(bytes).to_le_bytes().to_vec()
}

/// `fuse_statfs_out`.
#[must_use]
pub fn space((pages, free): (u64, u64)) -> Vec<u8> {
    let mut body = Vec::with_capacity(80);
    for word in [pages, free, free, 1 << 20, 1 << 19] {
        body.extend(u64::to_le_bytes(word));
    }
    for word in [PAGE_BYTES as u32, 255, PAGE_BYTES as u32] {
        body.extend(word.to_le_bytes());
    }
    body.resize(80, 0);
    body
}

/// Entries of a folder (`fuse_dirent`), as many as fit.
#[must_use]
pub fn names(entries: &[(String, Inode, bool)], from: u64, length: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for (number, (name, inode, folder)) in (1_u64..).zip(entries).skip(from as usize) {
        let bytes = (24 + name.len()).next_multiple_of(8);
        if body.len() + bytes > length as usize {
            break;
        }
        let end = body.len() + bytes;
        body.extend(inode.to_le_bytes());
        body.extend(number.to_le_bytes());
        body.extend((name.len() as u32).to_le_bytes());
        // DT_DIR, DT_REG
        body.extend(if *folder { 4_u32 } else { 8 }.to_le_bytes());
        body.extend(name.as_bytes());
        body.resize(end, 0);
    }
    body
}

/// `fuse_attr`.
fn attributes(facts: &Facts) -> Vec<u8> {
    let mut body = Vec::with_capacity(88);
    let mode: u32 = if facts.folder { 0o40755 } else { 0o100_644 };
    for word in [facts.inode, facts.length, facts.pages * 8, 0, 0, 0] {
        body.extend(word.to_le_bytes());
    }
    let links = if facts.folder { 2 } else { 1 };
    for word in [0, 0, 0, mode, links, 0, 0, 0, PAGE_BYTES as u32, 0] {
        body.extend(word.to_le_bytes());
    }
    body
}

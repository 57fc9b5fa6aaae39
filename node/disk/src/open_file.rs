//! One open file: how it is read, written, synced and punched, on the caller's thread or a worker's.

use crate::aligned::{ALIGNMENT, AlignedBuffer};
use bytes::Bytes;
use rustix::fs::{FallocateFlags, OFlags, fallocate, fdatasync};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Parts handed to the kernel in one call; Linux takes at most 1024.
const PARTS_A_CALL_MAX: usize = 256;

/// Bytes handed to the kernel in one buffered write. The kernel keeps what comes in one call in one piece of its cache, and ext4 walks
/// over all 4 KiB blocks of that piece at every later write into it: 30 us for a block in a piece of 1 MiB.
const BYTES_A_CALL_MAX: usize = 64 << 10;

/// What came of an attempt that must not wait for the device.
#[derive(Debug)]
pub(crate) enum Attempt<T> {
    /// Done.
    Finished(T),
    /// Not possible without waiting; a worker has to do it.
    WouldWait,
}

/// Parts of a write, and how far it has got.
struct Unwritten<'a> {
    parts: &'a [Bytes],
    /// Bytes of the first part that are written.
    skip: usize,
}

impl<'a> Unwritten<'a> {
    fn of(parts: &'a [Bytes]) -> Unwritten<'a> {
        Unwritten { parts, skip: 0 }
    }

    /// What to write next; nothing when all is written.
    fn next_call(&self) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::new();
        let (mut bytes, mut skip) = (0, self.skip);
        for part in self.parts {
            let part = &part[std::mem::take(&mut skip)..];
            let part = &part[..part.len().min(BYTES_A_CALL_MAX - bytes)];
            bytes += part.len();
            if !part.is_empty() {
                slices.push(IoSlice::new(part));
            }
            if bytes == BYTES_A_CALL_MAX || slices.len() == PARTS_A_CALL_MAX {
                break;
            }
        }
        slices
    }

    fn advance(&mut self, count: usize) {
        self.skip += count;
        while let Some(first) = self.parts.first()
            && self.skip >= first.len()
        {
            self.skip -= first.len();
            self.parts = &self.parts[1..];
        }
    }
}

/// A file of the data directory. All methods may be called from several threads at once.
#[derive(Debug)]
pub(crate) struct OpenFile {
    buffered: File,
    /// Opened for direct, synced writes, where the file system has them.
    direct: Option<File>,
    /// Cleared by the first direct write that the file system refuses for its form.
    direct_works: AtomicBool,
    /// Cleared by the first buffered write for which the file system cannot promise not to wait.
    writes_without_waiting: AtomicBool,
    /// Buffered changes (writes, punches) that have completed.
    changed: AtomicU64,
    /// The value of `changed` up to which a completed sync covers everything.
    synced: AtomicU64,
    /// A sync failed. The kernel may have dropped the pages and would report the next sync as good, so none is good again.
    sync_failed: AtomicBool,
}

impl OpenFile {
    /// Opens an existing file.
    pub(crate) fn open(path: &Path) -> io::Result<OpenFile> {
        let buffered = File::options().read(true).write(true).open(path)?;
        if !buffered.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is not a regular file", path.display()),
            ));
        }
        let direct_flags = OFlags::DIRECT | OFlags::DSYNC;
        let direct = File::options()
            .write(true)
            .custom_flags(direct_flags.bits().cast_signed())
            .open(path)
            .ok();
        Ok(OpenFile {
            buffered,
            direct,
            direct_works: AtomicBool::new(true),
            writes_without_waiting: AtomicBool::new(true),
            changed: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            sync_failed: AtomicBool::new(false),
        })
    }

    /// The file's length in bytes.
    pub(crate) fn length(&self) -> io::Result<u64> {
        Ok(self.buffered.metadata()?.len())
    }

    /// Fills `buffer` from `offset`; what lies past the end of the file is zeroes.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self.read_with(offset, buffer, ReadWriteFlags::empty())? {
            Attempt::Finished(()) => Ok(()),
            Attempt::WouldWait => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// As [`OpenFile::read`], but only from the page cache.
    pub(crate) fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Attempt<()>> {
        self.read_with(offset, buffer, ReadWriteFlags::NOWAIT)
    }

    fn read_with(
        &self,
        offset: u64,
        buffer: &mut [u8],
        flags: ReadWriteFlags,
    ) -> io::Result<Attempt<()>> {
        let mut filled = 0;
        while filled < buffer.len() {
            let mut rest = [IoSliceMut::new(&mut buffer[filled..])];
            let position = end_of(offset, filled)?;
            match preadv2(&self.buffered, &mut rest, position, flags) {
                Ok(0) => {
                    buffer[filled..].fill(0);
                    break;
                }
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) if would_wait(error, flags) => return Ok(Attempt::WouldWait),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Attempt::Finished(()))
    }

    /// Writes the parts one behind the other into the page cache.
    pub(crate) fn write(&self, offset: u64, parts: &[Bytes]) -> io::Result<()> {
        self.write_with(offset, parts, ReadWriteFlags::empty())?;
        self.changed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// As [`OpenFile::write`], but only where the file system can promise not to wait. Some bytes may have been written
    /// when the answer is [`Attempt::WouldWait`]; writing all of them again is right.
    pub(crate) fn write_cached(&self, offset: u64, parts: &[Bytes]) -> io::Result<Attempt<()>> {
        if !self.writes_without_waiting.load(Ordering::Relaxed) {
            return Ok(Attempt::WouldWait);
        }
        let attempt = self.write_with(offset, parts, ReadWriteFlags::NOWAIT)?;
        if matches!(attempt, Attempt::Finished(())) {
            self.changed.fetch_add(1, Ordering::SeqCst);
        }
        Ok(attempt)
    }

    fn write_with(
        &self,
        offset: u64,
        parts: &[Bytes],
        flags: ReadWriteFlags,
    ) -> io::Result<Attempt<()>> {
        let mut written = 0;
        let mut left = Unwritten::of(parts);
        loop {
            let slices = left.next_call();
            if slices.is_empty() {
                return Ok(Attempt::Finished(()));
            }
            match pwritev2(&self.buffered, &slices, end_of(offset, written)?, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    written += count;
                    left.advance(count);
                }
                Err(Errno::INTR) => {}
                Err(error) if would_wait(error, flags) => {
                    if error == Errno::OPNOTSUPP {
                        self.writes_without_waiting.store(false, Ordering::Relaxed);
                    }
                    return Ok(Attempt::WouldWait);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes the parts so that they, and everything that completed before on this file, are on stable storage.
    pub(crate) fn write_durably(
        &self,
        offset: u64,
        parts: &[Bytes],
        buffer: &mut AlignedBuffer,
    ) -> io::Result<()> {
        self.check_syncs()?;
        let completed_before = self.changed();
        if self.write_direct(offset, parts, buffer)? {
            if !self.is_synced(completed_before) {
                self.sync()?;
            }
            return self.check_syncs();
        }
        self.write(offset, parts)?;
        self.sync()
    }

    /// The file for direct, synced writes, where file system, offset and length allow one.
    pub(crate) fn direct_for(&self, offset: u64, length: usize) -> Option<&File> {
        let aligned = offset.is_multiple_of(ALIGNMENT as u64) && length.is_multiple_of(ALIGNMENT);
        let works = self.direct_works.load(Ordering::Relaxed);
        self.direct.as_ref().filter(|_| aligned && works)
    }

    /// The file system refuses direct writes for their form.
    pub(crate) fn give_direct_up(&self) {
        self.direct_works.store(false, Ordering::Relaxed);
    }

    /// A direct, synced write, where one is possible; false where it isn't.
    fn write_direct(
        &self,
        offset: u64,
        parts: &[Bytes],
        buffer: &mut AlignedBuffer,
    ) -> io::Result<bool> {
        let length: usize = parts.iter().map(Bytes::len).sum();
        let Some(direct) = self.direct_for(offset, length) else {
            return Ok(false);
        };
        match direct.write_all_at(buffer.gather(parts), offset) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.give_direct_up();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Buffered changes that have completed so far.
    pub(crate) fn changed(&self) -> u64 {
        self.changed.load(Ordering::SeqCst)
    }

    /// Whether a completed sync covers the first `changed` buffered changes.
    pub(crate) fn is_synced(&self, changed: u64) -> bool {
        self.synced.load(Ordering::SeqCst) >= changed
    }

    /// Makes every change that completed before the call durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.check_syncs()?;
        let completed_before = self.changed();
        if let Err(error) = fdatasync(&self.buffered) {
            self.sync_failed.store(true, Ordering::SeqCst);
            return Err(error.into());
        }
        self.check_syncs()?;
        self.synced.fetch_max(completed_before, Ordering::SeqCst);
        Ok(())
    }

    /// Fails once a sync of this file has failed.
    pub(crate) fn check_syncs(&self) -> io::Result<()> {
        if self.sync_failed.load(Ordering::SeqCst) {
            return Err(io::Error::other(
                "an earlier sync of this file failed, so what it holds is not known; it takes no durable write until it is opened anew",
            ));
        }
        Ok(())
    }

    /// Gives the space of a range back; it reads as zeroes afterwards.
    pub(crate) fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset
            .checked_add(length)
            .ok_or(io::ErrorKind::InvalidInput)?;
        if length == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry_interrupted(|| fallocate(&self.buffered, flags, offset, length)) {
            Ok(()) => {}
            // No holes on this file system: the content must be the same all the same.
            Err(Errno::OPNOTSUPP) => self.write_zeroes(offset, end.min(self.length()?))?,
            Err(error) => return Err(error.into()),
        }
        self.changed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, end: u64) -> io::Result<()> {
        write_zeroes(&self.buffered, offset, end)
    }

    /// Allocates the space of a range within the file. What is there stays; without allocation on this file system, nothing can be
    /// promised, and nothing is done.
    pub(crate) fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = offset
            .checked_add(bytes)
            .ok_or(io::ErrorKind::InvalidInput)?;
        if bytes == 0 || end > self.length()? {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = FallocateFlags::KEEP_SIZE;
        match retry_interrupted(|| fallocate(&self.buffered, flags, offset, bytes)) {
            Err(Errno::OPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Sets the length, durably where it shrinks; with `reserve`, the space of what is new is allocated.
    pub(crate) fn resize(&self, bytes: u64, reserve: bool) -> io::Result<()> {
        let before = self.length()?;
        if reserve && bytes > before {
            reserve_space(&self.buffered, before, bytes)?;
        }
        self.buffered.set_len(bytes)?;
        if bytes >= before {
            // A sync covers it, as it does a write.
            self.changed.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        // All of it: a data sync need not keep a length that only shrank.
        self.buffered.sync_all()?;
        self.sync()
    }
}

/// Allocates the space from `from` to `to` and makes the file that long.
pub(crate) fn reserve_space(file: &File, from: u64, to: u64) -> io::Result<()> {
    assert!(from < to, "space is reserved forwards, from {from} to {to}");
    match retry_interrupted(|| fallocate(file, FallocateFlags::empty(), from, to - from)) {
        // Without allocation on this file system, writing is what takes the space.
        Err(Errno::OPNOTSUPP) => write_zeroes(file, from, to),
        result => Ok(result?),
    }
}

/// Writes zeroes from `offset` up to `end`.
pub(crate) fn write_zeroes(file: &File, offset: u64, end: u64) -> io::Result<()> {
    let zeroes = vec![0; 4 << 20];
    let mut position = offset;
    while position < end {
        let count =
            usize::try_from(end - position).map_or(zeroes.len(), |left| left.min(zeroes.len()));
        file.write_all_at(&zeroes[..count], position)?;
        position += count as u64;
    }
    Ok(())
}

fn end_of(offset: u64, count: usize) -> io::Result<u64> {
    Ok(offset
        .checked_add(count as u64)
        .ok_or(io::ErrorKind::InvalidInput)?)
}

fn would_wait(error: Errno, flags: ReadWriteFlags) -> bool {
    flags.contains(ReadWriteFlags::NOWAIT) && (error == Errno::AGAIN || error == Errno::OPNOTSUPP)
}

fn retry_interrupted(mut call: impl FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

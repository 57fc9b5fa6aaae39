//! [`FileDisk`]: the files of one data directory as the [`Disk`] of a host.

use crate::folders;
use crate::open_file::{Attempt, OpenFile, reserve_space, write_zeroes};
use crate::workers::{Completion, Completions, Job, Work, Workers};
use bytes::Bytes;
use isthmus_journal::{Disk, DiskBusy, DiskOp, Done, FileId, OpId};
use rustix::fs::{Advice, fadvise};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Operations submitted and not yet collected, at most.
pub const OPERATIONS_IN_FLIGHT_MAX: usize = 4096;

/// Bytes in the operations submitted and not yet collected, at most; a single larger one is taken when it is alone.
pub const BYTES_IN_FLIGHT_MAX: usize = 256 << 20;

/// Up to this length a read is first tried on the caller's thread: copying it costs less than handing it to another thread.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Reserved files up to this length are filled with real zeroes, so that later writes change no metadata and a durable
/// one is a single device write. Longer ones are allocated only: filling them would take too long.
const ZERO_FILL_BYTES_MAX: u64 = 1 << 30;

/// Reads that miss the page cache and wait at the same time.
const READERS: usize = 4;
/// Buffered writes and punches at the same time.
const WRITERS: usize = 2;
/// Syncs at the same time; apart from all else, since one may take long.
const SYNCERS: usize = 2;
/// Durable writes at the same time: the volumes' journal, kvdb's, and superblocks beside them.
const DURABLE_WRITERS: usize = 3;

/// The files below one folder. Small reads that the page cache holds complete within `submit`, everything else on
/// worker threads. Dropped, it waits for what the workers have begun; what was queued behind that is not done.
pub struct FileDisk {
    root: PathBuf,
    files: BTreeMap<FileId, (PathBuf, Arc<OpenFile>)>,
    file_next: u32,
    operations_in_flight: usize,
    bytes_in_flight: usize,
    completions: Arc<Completions>,
    readers: Workers,
    writers: Workers,
    syncers: Workers,
    durable_writers: Workers,
}

impl FileDisk {
    /// Opens (or makes) the folder `root`, removes what a crash left half made or half removed in it, and starts the
    /// worker threads. `waker` is called, from any thread and from within `submit` too, when the first completion
    /// after a call of `completed` is ready; it must not block and must not call the disk.
    ///
    /// # Errors
    /// What the file system said, or that no thread could be started.
    pub fn open(root: &Path, waker: Arc<dyn Fn() + Send + Sync>) -> io::Result<FileDisk> {
        std::fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        folders::sweep(&root)?;
        let completions = Arc::new(Completions::new(waker));
        Ok(FileDisk {
            root,
            files: BTreeMap::new(),
            file_next: 1,
            operations_in_flight: 0,
            bytes_in_flight: 0,
            readers: Workers::start("disk-read", READERS, &completions)?,
            writers: Workers::start("disk-write", WRITERS, &completions)?,
            syncers: Workers::start("disk-sync", SYNCERS, &completions)?,
            durable_writers: Workers::start("disk-durable", DURABLE_WRITERS, &completions)?,
            completions,
        })
    }

    fn file(&self, file: FileId) -> io::Result<&Arc<OpenFile>> {
        match self.files.get(&file) {
            Some((_, open)) => Ok(open),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("file {} is not open: it was removed", file.0),
            )),
        }
    }

    /// One id for one file, however often it is opened, since a durable write covers all that was written to the file before.
    fn open_path(&mut self, path: PathBuf) -> io::Result<FileId> {
        if let Some((id, _)) = self.files.iter().find(|(_, (open, _))| *open == path) {
            return Ok(*id);
        }
        let open = Arc::new(OpenFile::open(&path)?);
        let id = FileId(self.file_next);
        self.file_next = self
            .file_next
            .checked_add(1)
            .expect("files are opened fewer than 2^32 times");
        self.files.insert(id, (path, open));
        Ok(id)
    }

    /// Tries the operation on this thread where that can't wait; gives back what a worker has to do.
    fn attempt(file: &OpenFile, op: DiskOp) -> io::Result<Result<Done, Work>> {
        let work = match op {
            DiskOp::Read { offset, length, .. } => {
                if length <= INLINE_BYTES_MAX {
                    let mut bytes = vec![0; length];
                    if let Attempt::Finished(()) = file.read_cached(offset, &mut bytes)? {
                        return Ok(Ok(Done::Read(bytes.into())));
                    }
                }
                Work::Read { offset, length }
            }
            DiskOp::Write {
                offset,
                parts,
                durable: true,
                ..
            } => Work::WriteDurably { offset, parts },
            DiskOp::Write {
                offset,
                parts,
                durable: false,
                ..
            } => {
                let length: usize = parts.iter().map(Bytes::len).sum();
                if length <= INLINE_BYTES_MAX
                    && let Attempt::Finished(()) = file.write_cached(offset, &parts)?
                {
                    return Ok(Ok(Done::Finished));
                }
                Work::Write { offset, parts }
            }
            DiskOp::Sync { .. } => Work::Sync,
            DiskOp::Punch { offset, length, .. } => Work::Punch { offset, length },
        };
        Ok(Err(work))
    }

    fn workers_for(&self, work: &Work) -> &Workers {
        match work {
            Work::Read { .. } => &self.readers,
            Work::Write { .. } | Work::Punch { .. } => &self.writers,
            Work::Sync => &self.syncers,
            Work::WriteDurably { .. } => &self.durable_writers,
        }
    }
}

impl Disk for FileDisk {
    fn open(&mut self, path: &str) -> io::Result<FileId> {
        let path = folders::below(&self.root, path)?;
        self.open_path(path)
    }

    fn create(&mut self, path: &str, bytes: u64, reserve: bool) -> io::Result<FileId> {
        let path = folders::below(&self.root, path)?;
        folders::create_whole(&self.root, &path, |file| fill(file, bytes, reserve))?;
        self.open_path(path)
    }

    fn resize(&mut self, file: FileId, bytes: u64, reserve: bool) -> io::Result<()> {
        self.file(file)?.resize(bytes, reserve)
    }

    fn reserve(&mut self, file: FileId, offset: u64, bytes: u64) -> io::Result<()> {
        self.file(file)?.reserve(offset, bytes)
    }

    fn length(&mut self, file: FileId) -> io::Result<u64> {
        self.file(file)?.length()
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        let path = folders::below(&self.root, path)?;
        folders::remove_whole(&path)?;
        self.files.retain(|_, (open, _)| !open.starts_with(&path));
        Ok(())
    }

    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        if folder.is_empty() {
            return folders::names(&self.root);
        }
        folders::names(&folders::below(&self.root, folder)?)
    }

    fn read_now(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file(file)?.read(offset, buffer)
    }

    fn write_now(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        let file = self.file(file)?;
        file.write(offset, &[Bytes::copy_from_slice(data)])?;
        file.sync()
    }

    fn submit(&mut self, id: OpId, op: DiskOp) -> Result<(), DiskBusy> {
        let (file, bytes) = match &op {
            DiskOp::Read { file, length, .. } => (*file, *length),
            DiskOp::Write { file, parts, .. } => (*file, parts.iter().map(Bytes::len).sum()),
            DiskOp::Sync { file } | DiskOp::Punch { file, .. } => (*file, 0),
        };
        let too_large = bytes > BYTES_IN_FLIGHT_MAX.saturating_sub(self.bytes_in_flight);
        if self.operations_in_flight >= OPERATIONS_IN_FLIGHT_MAX
            || (too_large && self.bytes_in_flight > 0)
        {
            return Err(DiskBusy);
        }
        self.operations_in_flight += 1;
        self.bytes_in_flight += bytes;
        let attempt = self
            .file(file)
            .cloned()
            .and_then(|open| Ok((FileDisk::attempt(&open, op)?, open)));
        match attempt {
            Ok((Err(work), file)) => self.workers_for(&work).push(Job {
                id,
                bytes,
                file,
                work,
            }),
            Ok((Ok(done), _)) => self.completions.push(Completion {
                id,
                bytes,
                result: Ok(done),
            }),
            Err(error) => self.completions.push(Completion {
                id,
                bytes,
                result: Err(error),
            }),
        }
        Ok(())
    }

    fn completed(&mut self, out: &mut Vec<(OpId, io::Result<Done>)>) {
        for completion in self.completions.take() {
            assert!(
                self.operations_in_flight > 0,
                "{:?} completed, but none is in flight",
                completion.id
            );
            self.operations_in_flight -= 1;
            self.bytes_in_flight -= completion.bytes;
            out.push((completion.id, completion.result));
        }
    }
}

/// Gives a new file its length, and its space when that is asked for.
fn fill(file: &File, bytes: u64, reserve: bool) -> io::Result<()> {
    if !reserve || bytes == 0 {
        return file.set_len(bytes);
    }
    reserve_space(file, 0, bytes)?;
    if bytes <= ZERO_FILL_BYTES_MAX {
        write_zeroes(file, 0, bytes)?;
        file.sync_data()?;
        // Direct writes would have to throw each of these pages out one by one.
        fadvise(file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

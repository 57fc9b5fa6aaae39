//! [`FileDisk`]: the files of one data directory as the [`Disk`] of a host.

use crate::aligned::AlignedBuffer;
use crate::folders;
use crate::lone::{LONE_BYTES_MAX, Lone};
use crate::open_file::{Attempt, OpenFile, reserve_space, write_zeroes};
use crate::ring::{Collected, Ring};
use crate::workers::{Completion, Completions, Job, Work, Workers};
use bytes::Bytes;
use isthmus_journal::{Disk, DiskBusy, DiskOp, Done, FileId, OpId};
use rustix::fs::{Advice, fadvise};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Operations submitted and not yet collected, at most.
pub const OPERATIONS_IN_FLIGHT_MAX: usize = 4096;

/// Bytes in the operations submitted and not yet collected, at most; a single larger one is taken when it is alone.
pub const BYTES_IN_FLIGHT_MAX: usize = 256 << 20;

/// Up to this length a read is first tried on the caller's thread: copying it costs less than handing it to another thread.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Reserved files up to this length are filled with real zeroes, so that later writes change no metadata and a durable
/// one is a single device write. Longer ones are allocated only: filling them would take too long.
const ZERO_FILL_BYTES_MAX: u64 = 1 << 30;

/// Writes kept back at most, and their bytes.
const KEPT_BACK_MAX: usize = 32;
const KEPT_BACK_BYTES_MAX: usize = 256 << 10;

/// Reads that miss the page cache and wait at the same time.
const READERS: usize = 4;
/// Buffered writes and punches at the same time.
const WRITERS: usize = 2;
/// Syncs at the same time; apart from all else, since one may take long: two of a checkpoint, and the journal's beside them, for which
/// clients may wait.
const SYNCERS: usize = 4;
/// Durable writes at the same time: the volumes' journal, kvdb's, and superblocks beside them.
const DURABLE_WRITERS: usize = 3;

/// The files below one folder. Small reads that the page cache holds complete within `submit`, everything else on
/// worker threads. Dropped, it waits for what the workers have begun; what was queued behind that is not done.
pub struct FileDisk {
    root: PathBuf,
    files: BTreeMap<FileId, Arc<OpenFile>>,
    /// The same files by their paths.
    by_path: BTreeMap<PathBuf, FileId>,
    file_next: u32,
    operations_in_flight: usize,
    bytes_in_flight: usize,
    completions: Arc<Completions>,
    readers: Workers,
    writers: Workers,
    syncers: Workers,
    durable_writers: Workers,
    /// Takes durable writes instead of a worker, where it can.
    ring: Option<Ring>,
    /// Durable writes that wait for [`FileDisk::start`].
    to_start: Vec<Job>,
    lone: Lone,
    buffer: AlignedBuffer,
    keeps_back: bool,
    kept_back: Vec<Job>,
    kept_back_bytes: usize,
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
            by_path: BTreeMap::new(),
            file_next: 1,
            operations_in_flight: 0,
            bytes_in_flight: 0,
            readers: Workers::start("disk-read", READERS, 1, &completions)?,
            writers: Workers::start("disk-write", WRITERS, KEPT_BACK_MAX, &completions)?,
            syncers: Workers::start("disk-sync", SYNCERS, 1, &completions)?,
            durable_writers: Workers::start("disk-durable", DURABLE_WRITERS, 1, &completions)?,
            completions,
            ring: None,
            to_start: Vec::new(),
            lone: Lone::new(),
            buffer: AlignedBuffer::default(),
            keeps_back: false,
            kept_back: Vec::new(),
            kept_back_bytes: 0,
        })
    }

    /// Has durable writes done without threads from now on, where the kernel lets it: gives a descriptor that becomes readable as they
    /// complete, of which the waker says nothing. They are begun by [`FileDisk::start`]. To be called at most once; the disk must then
    /// be used by one thread, as long as that lives.
    ///
    /// # Errors
    /// Why there is no `io_uring` for this process (containers often forbid it): nothing has changed then.
    pub fn do_without_threads(&mut self) -> io::Result<OwnedFd> {
        let ring = Ring::new()?;
        let descriptor = ring.as_fd().try_clone_to_owned()?;
        self.ring = Some(ring);
        Ok(descriptor)
    }

    /// Whether [`FileDisk::start`] has something to do.
    pub fn is_to_start(&mut self) -> bool {
        !self.to_start.is_empty() || self.ring.as_mut().is_some_and(Ring::is_to_start)
    }

    /// Begins the durable writes that were submitted. It may take a while (a device that is told costs a virtual machine some 60 us), so
    /// whoever has something to send does that first. Where short writes come one by one and the device is quick, it waits until the
    /// write is done; with `busy`, because the caller knows of something else to do, it does not.
    pub fn start(&mut self, busy: bool) {
        let alone = self.to_start.len() == 1 && self.ring.as_ref().is_some_and(Ring::is_idle);
        let short = |job: &Job| job.bytes <= LONE_BYTES_MAX && job.can_be_direct();
        if self.to_start.is_empty() {
            // Only what the kernel did not take before.
        } else if !alone || !self.to_start.iter().all(short) {
            self.lone.crowd();
        } else if self.lone.is_to_be_waited_for() && !busy {
            return self.wait_for_it();
        }
        for job in std::mem::take(&mut self.to_start) {
            self.hand_to_ring(job);
        }
        if let Some(ring) = &mut self.ring {
            ring.start();
        }
    }

    /// Does the one write that is to start.
    fn wait_for_it(&mut self) {
        let Some(job) = self.to_start.pop() else {
            return;
        };
        let start = Instant::now();
        let completion = job.run(&mut self.buffer);
        self.lone.took(start.elapsed());
        self.completions.push(completion);
    }

    fn hand_to_ring(&mut self, job: Job) {
        let refused = match (&mut self.ring, job) {
            (
                Some(ring),
                Job {
                    id,
                    bytes,
                    file,
                    work: Work::WriteDurably { offset, parts },
                },
            ) => ring.write(id, bytes, file, offset, parts).err(),
            (_, job) => Some(job),
        };
        if let Some(job) = refused {
            self.hand_to_worker(job);
        }
    }

    /// Keeps writes that need not be durable back from now on, until there are some, or [`Disk::hurry`] is called: to wake a thread
    /// costs more than such a write, and nobody waits for it.
    pub fn keep_writes_back(&mut self) {
        self.keeps_back = true;
    }

    /// Whether writes are kept back.
    #[must_use]
    pub fn has_kept_back(&self) -> bool {
        !self.kept_back.is_empty()
    }

    fn keep_back(&mut self, job: Job) {
        self.kept_back_bytes += job.bytes;
        self.kept_back.push(job);
        if self.kept_back.len() >= KEPT_BACK_MAX || self.kept_back_bytes >= KEPT_BACK_BYTES_MAX {
            self.hurry();
        }
    }

    fn hand_to_worker(&self, job: Job) {
        self.workers_for(&job.work).push([job]);
    }

    fn hand_over(&mut self, job: Job) {
        if self.keeps_back && matches!(job.work, Work::Write { .. }) {
            return self.keep_back(job);
        }
        if matches!(job.work, Work::Sync | Work::Punch { .. }) {
            self.hurry();
        }
        if self.ring.is_some() && matches!(job.work, Work::WriteDurably { .. }) {
            self.to_start.push(job);
        } else {
            self.hand_to_worker(job);
        }
    }

    fn account(&mut self, completion: Completion, out: &mut Vec<(OpId, io::Result<Done>)>) {
        assert!(
            self.operations_in_flight > 0,
            "{:?} completed, but none is in flight",
            completion.id
        );
        self.operations_in_flight -= 1;
        self.bytes_in_flight -= completion.bytes;
        out.push((completion.id, completion.result));
    }

    fn file(&self, file: FileId) -> io::Result<&Arc<OpenFile>> {
        match self.files.get(&file) {
            Some(open) => Ok(open),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("file {} is not open: it was removed", file.0),
            )),
        }
    }

    /// One id for one file, however often it is opened, since a durable write covers all that was written to the file before.
    fn open_path(&mut self, path: PathBuf) -> io::Result<FileId> {
        if let Some(id) = self.by_path.get(&path) {
            return Ok(*id);
        }
        let open = Arc::new(OpenFile::open(&path)?);
        let id = FileId(self.file_next);
        self.file_next = self
            .file_next
            .checked_add(1)
            .expect("files are opened fewer than 2^32 times");
        self.files.insert(id, open);
        self.by_path.insert(path, id);
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
        // Paths are in the order of their components: what is below a folder comes right behind it.
        let below = self
            .by_path
            .range::<Path, _>((Bound::Included(path.as_path()), Bound::Unbounded));
        let below = below.take_while(|(open, _)| open.starts_with(&path));
        let below: Vec<PathBuf> = below.map(|(open, _)| open.clone()).collect();
        let ids = below.iter().filter_map(|open| self.by_path.remove(open));
        let gone: Vec<Arc<OpenFile>> = ids.filter_map(|id| self.files.remove(&id)).collect();
        // The last to close a file that was removed gives its space back, which takes long for a large one.
        let closing = std::thread::Builder::new().name("disk-close".into());
        closing.spawn(move || drop(gone)).map(drop)
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
            Ok((Err(work), file)) => self.hand_over(Job {
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

    /// On the caller's thread: the bytes only go to the page cache, which takes a few microseconds, where a hand-over takes ten times as
    /// long. Many of them are a worker's, which is begun at once.
    fn submit_held(
        &mut self,
        id: OpId,
        file: FileId,
        offset: u64,
        parts: Vec<Bytes>,
    ) -> Result<(), DiskBusy> {
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let too_large = bytes > BYTES_IN_FLIGHT_MAX.saturating_sub(self.bytes_in_flight);
        if self.operations_in_flight >= OPERATIONS_IN_FLIGHT_MAX
            || (too_large && self.bytes_in_flight > 0)
        {
            return Err(DiskBusy);
        }
        self.operations_in_flight += 1;
        self.bytes_in_flight += bytes;
        let result = match self.file(file).cloned() {
            Ok(file) if bytes > INLINE_BYTES_MAX => {
                let work = Work::Write { offset, parts };
                self.hand_to_worker(Job {
                    id,
                    bytes,
                    file,
                    work,
                });
                return Ok(());
            }
            Ok(file) => file.write(offset, &parts).map(|()| Done::Finished),
            Err(error) => Err(error),
        };
        self.completions.push(Completion { id, bytes, result });
        Ok(())
    }

    fn hurry(&mut self) {
        self.kept_back_bytes = 0;
        self.writers.push(self.kept_back.drain(..));
    }

    fn completed(&mut self, out: &mut Vec<(OpId, io::Result<Done>)>) {
        let mut collected = Vec::new();
        if let Some(ring) = &mut self.ring {
            ring.collect(|write| collected.push(write));
        }
        for write in collected {
            match write {
                Collected::Over(completion) => self.account(completion, out),
                Collected::ForWorker(job) => self.hand_to_worker(job),
            }
        }
        for completion in self.completions.take() {
            self.account(completion, out);
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

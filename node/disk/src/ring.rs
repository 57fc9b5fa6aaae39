//! Durable writes without a thread: handed to the kernel, and collected from it, by `io_uring`.
//!
//! A worker thread costs two hand-overs a write, each of which may have to wake a sleeping processor. Here the caller hands the write in
//! with one system call, and sees its end in the same wait in which it sees its sockets.

use crate::aligned::AlignedBuffer;
use crate::open_file::OpenFile;
use crate::workers::{Completion, Job, Work};
use bytes::Bytes;
use io_uring::{IoUring, opcode, types};
use isthmus_journal::{Done, OpId};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

/// Writes in flight at most: more than a journal and a checkpoint have at a time. What comes beyond goes to a worker.
const WRITES_MAX: u32 = 64;
/// Buffers kept for later writes.
const BUFFERS_KEPT: usize = 8;

/// A write that the kernel has. It reads the buffer's memory until the write is collected.
struct InFlight {
    id: OpId,
    bytes: usize,
    file: Arc<OpenFile>,
    offset: u64,
    parts: Vec<Bytes>,
    buffer: AlignedBuffer,
    length: usize,
    /// Buffered changes of the file that had completed when it was submitted.
    changed_before: u64,
}

impl InFlight {
    fn into_job(self) -> Job {
        Job {
            id: self.id,
            bytes: self.bytes,
            file: self.file,
            work: Work::WriteDurably {
                offset: self.offset,
                parts: self.parts,
            },
        }
    }
}

/// What became of a write.
pub(crate) enum Collected {
    /// It is over.
    Over(Completion),
    /// A worker has to do it: the kernel won't write so, or more than the write has to be made durable.
    ForWorker(Job),
}

/// Writes at the kernel. Dropped, it waits for them.
pub(crate) struct Ring {
    ring: IoUring,
    in_flight: BTreeMap<u64, InFlight>,
    buffers: Vec<AlignedBuffer>,
}

impl Ring {
    /// Sets a ring up.
    ///
    /// # Errors
    /// Where the kernel has none, or doesn't let this process have one.
    pub(crate) fn new() -> io::Result<Ring> {
        // Without it, each completion would interrupt a thread that will look for it anyway.
        let cooperative = IoUring::builder()
            .setup_coop_taskrun()
            .setup_clamp()
            .build(WRITES_MAX);
        let mut ring = cooperative.or_else(|_| IoUring::new(WRITES_MAX))?;
        // Some profiles let a process have a ring and not use it.
        let probe = opcode::Nop::new().build();
        // SAFETY: it refers to no memory.
        if unsafe { ring.submission().push(&probe) }.is_err() {
            return Err(io::Error::other("a new ring is full"));
        }
        ring.submit_and_wait(1)?;
        if ring.completion().next().is_none() {
            return Err(io::Error::other("a ring completes nothing"));
        }
        Ok(Ring {
            ring,
            in_flight: BTreeMap::new(),
            buffers: Vec::new(),
        })
    }

    /// Takes a durable write, to be begun by [`Ring::start`]; gives it back where a worker has to do it.
    pub(crate) fn write(
        &mut self,
        id: OpId,
        bytes: usize,
        file: Arc<OpenFile>,
        offset: u64,
        parts: Vec<Bytes>,
    ) -> Result<(), Job> {
        let length: usize = parts.iter().map(Bytes::len).sum();
        let fits = u32::try_from(length).ok();
        let mut write = InFlight {
            id,
            bytes,
            offset,
            parts,
            length,
            changed_before: file.changed(),
            buffer: AlignedBuffer::default(),
            file,
        };
        let Some(direct) = write.file.direct_for(offset, length) else {
            return Err(write.into_job());
        };
        let Some(count) = fits.filter(|_| self.in_flight.len() < WRITES_MAX as usize) else {
            return Err(write.into_job());
        };
        let descriptor = types::Fd(direct.as_raw_fd());
        write.buffer = self.buffers.pop().unwrap_or_default();
        let gathered = write.buffer.gather(&write.parts).as_ptr();
        let entry = opcode::Write::new(descriptor, gathered, count)
            .offset(offset)
            .build()
            .user_data(id.0);
        // SAFETY: the memory and the file are owned by `write`, which stays in `in_flight`, with its buffer untouched and in place (a
        // move of the owner doesn't move what it owns), until the kernel has said that the write is over.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            return Err(write.into_job());
        }
        self.in_flight.insert(id.0, write);
        Ok(())
    }

    /// Whether it has no write.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether [`Ring::start`] has something to do.
    pub(crate) fn is_to_start(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Lets the kernel begin. What it doesn't take (it was interrupted, or is short of memory) goes with the next call.
    pub(crate) fn start(&mut self) {
        if let Err(error) = self.ring.submit() {
            tracing::debug!(%error, "the kernel takes writes later");
        }
    }

    /// Hands all writes that are over to `each`.
    pub(crate) fn collect(&mut self, mut each: impl FnMut(Collected)) {
        if self.in_flight.is_empty() {
            return;
        }
        for entry in self.ring.completion() {
            let write = self.in_flight.remove(&entry.user_data());
            let mut write = write.expect("the kernel ends each write once");
            let buffer = std::mem::take(&mut write.buffer);
            if self.buffers.len() < BUFFERS_KEPT {
                self.buffers.push(buffer);
            }
            each(judge(write, entry.result()));
        }
    }
}

fn judge(write: InFlight, result: i32) -> Collected {
    let over = |write: InFlight, result| {
        Collected::Over(Completion {
            id: write.id,
            bytes: write.bytes,
            result,
        })
    };
    match usize::try_from(result) {
        Ok(count) if count == write.length && write.file.is_synced(write.changed_before) => {
            match write.file.check_syncs() {
                Ok(()) => over(write, Ok(Done::Finished)),
                Err(error) => over(write, Err(error)),
            }
        }
        // Short, or not alone: again, as a whole.
        Ok(_) => Collected::ForWorker(write.into_job()),
        Err(_) => match Errno::from_raw_os_error(result.saturating_neg()) {
            Errno::INVAL | Errno::OPNOTSUPP => {
                write.file.give_direct_up();
                Collected::ForWorker(write.into_job())
            }
            // Not begun: the kernel was short of something (of a thread, where it is cancelled).
            Errno::AGAIN | Errno::INTR | Errno::CANCELED => Collected::ForWorker(write.into_job()),
            errno => over(write, Err(errno.into())),
        },
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the ring's, which the borrow keeps.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while !self.in_flight.is_empty() {
            if let Err(error) = self.ring.submit_and_wait(1)
                && error.kind() != io::ErrorKind::Interrupted
            {
                // The kernel may still read the memory of what is in flight: it is left to it.
                std::mem::forget(std::mem::take(&mut self.in_flight));
                return;
            }
            self.collect(|_| {});
        }
    }
}

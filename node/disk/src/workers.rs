//! The threads that wait for the device so that the disk's caller doesn't: a queue and a few threads for each kind of
//! operation, and the list of completions that they fill.

use crate::aligned::AlignedBuffer;
use crate::open_file::OpenFile;
use bytes::Bytes;
use isthmus_journal::{Done, OpId};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Wakes the disk's caller: completions are ready to be collected.
pub(crate) type Waker = Arc<dyn Fn() + Send + Sync>;

/// An operation that has its file and is on its way to a worker.
pub(crate) enum Work {
    Read { offset: u64, length: usize },
    Write { offset: u64, parts: Vec<Bytes> },
    WriteDurably { offset: u64, parts: Vec<Bytes> },
    Sync,
    Punch { offset: u64, length: u64 },
}

impl Work {
    fn run(self, file: &OpenFile, buffer: &mut AlignedBuffer) -> io::Result<Done> {
        match self {
            Work::Read { offset, length } => {
                let mut bytes = vec![0; length];
                file.read(offset, &mut bytes)?;
                Ok(Done::Read(bytes.into()))
            }
            Work::Write { offset, parts } => file.write(offset, &parts).map(|()| Done::Finished),
            Work::WriteDurably { offset, parts } => file
                .write_durably(offset, &parts, buffer)
                .map(|()| Done::Finished),
            Work::Sync => file.sync().map(|()| Done::Finished),
            Work::Punch { offset, length } => file.punch(offset, length).map(|()| Done::Finished),
        }
    }
}

/// What came of an operation, and how many bytes of memory it counted for while it was in flight.
pub(crate) struct Completion {
    pub(crate) id: OpId,
    pub(crate) bytes: usize,
    pub(crate) result: io::Result<Done>,
}

/// Completions that wait for their collection.
pub(crate) struct Completions {
    list: Mutex<Vec<Completion>>,
    waker: Waker,
}

impl Completions {
    pub(crate) fn new(waker: Waker) -> Completions {
        Completions {
            list: Mutex::new(Vec::new()),
            waker,
        }
    }

    /// Adds one. The caller is woken by the first after a collection only: it collects all there are.
    pub(crate) fn push(&self, completion: Completion) {
        let mut list = self.list.lock();
        let first = list.is_empty();
        list.push(completion);
        drop(list);
        if first {
            (self.waker)();
        }
    }

    /// Adds some, and leaves none behind.
    fn push_all(&self, completions: &mut Vec<Completion>) {
        let mut list = self.list.lock();
        let first = list.is_empty() && !completions.is_empty();
        list.append(completions);
        drop(list);
        if first {
            (self.waker)();
        }
    }

    /// Takes all that are there.
    pub(crate) fn take(&self) -> Vec<Completion> {
        mem::take(&mut *self.list.lock())
    }
}

/// An operation in a queue.
pub(crate) struct Job {
    pub(crate) id: OpId,
    pub(crate) bytes: usize,
    pub(crate) file: Arc<OpenFile>,
    pub(crate) work: Work,
}

impl Job {
    /// Whether it is a write for which the kernel needs no page cache, as far as is known.
    pub(crate) fn can_be_direct(&self) -> bool {
        match self.work {
            Work::WriteDurably { offset, .. } => self.file.direct_for(offset, self.bytes).is_some(),
            _ => false,
        }
    }

    /// Does it on this thread.
    pub(crate) fn run(self, buffer: &mut AlignedBuffer) -> Completion {
        Completion {
            id: self.id,
            bytes: self.bytes,
            result: self.work.run(&self.file, buffer),
        }
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stopping: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// Jobs that may be done before the first of them is said to be done, while there are more.
    together: usize,
    completions: Arc<Completions>,
}

/// Threads for one kind of operation. Dropped, it lets each thread finish what it has begun, and waits for them; what
/// is still queued is not done.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(
        name: &str,
        threads: usize,
        together: usize,
        completions: &Arc<Completions>,
    ) -> io::Result<Workers> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::default()),
            filled: Condvar::new(),
            together,
            completions: Arc::clone(completions),
        });
        let mut workers = Workers {
            shared,
            threads: Vec::new(),
        };
        for number in 0..threads {
            let shared = Arc::clone(&workers.shared);
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || work(&shared))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Queues jobs. The bound on what may be queued is the disk's bound on operations in flight.
    pub(crate) fn push(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut queue = self.shared.queue.lock();
        queue.jobs.extend(jobs);
        let any = !queue.jobs.is_empty();
        drop(queue);
        if any {
            self.shared.filled.notify_one();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.stopping = true;
        queue.jobs.clear();
        drop(queue);
        self.shared.filled.notify_all();
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so on its own; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared) {
    let mut buffer = AlignedBuffer::default();
    let mut done = Vec::new();
    loop {
        let mut queue = shared.queue.lock();
        let job = loop {
            if queue.stopping {
                return;
            }
            match queue.jobs.pop_front() {
                Some(job) => break job,
                None if done.is_empty() => shared.filled.wait(&mut queue),
                None => MutexGuard::unlocked(&mut queue, || shared.completions.push_all(&mut done)),
            }
        };
        drop(queue);
        done.push(job.run(&mut buffer));
        if done.len() >= shared.together {
            shared.completions.push_all(&mut done);
        }
    }
}

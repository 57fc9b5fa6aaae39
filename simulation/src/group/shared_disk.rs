//! A member's disk: it outlives the process, and a task of the process can wait for it.

use isthmus_journal::{Disk, DiskBusy, DiskOp, Done, FileId, OpId};
use isthmus_kvdb::AwaitedDisk;
use isthmus_simulated_disk::SimulatedDisk;
use parking_lot::Mutex;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Poll, Waker};

/// A simulated disk. Clones are the same one.
#[derive(Clone, Debug)]
pub struct SharedDisk(Arc<Mutex<Inside>>);

#[derive(Debug)]
struct Inside {
    disk: SimulatedDisk,
    has_news: bool,
    waiting: Option<Waker>,
}

impl SharedDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> SharedDisk {
        SharedDisk(Arc::new(Mutex::new(Inside {
            disk: SimulatedDisk::new(seed),
            has_news: false,
            waiting: None,
        })))
    }

    /// When the next operation completes, by true time.
    #[must_use]
    pub fn next_event(&self) -> Option<u64> {
        self.0.lock().disk.next_event()
    }

    /// Lets true time pass; who waits for a completion goes on.
    pub fn advance(&self, now: u64) {
        let waker = {
            let mut inside = self.0.lock();
            let has_news = inside.disk.next_event().is_some_and(|at| at <= now);
            inside.disk.advance(now);
            inside.has_news |= has_news;
            inside.waiting.take_if(|_| has_news)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The process is gone; with `power_lost` also what no sync covered.
    pub fn abandon(&self, power_lost: bool) {
        let mut inside = self.0.lock();
        if power_lost {
            inside.disk.crash();
        } else {
            inside.disk.reopen();
        }
        inside.has_news = false;
        inside.waiting = None;
    }

    /// Makes operations take `factor` times as long from now on.
    pub fn set_slowness(&self, factor: u64) {
        self.0.lock().disk.set_slowness(factor);
    }
}

impl AwaitedDisk for SharedDisk {
    async fn wait(&mut self) {
        poll_fn(|context| {
            let mut inside = self.0.lock();
            if std::mem::take(&mut inside.has_news) {
                return Poll::Ready(());
            }
            inside.waiting = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Disk for SharedDisk {
    fn open(&mut self, path: &str) -> io::Result<FileId> {
        self.0.lock().disk.open(path)
    }
    fn create(&mut self, path: &str, bytes: u64, reserve: bool) -> io::Result<FileId> {
        self.0.lock().disk.create(path, bytes, reserve)
    }
    fn resize(&mut self, file: FileId, bytes: u64, reserve: bool) -> io::Result<()> {
        self.0.lock().disk.resize(file, bytes, reserve)
    }

    fn reserve(&mut self, file: FileId, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.lock().disk.reserve(file, offset, bytes)
    }
    fn length(&mut self, file: FileId) -> io::Result<u64> {
        self.0.lock().disk.length(file)
    }
    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.0.lock().disk.remove(path)
    }
    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        self.0.lock().disk.list(folder)
    }
    fn read_now(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.lock().disk.read_now(file, offset, buffer)
    }
    fn write_now(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().disk.write_now(file, offset, data)
    }
    fn submit(&mut self, id: OpId, op: DiskOp) -> Result<(), DiskBusy> {
        self.0.lock().disk.submit(id, op)
    }
    fn completed(&mut self, out: &mut Vec<(OpId, io::Result<Done>)>) {
        self.0.lock().disk.completed(out);
    }
}

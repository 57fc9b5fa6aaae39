//! Who owns the disk, and calls the writer: a thread in what ships, a task in the simulator.

use isthmus_journal::Disk;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::blocking::Blocking;
use super::records::Record;
use super::snapshots::StoredSnapshot;
use super::writer::{BATCH_MAX, Flushed, Recovered, Work, Writer};
use crate::error::KvdbError;
use crate::runtime::{
    self, MpscReceiver as _, MpscSender as _, OneshotSender as _, OneshotSenderOf, ReceiverOf,
    Runtime, SenderOf,
};

/// Pieces of work that may wait; more have to wait before they are taken.
const WORK_MAX: usize = 1024;

/// What the owner is asked to do.
enum Errand<R: Runtime> {
    Write(Work<R>),
    Stop(OneshotSenderOf<R, ()>),
}

/// The way to the owner, who ends when this and its clones are dropped, or when told to.
pub(crate) struct Storage<R: Runtime> {
    errands: SenderOf<R, Errand<R>>,
}

impl<R: Runtime> Clone for Storage<R> {
    fn clone(&self) -> Storage<R> {
        Storage {
            errands: self.errands.clone(),
        }
    }
}

fn has_ended<E>(_: E) -> io::Error {
    io::Error::other("kvdb's disk is not served any more")
}

impl<R: Runtime> Storage<R> {
    /// Lets `own` begin the owner, who opens the store first.
    ///
    /// # Errors
    /// `Store`, when the store is not there, damaged, or can't be read.
    pub(crate) async fn start(
        folder: String,
        own: impl FnOnce(DiskOwner<R>) -> io::Result<()> + Send,
    ) -> Result<(Storage<R>, Recovered), KvdbError> {
        let (errands, queue) = runtime::mpsc::<R, _>(WORK_MAX);
        let (opened, is_opened) = runtime::oneshot::<R, _>();
        let owner = DiskOwner {
            folder,
            queue,
            opened: Some(opened),
            stopped: None,
        };
        own(owner).map_err(|error| KvdbError::Store(error.to_string()))?;
        let gone = |_| KvdbError::Store("nobody owns its disk".to_owned());
        let recovered = is_opened.await.map_err(gone)??;
        Ok((Storage { errands }, recovered))
    }

    /// Hands over records; who is to hear of it hears when they are durable.
    pub(crate) async fn append(&self, records: Vec<Record>, flushed: Flushed<R>) -> io::Result<()> {
        let errand = Errand::Write(Work::Records { records, flushed });
        self.errands.send(errand).await.map_err(has_ended)
    }

    /// Writes records; they are durable on return.
    pub(crate) async fn append_durably(&self, records: Vec<Record>) -> io::Result<()> {
        let (waiting, flushed) = runtime::oneshot::<R, _>();
        self.append(records, Flushed::Waiting(waiting)).await?;
        flushed.await.map_err(has_ended)?
    }

    /// Writes a snapshot; it is durable on return.
    pub(crate) async fn write_snapshot(&self, snapshot: StoredSnapshot) -> io::Result<()> {
        let (done, written) = runtime::oneshot::<R, _>();
        let errand = Errand::Write(Work::Snapshot { snapshot, done });
        self.errands.send(errand).await.map_err(has_ended)?;
        written.await.map_err(has_ended)?
    }

    /// Ends the owner, and returns when the disk is given up. What is asked for afterwards fails.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = runtime::oneshot::<R, _>();
        if self.errands.send(Errand::Stop(done)).await.is_ok() {
            // An error says that the owner has ended already.
            drop(stopped.await);
        }
    }
}

/// A disk on which a task can wait.
pub trait AwaitedDisk: Disk + Send + 'static {
    /// Returns when the disk may have completed something that was not collected yet.
    fn wait(&mut self) -> impl Future<Output = ()> + Send;
}

/// The owner of kvdb's disk, about to begin.
pub struct DiskOwner<R: Runtime> {
    folder: String,
    queue: ReceiverOf<R, Errand<R>>,
    opened: Option<OneshotSenderOf<R, Result<Recovered, KvdbError>>>,
    /// Who waits for the end.
    stopped: Option<OneshotSenderOf<R, ()>>,
}

impl<R: Runtime> DiskOwner<R> {
    /// Owns the disk on a thread that does nothing else.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start_thread<D: Disk + Send + 'static>(self, disk: D) -> io::Result<()> {
        let thread = thread::Builder::new().name("kvdb-disk".to_owned());
        thread.spawn(move || self.run_blocking(disk)).map(drop)
    }

    fn run_blocking<D: Disk>(mut self, disk: D) {
        let mut disk = Blocking::new(disk);
        let Some(mut writer) = self.open(&mut disk) else {
            return;
        };
        while let Some(first) = block_on(self.queue.recv()) {
            let mut flow = self.take(first, &mut writer);
            while flow.is_continue()
                && writer.has_room()
                && let Ok(next) = self.queue.try_recv()
            {
                flow = self.take(next, &mut writer);
            }
            writer.step(&mut disk);
            assert!(writer.is_idle(), "a disk that blocks leaves nothing open");
            if flow.is_break() {
                break;
            }
        }
        self.give_up((writer, disk));
    }

    /// Owns the disk in the task that polls this.
    pub async fn run<D: AwaitedDisk>(mut self, mut disk: D) {
        let Some(mut writer) = self.open(&mut disk) else {
            return;
        };
        let mut flow = ControlFlow::Continue(());
        loop {
            while flow.is_continue()
                && writer.has_room()
                && let Ok(next) = self.queue.try_recv()
            {
                flow = self.take(next, &mut writer);
            }
            writer.step(&mut disk);
            if !writer.is_idle() {
                disk.wait().await;
            } else if flow.is_break() {
                break;
            } else if let Some(next) = self.queue.recv().await {
                flow = self.take(next, &mut writer);
            } else {
                break;
            }
        }
        self.give_up((writer, disk));
    }

    /// Opens the store, and tells; nothing, where it can't be opened or nobody wants it any more.
    fn open<D: Disk>(&mut self, disk: &mut D) -> Option<Writer<R>> {
        let opened = self.opened.take()?;
        match Writer::open(disk, &self.folder) {
            Ok((writer, recovered)) => opened.send(Ok(recovered)).is_ok().then_some(writer),
            Err(error) => {
                // Nobody may be waiting any more.
                drop(opened.send(Err(error)));
                None
            }
        }
    }

    fn take(&mut self, errand: Errand<R>, writer: &mut Writer<R>) -> ControlFlow<()> {
        match errand {
            Errand::Write(work) => {
                writer.push(work);
                ControlFlow::Continue(())
            }
            Errand::Stop(done) => {
                self.stopped = Some(done);
                ControlFlow::Break(())
            }
        }
    }

    fn give_up<T>(self, all: T) {
        drop(all);
        if let Some(stopped) = self.stopped {
            // Whoever asked may have gone away.
            let _ = stopped.send(());
        }
    }
}

const _: () = assert!(BATCH_MAX <= WORK_MAX, "a full batch can be waiting");

/// Waits for a channel on a thread of our own.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

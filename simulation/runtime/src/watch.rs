//! A watch channel that wakes its receivers in the order in which they were made.

use openraft::rt::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use openraft::{OptionalSend, OptionalSync};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

/// The channel's kind.
#[derive(Debug)]
pub struct SimulatedWatch;

struct Channel<T> {
    value: RwLock<T>,
    ends: Mutex<Ends>,
}

#[derive(Default)]
struct Ends {
    version: u64,
    senders: usize,
    receivers: usize,
    /// Receivers so far.
    named: u64,
    /// Of receivers that wait, by name.
    waiting: BTreeMap<u64, Waker>,
}

impl<T> Channel<T> {
    fn wake(&self) {
        let waiting = std::mem::take(&mut self.ends.lock().waiting);
        for waker in waiting.into_values() {
            waker.wake();
        }
    }

    fn has_changed(&self) {
        self.ends.lock().version += 1;
        self.wake();
    }

    fn receiver(self: &Arc<Self>, seen: Option<u64>) -> Receiver<T> {
        let mut ends = self.ends.lock();
        ends.receivers += 1;
        ends.named += 1;
        Receiver {
            name: ends.named,
            seen: seen.unwrap_or(ends.version),
            channel: Arc::clone(self),
        }
    }
}

/// Sets the value.
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.channel.ends.lock().senders += 1;
        Sender {
            channel: Arc::clone(&self.channel),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let is_last = {
            let mut ends = self.channel.ends.lock();
            ends.senders -= 1;
            ends.senders == 0
        };
        if is_last {
            self.channel.wake();
        }
    }
}

/// Sees the newest value.
pub struct Receiver<T> {
    name: u64,
    seen: u64,
    channel: Arc<Channel<T>>,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.channel.receiver(Some(self.seen))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut ends = self.channel.ends.lock();
        ends.receivers -= 1;
        ends.waiting.remove(&self.name);
    }
}

impl Watch for SimulatedWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(value: T) -> (Sender<T>, Receiver<T>) {
        let ends = Ends {
            senders: 1,
            ..Ends::default()
        };
        let channel = Arc::new(Channel {
            value: RwLock::new(value),
            ends: Mutex::new(ends),
        });
        let receiver = channel.receiver(None);
        (Sender { channel }, receiver)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<SimulatedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.channel.ends.lock().receivers == 0 {
            return Err(SendError(value));
        }
        let before = std::mem::replace(&mut *self.channel.value.write(), value);
        self.channel.has_changed();
        drop(before);
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let is_modified = modify(&mut self.channel.value.write());
        if is_modified {
            self.channel.has_changed();
        }
        is_modified
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.channel.value.read()
    }

    fn subscribe(&self) -> Receiver<T> {
        self.channel.receiver(None)
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<SimulatedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|context| {
            let mut ends = self.channel.ends.lock();
            if self.seen != ends.version {
                self.seen = ends.version;
                return Poll::Ready(Ok(()));
            }
            if ends.senders == 0 {
                return Poll::Ready(Err(RecvError(())));
            }
            ends.waiting.insert(self.name, context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.channel.value.read()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        self.seen = self.channel.ends.lock().version;
        self.channel.value.read()
    }
}

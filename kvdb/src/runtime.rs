//! The asynchronous runtime that kvdb runs on: openraft's `AsyncRuntime` and one question more. tokio is named here and nowhere
//! else: what ships runs on [`Tokio`], and the simulator runs the same code on an executor of its own.

use openraft::impls::TokioRuntime;
use openraft::rt::{AsyncRuntime, Mpsc, Oneshot, Watch};
use std::fmt::Debug;
use std::time::Duration;

pub(crate) use openraft::rt::{
    Instant, MpscReceiver, MpscSender, OneshotSender, WatchReceiver, WatchSender,
};

/// A runtime, as a name that costs nothing.
pub trait Runtime: Copy + Debug + Default + Ord + Send + Sync + 'static {
    /// Tasks, time, channels and random numbers.
    type Async: AsyncRuntime;

    /// Whether a task can be begun here and now: not while the runtime itself ends.
    fn is_running() -> bool;
}

/// tokio, on which kvdb ships.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tokio;

impl Runtime for Tokio {
    type Async = TokioRuntime;

    fn is_running() -> bool {
        tokio::runtime::Handle::try_current().is_ok()
    }
}

pub(crate) type InstantOf<R> = <<R as Runtime>::Async as AsyncRuntime>::Instant;
type MpscOf<R> = <<R as Runtime>::Async as AsyncRuntime>::Mpsc;
type OneshotOf<R> = <<R as Runtime>::Async as AsyncRuntime>::Oneshot;
type WatchOf<R> = <<R as Runtime>::Async as AsyncRuntime>::Watch;
pub(crate) type SenderOf<R, T> = <MpscOf<R> as Mpsc>::Sender<T>;
pub(crate) type ReceiverOf<R, T> = <MpscOf<R> as Mpsc>::Receiver<T>;
pub(crate) type OneshotSenderOf<R, T> = <OneshotOf<R> as Oneshot>::Sender<T>;
pub(crate) type OneshotReceiverOf<R, T> = <OneshotOf<R> as Oneshot>::Receiver<T>;
pub(crate) type WatchSenderOf<R, T> = <WatchOf<R> as Watch>::Sender<T>;
pub(crate) type WatchReceiverOf<R, T> = <WatchOf<R> as Watch>::Receiver<T>;

pub(crate) fn now<R: Runtime>() -> InstantOf<R> {
    <InstantOf<R> as Instant>::now()
}

/// Begins a task; nobody waits for it.
pub(crate) fn spawn<R: Runtime>(task: impl Future<Output = ()> + Send + 'static) {
    drop(R::Async::spawn(task));
}

/// The future's output, or an error after `within`.
pub(crate) async fn timeout<R: Runtime, F: Future + Send>(
    within: Duration,
    future: F,
) -> Result<F::Output, <R::Async as AsyncRuntime>::TimeoutError> {
    R::Async::timeout(within, future).await
}

pub(crate) async fn sleep<R: Runtime>(duration: Duration) {
    R::Async::sleep(duration).await;
}

pub(crate) fn mpsc<R: Runtime, T: Send>(length: usize) -> (SenderOf<R, T>, ReceiverOf<R, T>) {
    MpscOf::<R>::channel(length)
}

pub(crate) fn oneshot<R: Runtime, T: Send>() -> (OneshotSenderOf<R, T>, OneshotReceiverOf<R, T>) {
    OneshotOf::<R>::channel()
}

pub(crate) fn watch<R: Runtime, T: Send + Sync>(
    value: T,
) -> (WatchSenderOf<R, T>, WatchReceiverOf<R, T>) {
    WatchOf::<R>::channel(value)
}

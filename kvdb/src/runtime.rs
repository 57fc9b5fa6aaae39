//! All that this crate takes of tokio, in one place.

pub(crate) use tokio::sync::{mpsc, oneshot, watch};
pub(crate) use tokio::task::{JoinHandle, spawn};
pub(crate) use tokio::time::{Instant, timeout};

pub(crate) use openraft::async_runtime::watch::WatchReceiver;

/// Spawns the task, unless the runtime itself is ending.
pub(crate) fn spawn_if_running(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(task);
    }
}

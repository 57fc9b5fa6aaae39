//! The thread that moves bytes: NBD connections, the host and the links to the peers take turns on it.
//!
//! They hand each other every request several times. On one thread a hand-over is a place in a queue; between threads it is a futex,
//! an interrupt to another core and a wait for it (decision 15 has the figures). Everything else (kvdb, the API) runs elsewhere, so that
//! it can't hold this up.

use anyhow::Context;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The running thread. Dropped, it ends what still runs on it, without waiting.
pub struct DataThread {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl DataThread {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start() -> anyhow::Result<DataThread> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("can't start the data path's thread")?;
        let handle = runtime.handle().clone();
        let (stop, stopping) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("data".into())
            .spawn(move || {
                // Ends when it is told to, or when the other end is gone.
                let _ = runtime.block_on(stopping);
            })?;
        Ok(DataThread {
            handle,
            stop,
            thread,
        })
    }

    /// What tasks for it are spawned with.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends all that still runs on it, and waits for that.
    pub fn stop(self) {
        // Fails when it has ended already.
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the data path's thread ended badly");
        }
    }
}

//! How much of one connection may be in flight: from a request's admission until its reply was written.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The bound on what is in flight. One task admits, one releases.
pub(crate) struct Window {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    requests_max: usize,
    bytes_max: usize,
    released: Notify,
}

impl Window {
    pub(crate) fn new(requests_max: usize, bytes_max: usize) -> Window {
        assert!(requests_max > 0, "a window without requests admits none");
        Window {
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            requests_max,
            bytes_max,
            released: Notify::new(),
        }
    }

    /// Waits until one more request, with so many bytes of payload in either direction, has its place.
    /// A request larger than the whole window is admitted alone.
    pub(crate) async fn admit(&self, bytes: usize) {
        loop {
            // Only this task adds, so what is seen here can only have shrunk when it is used.
            let (requests, taken) = (
                self.requests.load(Ordering::Acquire),
                self.bytes.load(Ordering::Acquire),
            );
            if requests == 0
                || (requests < self.requests_max && taken.saturating_add(bytes) <= self.bytes_max)
            {
                self.requests.fetch_add(1, Ordering::AcqRel);
                self.bytes.fetch_add(bytes, Ordering::AcqRel);
                return;
            }
            // A release between the look and this wait has left its permit: no wake-up is lost.
            self.released.notified().await;
        }
    }

    /// Gives back what `requests` requests with `bytes` bytes in all had taken.
    pub(crate) fn release(&self, requests: usize, bytes: usize) {
        // Bytes first: who sees no request in flight must see none of their bytes.
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        assert!(before >= bytes, "released {bytes} bytes of {before}");
        let before = self.requests.fetch_sub(requests, Ordering::AcqRel);
        assert!(
            before >= requests,
            "released {requests} requests of {before}"
        );
        self.released.notify_one();
    }
}

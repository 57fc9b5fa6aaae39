//! The only place where the tests wait for something that nobody reports: a bounded poll. And where benches let time pass that they measure.

use std::thread;
use std::time::{Duration, Instant};

const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Asks `condition` again and again, ever more slowly, until it gives a value.
///
/// # Panics
/// When it gave none within `limit`; `what` says what was waited for.
#[track_caller]
pub fn wait_until<T>(what: &str, limit: Duration, condition: impl FnMut() -> Option<T>) -> T {
    match within(limit, condition) {
        Some(value) => value,
        None => panic!("not within {limit:?}: {what}"),
    }
}

/// Like [`wait_until`], but none after `limit`.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let mut pause = PAUSE_MIN;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // Nobody unparks this thread: it is a pause between two questions, never an assumption about time.
        thread::park_timeout(pause.min(left));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Lets this much time pass: for benches, whose figures are of a while. A test waits for something instead.
pub fn pass(time: Duration) {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

//! What was refused, counted always and logged at a bounded rate: a hostile peer must not fill the log.

use parking_lot::Mutex;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lines logged in each period.
const LINES_MAX: u32 = 10;
const PERIOD: Duration = Duration::from_secs(10);

struct Period {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

/// The refusals of one transport.
pub(crate) struct Refusals {
    count: AtomicU64,
    period: Mutex<Period>,
}

impl Refusals {
    pub(crate) fn new() -> Refusals {
        let period = Period {
            since: Instant::now(),
            lines: 0,
            suppressed: 0,
        };
        Refusals {
            count: AtomicU64::new(0),
            period: Mutex::new(period),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts one, and logs it when the period has a line left.
    pub(crate) fn refuse(&self, from: &dyn Display, why: &dyn Display) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut period = self.period.lock();
        if period.since.elapsed() >= PERIOD {
            if period.suppressed > 0 {
                tracing::warn!(
                    suppressed = period.suppressed,
                    "more refusals than were logged"
                );
            }
            *period = Period {
                since: Instant::now(),
                lines: 0,
                suppressed: 0,
            };
        }
        if period.lines < LINES_MAX {
            period.lines += 1;
            tracing::warn!(%from, %why, "refused");
        } else {
            period.suppressed += 1;
        }
    }
}

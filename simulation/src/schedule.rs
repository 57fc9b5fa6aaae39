//! The event heap: virtual time, and what happens when. Events of the same instant happen in the order in which they were put in.

use std::collections::BTreeMap;

/// A microsecond, in nanoseconds.
pub const MICROSECOND: u64 = 1_000;
/// A millisecond, in nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;
/// A second, in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// What is to happen, by time.
#[derive(Debug)]
pub struct Schedule<E> {
    now: u64,
    events: BTreeMap<(u64, u64), E>,
    added: u64,
}

impl<E> Default for Schedule<E> {
    fn default() -> Schedule<E> {
        Schedule {
            now: 0,
            events: BTreeMap::new(),
            added: 0,
        }
    }
}

impl<E> Schedule<E> {
    /// True time, in nanoseconds since the simulation began.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Lets `event` happen at `at`, or now if that is past.
    pub fn at(&mut self, at: u64, event: E) {
        self.added += 1;
        self.events.insert((at.max(self.now), self.added), event);
    }

    /// Lets `event` happen `delay` nanoseconds from now.
    pub fn after(&mut self, delay: u64, event: E) {
        self.at(self.now + delay, event);
    }

    /// When the next event is.
    #[must_use]
    pub fn next_at(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets time pass up to `now`, in which nothing happens.
    pub fn pass(&mut self, now: u64) {
        let early = self.next_at().is_some_and(|at| at < now);
        assert!(!early && now >= self.now, "events are taken in their order");
        self.now = now;
    }

    /// The next event; time has passed up to it.
    pub fn pop(&mut self) -> Option<E> {
        let ((at, _), event) = self.events.pop_first()?;
        self.now = at;
        Some(event)
    }
}

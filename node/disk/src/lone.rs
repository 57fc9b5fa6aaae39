//! Whether the caller's thread itself waits for a durable write.
//!
//! A short write that comes alone, write after write, is a client that waits for each: then there is nothing else to do meanwhile, and waiting
//! in the call saves the hand-over to a kernel worker, the notification and the wake-up. On a device that answers slowly, or as soon as
//! writes come together, the thread has better things to do.

use std::time::Duration;

/// Longer writes are not short.
pub(crate) const LONE_BYTES_MAX: usize = 16 << 10;
/// Lone writes in a row, from which on the next one is waited for.
const STREAK_MIN: u32 = 4;
/// A write that took longer was slow.
const SLOW: Duration = Duration::from_micros(400);
/// Lone writes that are not waited for after a slow one; doubled as long as the next one is slow, too.
const PAUSE_MIN: u32 = 32;
const PAUSE_MAX: u32 = 8192;

/// What is known of the last durable writes.
pub(crate) struct Lone {
    streak: u32,
    /// Lone writes until one is waited for again.
    pause: u32,
    pause_next: u32,
}

impl Lone {
    pub(crate) fn new() -> Lone {
        Lone {
            streak: 0,
            pause: 0,
            pause_next: PAUSE_MIN,
        }
    }

    /// Several writes are under way at a time, or a long one.
    pub(crate) fn crowd(&mut self) {
        self.streak = 0;
    }

    /// A short write comes alone: whether to wait for it.
    pub(crate) fn is_to_be_waited_for(&mut self) -> bool {
        self.streak = self.streak.saturating_add(1);
        if self.streak <= STREAK_MIN {
            return false;
        }
        let pausing = self.pause > 0;
        self.pause = self.pause.saturating_sub(1);
        !pausing
    }

    /// So long was waited for one.
    pub(crate) fn took(&mut self, time: Duration) {
        if time <= SLOW {
            self.pause_next = PAUSE_MIN;
            return;
        }
        self.pause = self.pause_next;
        self.pause_next = (self.pause_next * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many lone writes pass by until one is waited for.
    fn passed(lone: &mut Lone) -> u32 {
        (0..)
            .find(|_| lone.is_to_be_waited_for())
            .expect("sooner or later")
    }

    #[test]
    fn only_lone_writes_in_a_row_are_waited_for() {
        let mut lone = Lone::new();
        assert_eq!(passed(&mut lone), STREAK_MIN);
        for _ in 0..100 {
            lone.took(SLOW);
            assert_eq!(passed(&mut lone), 0);
        }
        lone.crowd();
        assert_eq!(passed(&mut lone), STREAK_MIN);
    }

    #[test]
    fn a_slow_device_is_waited_for_less_and_less() {
        let mut lone = Lone::new();
        passed(&mut lone);
        let mut pause = PAUSE_MIN;
        for _ in 0..20 {
            lone.took(SLOW * 2);
            assert_eq!(passed(&mut lone), pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        lone.took(SLOW / 2);
        assert_eq!(passed(&mut lone), 0);
        lone.took(SLOW * 2);
        assert_eq!(passed(&mut lone), PAUSE_MIN);
    }
}

//! A node's CLOCK_BOOTTIME: begins anywhere, and runs up to half a percent too fast or too slow. Two nodes are so at most one
//! percent apart, which is the drift that the design allows. In some scenarios it is worse than that: then only promise 3 is off.

use isthmus_engine::Time;

const PARTS: u128 = 1_000_000;
/// The largest deviation of a good clock from true time, in millionths.
pub const DRIFT_MILLIONTHS_MAX: u64 = 4_900;

/// One machine's clock between two starts of the machine.
#[derive(Clone, Copy, Debug)]
pub struct NodeClock {
    /// What it shows at `started` (true time).
    shows: u64,
    started: u64,
    /// Its nanoseconds in a million true ones.
    rate: u64,
}

impl NodeClock {
    /// A clock that shows `shows` at true time `started`, and runs `rate_millionths` for each million true nanoseconds.
    ///
    /// # Panics
    /// When it would stand still.
    #[must_use]
    pub fn new(started: u64, shows: u64, rate_millionths: u64) -> NodeClock {
        assert!(rate_millionths > 0, "a clock goes forward");
        NodeClock {
            shows,
            started,
            rate: rate_millionths,
        }
    }

    /// What it shows at true time `now`.
    #[must_use]
    pub fn at(&self, now: u64) -> Time {
        let run = u128::from(now - self.started) * u128::from(self.rate) / PARTS;
        Time(self.shows + run as u64)
    }

    /// The first true time at which it shows `time` or more.
    #[must_use]
    pub fn when(&self, time: Time) -> u64 {
        let run = u128::from(time.0.saturating_sub(self.shows)) * PARTS;
        self.started + run.div_ceil(u128::from(self.rate)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_the_true_time_that_is_told_for_it() {
        for rate in [995_100, 1_000_000, 1_004_900] {
            let clock = NodeClock::new(5_000, 77, rate);
            for time in [77, 78, 1_000_003, 9_999_999_999] {
                let when = clock.when(Time(time));
                assert!(clock.at(when).0 >= time);
                assert!(when == 5_000 || clock.at(when - 1).0 < time);
            }
        }
    }
}

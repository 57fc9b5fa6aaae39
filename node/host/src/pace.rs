//! How fast questions of a resync are answered: as fast as leaves the clients' latency within its budget (design, section 3).
//!
//! While nothing is copied, the 99th percentile of the clients' requests is learned. While something is, a request that takes more than
//! half as much again is late. When more than one in a hundred is late, answers are spaced wider, else closer. With nobody at work they are not
//! spaced at all; and never so wide that a resync stands still.

use isthmus_engine::Time;
use std::time::Duration;

/// How often the spacing is thought over.
const WINDOW: Duration = Duration::from_millis(100);
/// The latency that clients may see, in percent of what is usual. They are to see at most twice as much, and what they wait for before the
/// host sees their requests is not measured here.
const BUDGET_PERCENT: u32 = 150;
/// The smallest budget: below, what is measured is chance.
const BUDGET_MIN: Duration = Duration::from_millis(1);
/// The budget where nobody was at work before the resync.
const BUDGET_UNKNOWN: Duration = Duration::from_millis(5);
/// While clients are at work, answers are at least this far apart: several at once would be one long wait for them.
const GAP_MIN: Duration = Duration::from_micros(500);
/// Answers (of at most 256 KiB) are no farther apart than this: some 13 MB/s are always left to a resync.
const GAP_MAX: Duration = Duration::from_millis(20);
/// Spacing that was not used up is made good for that long.
const SLACK: Duration = Duration::from_millis(2);
/// For that long after an answer, requests say nothing about what is usual.
const ECHO: Duration = Duration::from_secs(1);
/// How fast the 99th percentile is learned: one request above it raises it by 99 of these parts of it, one below lowers it by one.
const STEP_PARTS: u32 = 2048;
/// Less would not get away from 0.
const STEP_MIN: Duration = Duration::from_nanos(100);

/// The pace of all resyncs that a node is the source of.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The 99th percentile of the clients' requests while nothing is copied; none before the first.
    usual: Option<Duration>,
    copying_until: Time,
    window_until: Time,
    seen: u32,
    late: u32,
    gap: Duration,
    next_answer: Time,
}

impl Pace {
    /// A client's request took this long.
    pub(crate) fn note(&mut self, now: Time, took: Duration) {
        if now < self.copying_until {
            self.seen = self.seen.saturating_add(1);
            self.late += u32::from(took > self.budget());
            return;
        }
        let usual = self.usual.unwrap_or(took);
        let step = (usual / STEP_PARTS).max(STEP_MIN);
        self.usual = Some(if took > usual {
            usual + step * 99
        } else {
            usual.saturating_sub(step)
        });
    }

    /// Whether a question of a resync may be answered now; if so, it is to be.
    pub(crate) fn may_answer(&mut self, now: Time) -> bool {
        self.copying_until = now + ECHO;
        if now >= self.window_until {
            self.think_over();
            self.window_until = now + WINDOW;
        }
        if now < self.next_answer {
            return false;
        }
        let spared = now.since(self.next_answer).min(SLACK).min(self.gap);
        self.next_answer = now + (self.gap - spared);
        true
    }

    /// From when on the next question may be answered.
    pub(crate) fn next_answer(&self) -> Time {
        self.next_answer
    }

    fn budget(&self) -> Duration {
        self.usual.map_or(BUDGET_UNKNOWN, |usual| {
            (usual * BUDGET_PERCENT / 100).max(BUDGET_MIN)
        })
    }

    fn think_over(&mut self) {
        self.gap = if self.seen == 0 {
            Duration::ZERO
        } else if u64::from(self.late) * 100 > u64::from(self.seen) {
            (self.gap * 2).clamp(GAP_MIN, GAP_MAX)
        } else {
            (self.gap * 3 / 4).max(GAP_MIN)
        };
        (self.seen, self.late) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Lets a resync ask all the time for so long, with a request of a client each ms that takes `took`; how often it was answered.
    fn answered(pace: &mut Pace, now: &mut Time, time: Duration, took: Option<Duration>) -> u32 {
        let (end, mut count) = (*now + time, 0);
        while *now < end {
            if let Some(took) = took {
                pace.note(*now, took);
            }
            for _ in 0..16 {
                count += u32::from(pace.may_answer(*now));
            }
            *now = *now + MS;
        }
        count
    }

    #[test]
    fn a_resync_makes_room_for_clients_that_wait_and_takes_it_back() {
        let (mut pace, mut now) = (Pace::default(), Time(1_000_000_000));
        for _ in 0..100 {
            pace.note(now, MS);
            now = now + MS;
        }
        let second = Duration::from_secs(1);
        let alone = answered(&mut pace, &mut now, second, None);
        assert_eq!(
            alone, 16_000,
            "with nobody at work all questions are answered"
        );
        let beside = answered(&mut pace, &mut now, second, Some(MS));
        assert!((1500..4000).contains(&beside), "two in each ms: {beside}");
        answered(&mut pace, &mut now, second, Some(3 * MS));
        let late = answered(&mut pace, &mut now, second, Some(3 * MS));
        assert!((45..60).contains(&late), "one in 20 ms: {late}");
        answered(&mut pace, &mut now, 3 * second, Some(MS));
        let again = answered(&mut pace, &mut now, second, Some(MS));
        assert!(again > 1500, "the clients are in time again: {again}");
    }

    #[test]
    fn what_is_usual_is_learned_as_the_99th_percentile_and_not_during_a_resync() {
        let (mut pace, mut now) = (Pace::default(), Time(1_000_000_000));
        for number in 0..100_000_u32 {
            // Evenly spread over 10 ms.
            let took = Duration::from_micros(u64::from(number * 7919 % 10_000));
            pace.note(now, took);
            now = now + MS;
        }
        let usual = pace.usual.unwrap_or_default();
        assert!(usual > 9 * MS && usual < 11 * MS, "{usual:?}");
        assert!(pace.may_answer(now));
        for _ in 0..1000 {
            pace.note(now, 100 * MS);
        }
        assert_eq!(pace.usual, Some(usual));
    }
}

//! What the probes of the last while say about a link. Pure: times come in.

use isthmus_api::LinkState;
use std::collections::VecDeque;
use std::time::Duration;

/// Figures are of the probes of so long.
pub const SHOWN: Duration = Duration::from_secs(60);
/// So many probes without an answer, one behind the other, mean that the link is down.
const LOST_IN_A_ROW: usize = 3;

/// When a link is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest median round trip that is as it should be.
    pub round_trip_max: Duration,
    /// The median of so long counts.
    pub window: Duration,
}

/// A link's probes and what they say.
#[derive(Debug)]
pub struct Window {
    limits: Limits,
    /// When each was sent, and how long its answer took, if one came.
    probes: VecDeque<(Duration, Option<Duration>)>,
    /// Since the first one, there has been one all the time.
    first: Option<Duration>,
    state: LinkState,
    reason: String,
}

impl Window {
    /// Of a link that was not probed yet.
    pub fn new(limits: Limits) -> Window {
        Window {
            limits,
            probes: VecDeque::new(),
            first: None,
            state: LinkState::Unknown,
            reason: String::new(),
        }
    }

    /// A probe was sent at `at`, on any clock that does not go back, and answered after `took`, or not at all. Whether the state is another one now.
    pub fn note(&mut self, at: Duration, took: Option<Duration>) -> bool {
        self.first.get_or_insert(at);
        self.probes.push_back((at, took));
        let kept = SHOWN.max(self.limits.window);
        while self
            .probes
            .front()
            .is_some_and(|(sent, _)| *sent + kept <= at)
        {
            self.probes.pop_front();
        }
        let (state, reason) = self.judge(at);
        self.reason = reason;
        std::mem::replace(&mut self.state, state) != state
    }

    fn judge(&self, now: Duration) -> (LinkState, String) {
        let recent = self.probes.iter().rev().take(LOST_IN_A_ROW);
        let lost = recent.filter(|(_, took)| took.is_none()).count();
        if lost == LOST_IN_A_ROW {
            let reason = format!(
                "the last {LOST_IN_A_ROW} probes and more were not answered within a second"
            );
            return (LinkState::Down, reason);
        }
        let Limits {
            round_trip_max,
            window,
        } = self.limits;
        let Some(median) = percentile(self.answered(now, window), 50) else {
            return (self.state, self.reason.clone());
        };
        let is_seen_whole = self.first.is_some_and(|first| now >= first + window);
        if median > round_trip_max && (is_seen_whole || self.state == LinkState::LatencyExceeded) {
            let reason = format!(
                "the median round trip of the last {} s is {:.1} ms, over max_rtt_ms = {}",
                window.as_secs(),
                median.as_secs_f64() * 1e3,
                round_trip_max.as_millis()
            );
            return (LinkState::LatencyExceeded, reason);
        }
        (LinkState::Good, String::new())
    }

    fn answered(&self, now: Duration, within: Duration) -> impl Iterator<Item = Duration> {
        let probes = self.probes.iter();
        let recent = probes.filter(move |(sent, _)| *sent + within > now);
        recent.filter_map(|(_, took)| *took)
    }

    /// What the link is like, and why it is not good.
    pub fn state(&self) -> (LinkState, &str) {
        (self.state, &self.reason)
    }

    /// So many percent of the answers of the last 60 s took at most so long.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let (now, _) = self.probes.back()?;
        percentile(self.answered(*now, SHOWN), percent)
    }

    /// The median of the answers to what was sent in the last `within`, at most 60 s.
    pub fn median_of_the_last(&self, within: Duration) -> Option<Duration> {
        let (now, _) = self.probes.back()?;
        percentile(self.answered(*now, within), 50)
    }

    /// How many probes of the last 60 s there are, and how many were not answered.
    pub fn counts(&self) -> (usize, usize) {
        let now = self.probes.back().map_or(Duration::ZERO, |(now, _)| *now);
        let shown = || self.probes.iter().filter(|(sent, _)| *sent + SHOWN > now);
        (
            shown().count(),
            shown().filter(|(_, took)| took.is_none()).count(),
        )
    }
}

/// The nearest-rank percentile.
fn percentile(values: impl Iterator<Item = Duration>, percent: usize) -> Option<Duration> {
    let mut values: Vec<Duration> = values.collect();
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        round_trip_max: Duration::from_millis(10),
        window: Duration::from_secs(30),
    };

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A probe each second from `from` on, `count` of them; the states that it went through.
    fn probe(
        window: &mut Window,
        from: u64,
        count: u64,
        took: Option<Duration>,
    ) -> Vec<(u64, LinkState)> {
        let seconds = from..from + count;
        seconds
            .filter_map(|second| {
                let changed = window.note(Duration::from_secs(second), took);
                changed.then(|| (second, window.state().0))
            })
            .collect()
    }

    #[test]
    fn a_link_is_too_slow_when_its_median_was_for_a_whole_window() {
        let mut window = Window::new(LIMITS);
        let states = probe(&mut window, 0, 100, Some(ms(50)));
        assert_eq!(
            states,
            [(0, LinkState::Good), (30, LinkState::LatencyExceeded)]
        );
        assert!(window.state().1.contains("50.0 ms"), "{:?}", window.state());
        let states = probe(&mut window, 100, 60, Some(ms(1)));
        assert_eq!(
            states,
            [(114, LinkState::Good)],
            "once half of the window is good"
        );
        assert_eq!(window.state().1, "");
    }

    #[test]
    fn a_few_slow_answers_are_no_slow_link() {
        let mut window = Window::new(LIMITS);
        probe(&mut window, 0, 60, Some(ms(2)));
        assert_eq!(probe(&mut window, 60, 14, Some(ms(200))), []);
        assert_eq!(window.percentile(50), Some(ms(2)));
        assert_eq!(window.percentile(99), Some(ms(200)));
        assert_eq!(window.counts(), (60, 0));
    }

    #[test]
    fn a_link_without_answers_is_down_and_comes_back_with_the_first() {
        let mut window = Window::new(LIMITS);
        probe(&mut window, 0, 60, Some(ms(2)));
        assert_eq!(probe(&mut window, 60, 30, None), [(62, LinkState::Down)]);
        assert_eq!(window.counts(), (60, 30));
        assert_eq!(
            probe(&mut window, 90, 5, Some(ms(2))),
            [(90, LinkState::Good)]
        );
        let mut never = Window::new(LIMITS);
        assert_eq!(never.state().0, LinkState::Unknown);
        assert_eq!(probe(&mut never, 0, 100, None), [(2, LinkState::Down)]);
        assert_eq!(never.percentile(50), None);
        assert!(never.probes.len() <= 60, "what is kept is bounded");
    }
}

//! What is kept of a link's past: its round trips of some minutes, and its last changes. Both are bounded, and begin with the node's start.

use super::window::Window;
use crate::api::access::now_ms;
use isthmus_api::{LinkChange, RoundTrip};
use std::collections::VecDeque;
use std::time::Duration;

/// A point is the median of so long.
const POINT: Duration = Duration::from_secs(10);
/// Points that are kept: ten minutes.
const POINTS_MAX: usize = 60;
/// Changes that are kept.
const CHANGES_MAX: usize = 32;

/// A link's past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    points: VecDeque<RoundTrip>,
    changes: VecDeque<LinkChange>,
    next_point: Duration,
}

impl History {
    /// A probe was noted at `at`: a point is due, or not yet.
    pub fn look(&mut self, at: Duration, window: &Window) {
        if self.next_point == Duration::ZERO {
            self.next_point = at + POINT;
        }
        if at < self.next_point {
            return;
        }
        self.next_point = at + POINT;
        let median = window.median_of_the_last(POINT);
        self.points.push_back(RoundTrip {
            at_ms: now_ms(),
            p50_us: median.map(super::microseconds),
        });
        if self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
    }

    /// The link changed.
    pub fn changed(&mut self, change: LinkChange) {
        self.changes.push_back(change);
        if self.changes.len() > CHANGES_MAX {
            self.changes.pop_front();
        }
    }

    /// The points, oldest first.
    pub fn points(&self) -> Vec<RoundTrip> {
        self.points.iter().copied().collect()
    }

    /// The changes, oldest first.
    pub fn changes(&self) -> Vec<LinkChange> {
        self.changes.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Limits;
    use isthmus_api::LinkState;

    #[test]
    fn a_point_for_each_ten_seconds_and_ten_minutes_of_them() {
        let limits = Limits {
            round_trip_max: Duration::from_millis(10),
            window: Duration::from_secs(30),
        };
        let (mut window, mut history) = (Window::new(limits), History::default());
        for second in 0..1000 {
            let (at, took) = (Duration::from_secs(second), Duration::from_micros(second));
            window.note(at, (second < 500).then_some(took));
            history.look(at, &window);
        }
        let points = history.points();
        assert_eq!(points.len(), POINTS_MAX);
        // The first that is left is of 391 to 400: the 99 points of 1,000 s but the last 60.
        assert_eq!(points.first().map(|point| point.p50_us), Some(Some(395)));
        assert_eq!(points.last().map(|point| point.p50_us), Some(None));
        for at_ms in 0..100 {
            let (state, reason) = (LinkState::Good, String::new());
            history.changed(LinkChange {
                at_ms,
                state,
                reason,
            });
        }
        assert_eq!(history.changes().len(), CHANGES_MAX);
        assert_eq!(history.changes().last().map(|last| last.at_ms), Some(99));
    }
}

//! Whether replicas behind a link may be in sync (action `degrade`). Pure: times come in.
//!
//! ```text
//!           too slow                        good
//!   Open ──────────────▶ Shut ────────────────────────▶ HeldDown
//!    ▲                    ▲                             │      │
//!    │                    └────── not good, or not ─────┘      │
//!    │                            looked at for a while        │
//!    └──────────────────────── good for `hold_down` ───────────┘
//! ```
//!
//! A link that is only down is nobody's business here: what is lost leaves the sets without it.

use isthmus_api::LinkState;
use std::time::Duration;

/// A probe each second: who did not look for so long (it was stopped) does not know that the link was good.
const UNSEEN_MAX: Duration = Duration::from_secs(5);

/// Whether replicas behind a link may be in sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fence {
    /// They may.
    #[default]
    Open,
    /// The link is too slow, or was and is not good since.
    Shut,
    /// It is good again since `since`, and was when it was looked at last.
    HeldDown { since: Duration, seen: Duration },
}

impl Fence {
    /// At `at`, on any clock that does not go back, the link is in this state.
    pub fn after(self, at: Duration, state: LinkState, hold_down: Duration) -> Fence {
        match (self, state) {
            (_, LinkState::LatencyExceeded) => Fence::Shut,
            (Fence::Open, _) => Fence::Open,
            (Fence::Shut, LinkState::Good) => Fence::HeldDown {
                since: at,
                seen: at,
            },
            (Fence::HeldDown { since, seen }, LinkState::Good) => {
                let since = match at.saturating_sub(seen) > UNSEEN_MAX {
                    true => at,
                    false => since,
                };
                match at.saturating_sub(since) >= hold_down {
                    true => Fence::Open,
                    false => Fence::HeldDown { since, seen: at },
                }
            }
            (Fence::Shut | Fence::HeldDown { .. }, LinkState::Down | LinkState::Unknown) => {
                Fence::Shut
            }
        }
    }

    /// Whether replicas behind the link stay out.
    pub fn keeps_out(self) -> bool {
        self != Fence::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD_DOWN: Duration = Duration::from_secs(10);

    /// A state for each second from `from` on; when it was open again.
    fn opened(fence: &mut Fence, from: u64, states: &[LinkState]) -> Option<u64> {
        let mut opened = None;
        for (second, state) in (from..).zip(states) {
            *fence = fence.after(Duration::from_secs(second), *state, HOLD_DOWN);
            if !fence.keeps_out() {
                opened = opened.or(Some(second));
            }
        }
        opened
    }

    #[test]
    fn replicas_stay_out_until_the_link_was_good_for_the_whole_hold_down() {
        let mut fence = Fence::Open;
        assert_eq!(
            opened(&mut fence, 0, &[LinkState::LatencyExceeded; 5]),
            None
        );
        assert_eq!(opened(&mut fence, 5, &[LinkState::Good; 8]), None);
        assert_eq!(opened(&mut fence, 13, &[LinkState::LatencyExceeded]), None);
        assert_eq!(opened(&mut fence, 14, &[LinkState::Good; 20]), Some(24));
    }

    #[test]
    fn a_link_that_is_down_is_not_good() {
        let mut fence = Fence::Open;
        assert_eq!(opened(&mut fence, 0, &[LinkState::Down; 3]), Some(0));
        assert_eq!(opened(&mut fence, 3, &[LinkState::LatencyExceeded]), None);
        assert_eq!(opened(&mut fence, 4, &[LinkState::Good; 9]), None);
        assert_eq!(opened(&mut fence, 13, &[LinkState::Down]), None);
        assert_eq!(opened(&mut fence, 14, &[LinkState::Good; 20]), Some(24));
    }

    #[test]
    fn time_in_which_nobody_looked_does_not_count() {
        let mut fence = Fence::Open;
        assert_eq!(opened(&mut fence, 0, &[LinkState::LatencyExceeded]), None);
        assert_eq!(opened(&mut fence, 1, &[LinkState::Good; 3]), None);
        assert_eq!(opened(&mut fence, 60, &[LinkState::Good; 20]), Some(70));
    }
}

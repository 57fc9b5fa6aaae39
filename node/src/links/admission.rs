//! Whether a node may become a member for the first time, by its links to the other data domains.
//!
//! Only then: a node that was a member once is let in whatever its links are like, since what it holds may be needed. Where the action is
//! `report`, nothing but that is done.

use super::Links;
use isthmus_api::{LinkAction, LinkState};
use std::time::Duration;

/// Answers that say enough of a link for this.
const ANSWERS_MIN: usize = 3;

impl Links {
    /// Whether a new node's links decide.
    pub fn are_admitted_by(&self) -> bool {
        self.actions.action != LinkAction::Report
    }

    /// Whether this node may become a member. Links that nobody answers over are no obstacle: they are measured when somebody does, and fenced as
    /// every link is.
    ///
    /// # Errors
    /// Why not, or not yet, and what to do.
    pub fn admit(&self) -> Result<(), String> {
        if !self.are_admitted_by() {
            return Ok(());
        }
        for (peer, link) in self.list() {
            let answers = link.probes - link.lost;
            if !self.actions.across.contains(&peer) || link.state == LinkState::Down {
                continue;
            }
            let Some(median) = link.median.filter(|_| answers >= ANSWERS_MIN) else {
                return Err(format!("the link to {peer} is being measured"));
            };
            let max = self.limits.round_trip_max;
            if median > max {
                return Err(format!(
                    "the median round trip to {peer} is {:.1} ms, over max_rtt_ms = {}: ask who runs the link, or raise [link] max_rtt_ms on the nodes",
                    milliseconds(median),
                    max.as_millis()
                ));
            }
        }
        Ok(())
    }
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

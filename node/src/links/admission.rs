//! Whether a node may become a member for the first time, by its links to the other data domains.
//!
//! Only then: a store that was a member once is let in whatever its links are like, since what it holds may be needed. Where the action is
//! `report`, nothing but that is done.

use super::{LinkFigures, Links};
use isthmus_api::{LinkAction, LinkState};
use std::time::Duration;

/// Answers that say enough of a link for this.
const ANSWERS_MIN: usize = 3;

impl Links {
    /// Whether this node may become a member. Links that nobody answers over are no obstacle: they are measured when somebody does, and fenced as
    /// every link is.
    ///
    /// # Errors
    /// Why not, or not yet, and what to do.
    pub fn admit(&self) -> Result<(), String> {
        if self.actions.action == LinkAction::Report {
            return Ok(());
        }
        let across = self.list().into_iter();
        let across = across.filter(|(peer, _)| self.actions.across.contains(peer));
        for (peer, link) in across {
            fast_enough(&link, self.limits.round_trip_max)
                .map_err(|why| format!("the link to {peer} {why}"))?;
        }
        Ok(())
    }
}

fn fast_enough(link: &LinkFigures, max: Duration) -> Result<(), String> {
    if link.state == LinkState::Down {
        return Ok(());
    }
    let answers = link.probes - link.lost;
    match link.median.filter(|_| answers >= ANSWERS_MIN) {
        None => Err("is being measured".to_owned()),
        Some(median) if median > max => Err(format!(
            "has a median round trip of {:.1} ms, over max_rtt_ms = {}: ask who runs it, or raise [link] max_rtt_ms on the nodes",
            median.as_secs_f64() * 1e3,
            max.as_millis()
        )),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_member_waits_until_its_links_are_known_and_good() {
        let max = Duration::from_millis(10);
        let mut link = LinkFigures {
            state: LinkState::Good,
            probes: 2,
            median: Some(Duration::from_millis(1)),
            ..LinkFigures::default()
        };
        let waits = |link: &LinkFigures| fast_enough(link, max).unwrap_err();
        assert_eq!(waits(&link), "is being measured");
        (link.probes, link.lost) = (5, 2);
        assert_eq!(fast_enough(&link, max), Ok(()));
        link.median = Some(Duration::from_micros(14_200));
        assert!(waits(&link).contains("14.2 ms, over max_rtt_ms = 10"));
        link.state = LinkState::Down;
        assert_eq!(fast_enough(&link, max), Ok(()), "nobody is there");
    }
}

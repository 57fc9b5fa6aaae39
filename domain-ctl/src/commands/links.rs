//! The links between the data domains.

use crate::output::{Colour, coloured};
use crate::timestamp;
use isthmus_api::{Link, LinkState};

/// A figure that is older than this says how old it is.
const FRESH_MS: u64 = 5_000;

/// One link in one line.
pub fn line(link: &Link, now_ms: u64) -> String {
    let mut line = format!(
        "Link {} - {} ({} to {}): {}",
        link.from_domain,
        link.to_domain,
        link.from,
        link.to,
        state(link.state)
    );
    if link.state != LinkState::Good
        && let Some(since_ms) = link.since_ms
    {
        line.push_str(&format!(" for {}", timestamp::age(now_ms, since_ms)));
    }
    if let (Some(median), Some(percentile)) = (link.p50_us, link.p99_us) {
        line.push_str(&format!(
            ", RTT p50 {}, p99 {}",
            milliseconds(median),
            milliseconds(percentile)
        ));
    }
    if link.probes > 0 {
        line.push_str(&format!(", {} of {} probes lost", link.lost, link.probes));
    }
    if let Some(at_ms) = link.observed_at_ms
        && at_ms + FRESH_MS < now_ms
    {
        line.push_str(&format!(", seen {} ago", timestamp::age(now_ms, at_ms)));
    }
    for words in [&link.reason, &link.next] {
        if !words.is_empty() {
            line.push_str(&format!("; {words}"));
        }
    }
    line + "\n"
}

fn state(state: LinkState) -> String {
    match state {
        LinkState::Good => coloured("Good", Colour::Green),
        LinkState::LatencyExceeded => coloured("LatencyExceeded", Colour::Yellow),
        LinkState::Down => coloured("Down", Colour::Red),
        LinkState::Unknown => coloured("Unknown", Colour::Yellow),
    }
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_shown_with_its_round_trips_losses_and_what_to_do() {
        let mut link = Link {
            from: "a1".into(),
            from_domain: "site-a".into(),
            to: "b1".into(),
            to_domain: "site-b".into(),
            state: LinkState::Good,
            reason: String::new(),
            next: String::new(),
            since_ms: Some(0),
            p50_us: Some(310),
            p99_us: Some(1_900),
            probes: 60,
            lost: 1,
            observed_at_ms: Some(99_000),
        };
        assert_eq!(
            line(&link, 100_000),
            "Link site-a - site-b (a1 to b1): Good, RTT p50 0.31 ms, p99 1.90 ms, 1 of 60 probes lost\n"
        );
        link.state = LinkState::LatencyExceeded;
        link.since_ms = Some(40_000);
        link.observed_at_ms = Some(80_000);
        link.reason = "slow".into();
        link.next = "ask".into();
        assert_eq!(
            line(&link, 100_000),
            "Link site-a - site-b (a1 to b1): LatencyExceeded for 60s, RTT p50 0.31 ms, p99 1.90 ms, 1 of 60 probes lost, \
             seen 20s ago; slow; ask\n"
        );
    }
}

//! The links between the data domains.

use crate::arguments::Showing;
use crate::client::Client;
use crate::commands::NOTHING_FOUND;
use crate::failure::Failure;
use crate::output::{self, Colour, coloured};
use crate::timestamp;
use isthmus_api::{Link, LinkList, LinkState, RoundTrip};
use std::io::IsTerminal;

/// A figure that is older than this says how old it is.
const FRESH_MS: u64 = 5_000;

/// Bars of a chart, the lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `get links`.
pub fn get(client: &Client, showing: &Showing) -> Result<(), Failure> {
    let list: LinkList = client.get("/v1/links")?;
    let terminal = std::io::stdout().is_terminal();
    output::print(showing.output, &list, |list| {
        if list.items.is_empty() {
            return NOTHING_FOUND.to_owned();
        }
        let shown = list.items.iter().map(|link| {
            let mut text = line(link, list.observed.at_ms);
            if terminal {
                text.push_str(&chart(link));
            }
            text
        });
        shown.collect()
    })
}

/// The last minutes as bars, scaled from 0 to the longest; what is over the limit is coloured, what was not answered is a gap.
fn chart(link: &Link) -> String {
    let known = link.history.iter().filter_map(|point| point.p50_us);
    let Some(longest) = known.clone().max() else {
        return String::new();
    };
    let shortest = known.min().unwrap_or(longest);
    let bars: String = link
        .history
        .iter()
        .map(|point| bar(point, longest.max(1), link.max_rtt_us))
        .collect();
    let minutes = match (link.history.first(), link.history.last()) {
        (Some(first), Some(last)) => timestamp::age(last.at_ms, first.at_ms),
        _ => String::new(),
    };
    format!(
        "  p50 of {minutes}: {bars} {} to {}\n",
        milliseconds(shortest),
        milliseconds(longest)
    )
}

fn bar(point: &RoundTrip, longest: u64, max_rtt_us: u64) -> String {
    let Some(median) = point.p50_us else {
        return " ".to_owned();
    };
    let steps = BARS.len() as u64;
    let height = (median.saturating_mul(steps) / longest).min(steps - 1);
    let bar = BARS[usize::try_from(height).unwrap_or(0)].to_string();
    match max_rtt_us > 0 && median > max_rtt_us {
        true => coloured(&bar, Colour::Red),
        false => bar,
    }
}

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
    use isthmus_api::LinkAction;

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
            max_rtt_us: 10_000,
            action: LinkAction::Report,
            kept_out: None,
            history: Vec::new(),
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
        assert_eq!(chart(&link), "", "nothing is known yet");
        let medians = [Some(500), Some(4_000), None, Some(12_000)];
        let points = (0..).zip(medians).map(|(point, p50_us)| RoundTrip {
            at_ms: point * 10_000,
            p50_us,
        });
        link.history = points.collect();
        assert_eq!(chart(&link), "  p50 of 30s: ▁▃ █ 0.50 ms to 12.00 ms\n");
    }
}

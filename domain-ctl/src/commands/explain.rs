//! Why something is in its state, and what would change it.

use crate::arguments::Explain;
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::{output, timestamp};
use isthmus_api::Explanation;

/// `explain volume NAME`, `explain clusterdomain NAME`.
pub fn show(client: &Client, what: &Explain) -> Result<(), Failure> {
    let (path, about) = match what {
        Explain::Volume(about) => ("volumes", about),
        Explain::ClusterDomain(about) => ("clusterdomains", about),
    };
    let explanation: Explanation =
        client.get(&format!("/v1/{path}/{}/explain", segment(&about.name)))?;
    output::print(about.output, &explanation, text)
}

fn text(explanation: &Explanation) -> String {
    let now_ms = explanation.observed.at_ms;
    let mut text = format!("{}: {}", explanation.subject, explanation.state);
    if let Some(since_ms) = explanation.since_ms {
        text.push_str(&format!(
            ", since {} ({})",
            timestamp::to_the_second(since_ms),
            timestamp::age(now_ms, since_ms)
        ));
    }
    text.push_str("\n\nWhat is so:\n");
    for fact in &explanation.facts {
        text.push_str(&format!("  - {fact}\n"));
    }
    if !explanation.rule.is_empty() {
        text.push_str(&format!("\nThe rule: {}\n", explanation.rule));
    }
    if explanation.remedies.is_empty() {
        text.push_str("\nThere is nothing to do.\n");
        return text;
    }
    text.push_str("\nWhat would change it:\n");
    for remedy in &explanation.remedies {
        text.push_str(&format!(
            "  {}\n      {}\n",
            remedy.command, remedy.consequence
        ));
    }
    text
}

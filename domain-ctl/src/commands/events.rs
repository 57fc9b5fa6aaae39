//! The audit trail.

use crate::arguments::{Events, Format};
use crate::client::Client;
use crate::commands::NOTHING_FOUND;
use crate::failure::Failure;
use crate::{output, table, timestamp};
use isthmus_api::{Event, EventList, LinkEvent};
use serde::Serialize;
use std::time::Duration;

/// How often `--follow` asks.
const PERIOD: Duration = Duration::from_secs(1);

/// `get events [--follow]`.
pub fn get(client: &Client, wanted: &Events) -> Result<(), Failure> {
    let list: EventList = client.get("/v1/events")?;
    if let Some(revision) = list.broken_at {
        output::complain(&format!(
            "warning: the audit trail is broken: the event of revision {revision} is not what its digest says, or one before it is missing"
        ));
    }
    if !wanted.follow {
        return output::print(wanted.output, &list, |list| {
            if list.items.is_empty() && list.links.is_empty() {
                return NOTHING_FOUND.to_owned();
            }
            table::render(&["REVISION", "TIME", "WHO", "WHAT", "REASON"], &rows(list))
        });
    }
    let (mut last, mut last_link_ms) = (0, 0);
    let (mut items, mut links) = (list.items, list.links);
    loop {
        for event in &items {
            line(wanted.output, event, &row(event))?;
            last = event.revision;
        }
        for event in links
            .iter()
            .filter(|event| event.change.at_ms > last_link_ms)
        {
            line(wanted.output, event, &row_of_link(event))?;
        }
        let newest_ms = links.iter().map(|event| event.change.at_ms).max();
        last_link_ms = newest_ms.unwrap_or(0).max(last_link_ms);
        if !output::is_heard() {
            return Ok(());
        }
        std::thread::sleep(PERIOD);
        // A moment without an answer is no reason to stop following: what comes meanwhile is shown later.
        (items, links) = match client.get::<EventList>(&format!("/v1/events?after={last}")) {
            Ok(list) => (list.items, list.links),
            Err(failure) => {
                output::complain(&failure.to_string());
                (Vec::new(), Vec::new())
            }
        };
    }
}

fn line<T: Serialize>(format: Format, event: &T, row: &[String]) -> Result<(), Failure> {
    let text = match format {
        Format::Table => row.join("  "),
        Format::Json => serde_json::to_string(event)
            .map_err(|error| Failure::Plain(format!("error: {error}")))?,
        Format::Yaml => {
            return output::print(format, &[event], |_| String::new());
        }
    };
    output::say(&(text + "\n"));
    Ok(())
}

fn row(event: &Event) -> Vec<String> {
    vec![
        event.revision.to_string(),
        timestamp::to_the_second(event.at_ms),
        event.who.clone(),
        event.what.clone(),
        event.why.clone(),
    ]
}

/// What kvdb keeps in its order, and between it what nodes have seen of their links, by time.
fn rows(list: &EventList) -> Vec<Vec<String>> {
    let mut links = list.links.iter().peekable();
    let mut rows = Vec::new();
    for event in &list.items {
        while let Some(link) = links.next_if(|link| link.change.at_ms < event.at_ms) {
            rows.push(row_of_link(link));
        }
        rows.push(row(event));
    }
    rows.extend(links.map(row_of_link));
    rows
}

/// A link's change has no revision: it is measured, not agreed on.
fn row_of_link(event: &LinkEvent) -> Vec<String> {
    vec![
        "-".to_owned(),
        timestamp::to_the_second(event.change.at_ms),
        event.from.clone(),
        format!("the link to {} is {:?}", event.to, event.change.state),
        event.change.reason.clone(),
    ]
}

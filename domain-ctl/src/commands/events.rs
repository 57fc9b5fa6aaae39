//! The audit trail.

use crate::arguments::{Events, Format};
use crate::client::Client;
use crate::commands::NOTHING_FOUND;
use crate::failure::Failure;
use crate::{output, table, timestamp};
use isthmus_api::{Event, EventList};
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
            if list.items.is_empty() {
                return NOTHING_FOUND.to_owned();
            }
            let rows: Vec<Vec<String>> = list.items.iter().map(row).collect();
            table::render(&["REVISION", "TIME", "WHO", "WHAT", "REASON"], &rows)
        });
    }
    let mut last = 0;
    let mut items = list.items;
    loop {
        for event in &items {
            line(wanted.output, event)?;
            last = event.revision;
        }
        if !output::is_heard() {
            return Ok(());
        }
        std::thread::sleep(PERIOD);
        // A moment without an answer is no reason to stop following: what comes meanwhile is shown later.
        items = match client.get::<EventList>(&format!("/v1/events?after={last}")) {
            Ok(list) => list.items,
            Err(failure) => {
                output::complain(&failure.to_string());
                Vec::new()
            }
        };
    }
}

fn line(format: Format, event: &Event) -> Result<(), Failure> {
    let text = match format {
        Format::Table => row(event).join("  "),
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

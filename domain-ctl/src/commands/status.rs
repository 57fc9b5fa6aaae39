//! The cluster at one glance.

use crate::arguments::Format;
use crate::client::Client;
use crate::commands::{domains, links, recovery, volumes};
use crate::failure::Failure;
use crate::output::{self, Colour, coloured};
use crate::timestamp;
use isthmus_api::{SiteLoss, Status, SyncStatus};
use std::time::Duration;

/// How often `--watch` looks.
const PERIOD: Duration = Duration::from_secs(1);

/// `status [--watch]`.
pub fn show(client: &Client, format: Format, watch: bool) -> Result<(), Failure> {
    if !watch {
        let status: Status = client.get("/v1/status")?;
        return output::print(format, &status, text);
    }
    loop {
        // Without an answer there is something to see, too.
        let status = client.get::<Status>("/v1/status");
        if format == Format::Table {
            output::clear();
        }
        match status {
            Ok(status) => output::print(format, &status, text)?,
            Err(failure) => output::complain(&failure.to_string()),
        }
        if !output::is_heard() {
            return Ok(());
        }
        std::thread::sleep(PERIOD);
    }
}

fn text(status: &Status) -> String {
    let mut text = format!(
        "Cluster {}, {}",
        status.cluster,
        timestamp::rfc822(status.observed.at_ms)
    );
    if !status.observed.confirmed {
        text.push_str(&coloured(
            ", NOT CONFIRMED by a majority: may be old",
            Colour::Red,
        ));
    }
    text.push('\n');
    for site in &status.site_loss {
        text.push_str(&verdict(site));
    }
    text.push_str("Domains:\n");
    for domain in &status.domains {
        let sync = domain.sync_status.map_or(String::new(), |sync| {
            format!(", {}", coloured(sync.as_str(), colour(sync)))
        });
        let line = format!(
            "  {} ({}): {:?}{sync}; nodes {}",
            domain.name,
            domains::role(domain.role),
            domain.state,
            domain.nodes.join(", ")
        );
        text.push_str(&explained(line, &domain.reason, &domain.next));
    }
    let kvdb = &status.kvdb;
    let margin = match kvdb.quorum_margin {
        None => coloured("NO QUORUM: nothing can be committed", Colour::Red),
        Some(0) => coloured("no voter more may be lost", Colour::Yellow),
        Some(1) => "1 voter more may be lost".to_owned(),
        Some(count) => format!("{count} voters more may be lost"),
    };
    text.push_str(&format!(
        "kvdb: leader {}; voters {} (answering: {}); {margin}; tolerates loss of: {}\n",
        kvdb.leader.as_deref().unwrap_or("unknown"),
        kvdb.voters.join(", "),
        if kvdb.voters_answering.is_empty() {
            "none".to_owned()
        } else {
            kvdb.voters_answering.join(", ")
        },
        if kvdb.tolerates_loss_of.is_empty() {
            coloured("nothing", Colour::Yellow)
        } else {
            kvdb.tolerates_loss_of.join(" or ")
        },
    ));
    if kvdb.generation.as_str() > "0" {
        text.push_str(&format!("Generation: {}\n", kvdb.generation));
    }
    if !kvdb.strangers.is_empty() {
        text.push_str(&recovery::strangers(kvdb));
    }
    for link in &status.links {
        text.push_str(&links::line(link, status.observed.at_ms));
    }
    text.push_str(&format!(
        "Volumes: {}, in sync everywhere: {}\n",
        status.volumes, status.volumes_in_sync
    ));
    for problem in &status.volume_problems {
        text.push_str(&format!("  {problem}\n"));
    }
    for resync in &status.resyncs {
        let progress = volumes::progress(
            resync.done_bytes,
            resync.total_bytes,
            resync.bytes_per_second,
            resync.seconds_left,
        );
        text.push_str(&format!(
            "  {} at {}: {progress}\n",
            resync.volume, resync.node
        ));
    }
    if !status.nodes_silent.is_empty() {
        text.push_str(&format!(
            "Nodes that do not answer: {}\n",
            coloured(&status.nodes_silent.join(", "), Colour::Red)
        ));
    }
    text
}

fn verdict(site: &SiteLoss) -> String {
    let answer = if site.zero_data_loss {
        coloured("YES", Colour::Green)
    } else {
        coloured("NO", Colour::Red)
    };
    let mut line = format!("Zero data loss if {} fails now: {answer}", site.domain);
    if site.zero_data_loss && !site.kvdb_goes_on {
        line.push_str(&coloured(", but nobody could take over", Colour::Yellow));
    }
    if !site.reasons.is_empty() {
        line.push_str(&format!(" ({})", site.reasons.join("; ")));
    }
    line + "\n"
}

fn explained(mut line: String, reason: &str, next: &str) -> String {
    for words in [reason, next] {
        if !words.is_empty() {
            line.push_str(&format!("; {words}"));
        }
    }
    line + "\n"
}

fn colour(sync: SyncStatus) -> Colour {
    match sync {
        SyncStatus::InSync => Colour::Green,
        SyncStatus::SyncInProgress => Colour::Yellow,
        SyncStatus::NotInSync | SyncStatus::SyncStatusUnknown => Colour::Red,
    }
}

//! Reports of failovers.

use crate::arguments::Selection;
use crate::client::Client;
use crate::commands::NOTHING_FOUND;
use crate::failure::Failure;
use crate::{output, table, timestamp};
use isthmus_api::{ApiError, FailoverReport, FailoverReportList, FailoverVolume};

/// `report failover [NAME]`.
pub fn report(client: &Client, selection: &Selection) -> Result<(), Failure> {
    let mut list: FailoverReportList = client.get("/v1/failovers")?;
    if let Some(name) = &selection.name {
        list.items.retain(|report| report.name == *name);
        if list.items.is_empty() {
            return Err(Failure::Refused(
                ApiError::new(format!("there is no report of a failover {name}"))
                    .next("domain-ctl report failover shows those that are kept"),
            ));
        }
    }
    output::print(selection.output, &list, |list| {
        if list.items.is_empty() {
            return NOTHING_FOUND.to_owned();
        }
        let texts: Vec<String> = list.items.iter().map(text).collect();
        texts.join("\n")
    })
}

fn text(report: &FailoverReport) -> String {
    let verdict = match report.zero_data_loss {
        true => "no acknowledged write was lost (RPO 0)",
        false => "a LOSS was accepted: see the volumes",
    };
    let by = match report.automatic {
        true => "the failover policy",
        false => "an operator",
    };
    let proof = match report.proof.as_str() {
        "" => "not there yet",
        proof => proof,
    };
    let mut text = format!(
        "Failover:  {}\nDomain:    {}, deactivated by {by} at {}\nVerdict:   {verdict}\nFence:     {proof}\n",
        report.name,
        report.cluster_domain,
        timestamp::to_the_second(report.at_ms),
    );
    if !report.volumes.is_empty() {
        let rows: Vec<Vec<String>> = report.volumes.iter().map(row).collect();
        text.push_str(&table::render(
            &[
                "VOLUME",
                "MOVED",
                "RPO",
                "COMMITTED",
                "IN-SYNC BEFORE",
                "AFTER",
                "VERDICT",
            ],
            &rows,
        ));
    }
    if report.others > 0 {
        text.push_str(&format!(
            "and {} volumes that did not move and lacked nothing\n",
            report.others
        ));
    }
    text
}

fn row(volume: &FailoverVolume) -> Vec<String> {
    vec![
        volume.name.clone(),
        if volume.moved { "yes" } else { "no" }.to_owned(),
        if volume.zero_data_loss { "0" } else { "LOSS" }.to_owned(),
        volume
            .committed_seq
            .map_or_else(|| "?".to_owned(), |seq| format!("{}#{seq}", volume.epoch)),
        volume.in_sync_before.join(", "),
        volume.in_sync_after.join(", "),
        volume.verdict.clone(),
    ]
}

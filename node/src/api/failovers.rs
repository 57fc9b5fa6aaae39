//! Reports of failovers: what each deactivation of a data domain meant for the volumes.

use crate::api::facts::Facts;
use isthmus_api::{FailoverReport, FailoverReportList, FailoverVolume};
use isthmus_catalog::UpdateStatus;
use isthmus_engine::NodeId;
use std::collections::BTreeSet;

/// All reports, the newest first.
pub fn list(facts: &Facts) -> FailoverReportList {
    let items = facts.catalog.failovers.iter().rev();
    FailoverReportList {
        items: items.map(|report| one(facts, report)).collect(),
        observed: facts.observed(),
    }
}

fn one(facts: &Facts, report: &isthmus_catalog::FailoverReport) -> FailoverReport {
    let update = facts
        .catalog
        .updates
        .iter()
        .find(|update| update.name == report.name);
    let proof = update.filter(|update| update.status == UpdateStatus::Successful);
    FailoverReport {
        name: report.name.clone(),
        cluster_domain: facts.domain_name(report.domain),
        automatic: report.automatic,
        at_ms: report.at_ms,
        zero_data_loss: report.volumes.iter().all(|volume| !volume.lost),
        proof: proof.map_or_else(String::new, |update| update.detail.clone()),
        others: report.others,
        volumes: report
            .volumes
            .iter()
            .map(|volume| one_volume(facts, volume))
            .collect(),
    }
}

fn one_volume(facts: &Facts, volume: &isthmus_catalog::FailoverVolume) -> FailoverVolume {
    let names = |nodes: &BTreeSet<NodeId>| -> Vec<String> {
        nodes.iter().map(|node| facts.node_name(*node)).collect()
    };
    let survivors = names(&volume.in_sync_after).join(" and ");
    let verdict = if volume.lost {
        format!(
            "a loss was accepted: the in-sync set was {}, and {survivors} was not in it",
            names(&volume.in_sync_before).join(" and ")
        )
    } else if volume.unprotected_since_ms.is_some() {
        format!("no loss: {survivors} was in the in-sync set, which lacked a site already")
    } else {
        format!("no loss: {survivors} was in the in-sync set, and held every acknowledged write")
    };
    FailoverVolume {
        name: volume.name.clone(),
        moved: volume.moved,
        zero_data_loss: !volume.lost,
        epoch: volume.epoch.to_string(),
        in_sync_before: names(&volume.in_sync_before),
        in_sync_after: names(&volume.in_sync_after),
        unprotected_since_ms: volume.unprotected_since_ms,
        committed_seq: volume.committed_seq,
        verdict,
    }
}

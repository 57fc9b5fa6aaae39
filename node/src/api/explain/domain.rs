//! A cluster domain explained.

use super::{activate, all_of, deactivate, remedy};
use crate::api::facts::Facts;
use crate::api::{domains, verdict};
use isthmus_api::{ClusterDomain, DomainRole, DomainState, Explanation, Remedy, SyncStatus};
use isthmus_catalog::DomainRecord;
use isthmus_engine::DomainId;

/// Explains the state of a cluster domain.
pub fn domain(facts: &Facts, id: DomainId, record: &DomainRecord) -> Explanation {
    let shown = domains::domain(facts, id, record);
    let silent: Vec<String> = facts
        .nodes_of(id)
        .filter(|(node, _)| !facts.answers(*node))
        .map(|(_, node)| node.name.clone())
        .collect();
    let sync = shown
        .sync_status
        .map_or_else(String::new, |sync| format!(", {}", sync.as_str()));
    Explanation {
        subject: format!("clusterdomain {}", shown.name),
        state: format!("{:?}{sync}", shown.state),
        since_ms: Some(shown.since_ms),
        facts: says(facts, id, &shown, &silent),
        rule: rule(&shown).to_owned(),
        remedies: remedies(facts, id, &shown, &silent),
        observed: facts.observed(),
    }
}

fn says(facts: &Facts, id: DomainId, shown: &ClusterDomain, silent: &[String]) -> Vec<String> {
    let mut said = Vec::new();
    if !shown.reason.is_empty() {
        said.push(shown.reason.clone());
    }
    if silent.is_empty() {
        said.push(format!("all its nodes answer: {}", all_of(&shown.nodes)));
    }
    if shown.role == DomainRole::Witness {
        said.push("it only votes in kvdb: it holds no replicas".to_owned());
    }
    if shown.role == DomainRole::Data && shown.state == DomainState::Active {
        let loss = verdict::site_loss(facts, id);
        said.push(if loss.zero_data_loss {
            "if it failed now, no acknowledged write would be lost".to_owned()
        } else {
            "if it failed now, acknowledged writes could be lost".to_owned()
        });
        said.extend(loss.reasons);
    }
    if !facts.confirmed {
        said.push("no majority of kvdb's voters answers: this may be old".to_owned());
    }
    said
}

fn rule(shown: &ClusterDomain) -> &'static str {
    match shown.state {
        DomainState::Active => "",
        DomainState::Deactivating => {
            "it serves nothing already (I8); the deactivation is successful once it is proven that no node of it can serve: each said \
             so, or its time is over"
        }
        DomainState::Inactive => {
            "its nodes serve nothing, join no in-sync set and have no vote in kvdb until it is activated (I8)"
        }
        DomainState::Activating => {
            "its nodes serve nothing before they have caught up with kvdb (I8); its replicas count once they are in sync (I6)"
        }
    }
}

fn remedies(facts: &Facts, id: DomainId, shown: &ClusterDomain, silent: &[String]) -> Vec<Remedy> {
    let mut remedies = Vec::new();
    if !silent.is_empty() {
        remedies.push(remedy(
            format!("start {}", all_of(silent)),
            match shown.state {
                DomainState::Active => "its replicas are brought back by themselves",
                DomainState::Deactivating | DomainState::Inactive => {
                    "it learns that its domain is inactive, and serves nothing"
                }
                DomainState::Activating => "the activation goes on",
            },
        ));
    }
    // A diskless node that is away takes nothing from the domain.
    let is_serving_less = facts
        .nodes_of(id)
        .any(|(node, _)| !facts.answers(node) && !facts.catalog.diskless.contains(&node));
    match (shown.state, shown.role) {
        (DomainState::Inactive, _) => remedies.push(remedy(
            activate(&shown.name),
            "its nodes vote again, and its replicas are brought back: what changed meanwhile is copied",
        )),
        (DomainState::Active, DomainRole::Data) if is_serving_less => {
            remedies.push(without(facts, id, shown));
        }
        (DomainState::Active, DomainRole::Data)
            if shown.sync_status == Some(SyncStatus::NotInSync) =>
        {
            remedies.push(remedy(
                "domain-ctl get volumes",
                "shows which volumes lack a replica; domain-ctl explain volume NAME says why",
            ));
        }
        _ if !facts.confirmed => remedies.push(remedy(
            "domain-ctl get nodes",
            "shows which of kvdb's voters do not answer",
        )),
        _ => {}
    }
    remedies
}

/// What deactivating it would mean.
fn without(facts: &Facts, id: DomainId, shown: &ClusterDomain) -> Remedy {
    let plan = facts.catalog.plan_deactivation(id, &facts.answering());
    let consequence = match plan {
        Ok(plan) if !plan.lost.is_empty() => {
            "would be refused now: see --dry-run for which volumes would lose writes".to_owned()
        }
        Ok(_) => {
            "it is fenced (a lease at most), then the other site serves every acknowledged write"
                .to_owned()
        }
        Err(refusal) => format!("would be refused now: {refusal}"),
    };
    remedy(deactivate(&shown.name), consequence)
}

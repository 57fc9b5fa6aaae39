//! Cluster domains and their updates as the API shows them.

use crate::api::facts::Facts;
use crate::api::replicas;
use isthmus_api::{
    ClusterDomain, ClusterDomainUpdate, ClusterDomainUpdateList, ClusterDomainsStatus, DomainRole,
    DomainState, SyncStatus, UpdateAction, UpdateStatus,
};
use isthmus_catalog::{DomainRecord, DomainUpdate};
use isthmus_engine::DomainId;

/// All cluster domains, as the answering node sees them.
pub fn status(facts: &Facts) -> ClusterDomainsStatus {
    let local = facts.catalog.nodes.get(&facts.this_node);
    ClusterDomainsStatus {
        name: facts.catalog.cluster_name.clone(),
        local_domain: local.map_or_else(String::new, |node| facts.domain_name(node.domain)),
        domains: list(facts),
        created_ms: facts
            .catalog
            .domains
            .values()
            .map(|domain| domain.created_ms)
            .min()
            .unwrap_or(0),
        observed: facts.observed(),
    }
}

/// All cluster domains in the order of their ids.
pub fn list(facts: &Facts) -> Vec<ClusterDomain> {
    facts
        .catalog
        .domains
        .iter()
        .map(|(id, record)| domain(facts, *id, record))
        .collect()
}

/// One cluster domain.
pub fn domain(facts: &Facts, id: DomainId, record: &DomainRecord) -> ClusterDomain {
    let sync_status =
        (record.role == isthmus_catalog::DomainRole::Data).then(|| sync_status(facts, id, record));
    let (reason, next) = explanation(facts, id, record, sync_status);
    ClusterDomain {
        name: record.name.clone(),
        role: role(record.role),
        state: state(record.state),
        since_ms: record.since_ms,
        sync_status,
        nodes: facts
            .nodes_of(id)
            .map(|(_, node)| node.name.clone())
            .collect(),
        reason,
        next,
    }
}

/// How the domain's replicas stand, all volumes together. An inactive domain is never in sync: the others go on without it.
fn sync_status(facts: &Facts, id: DomainId, record: &DomainRecord) -> SyncStatus {
    if !facts.confirmed {
        return SyncStatus::SyncStatusUnknown;
    }
    if record.state != isthmus_catalog::DomainState::Active {
        return SyncStatus::NotInSync;
    }
    let states = facts.catalog.volumes.iter().flat_map(|(volume, record)| {
        let here = record.replicas.iter().filter(|node| {
            facts
                .catalog
                .nodes
                .get(node)
                .is_some_and(|node| node.domain == id)
        });
        here.map(|node| replicas::sync_status(&replicas::state(facts, *volume, record, *node)))
    });
    replicas::summary(states)
}

fn explanation(
    facts: &Facts,
    id: DomainId,
    record: &DomainRecord,
    sync: Option<SyncStatus>,
) -> (String, String) {
    use isthmus_catalog::DomainState as State;
    let silent: Vec<&str> = facts
        .nodes_of(id)
        .filter(|(node, _)| !facts.answers(*node))
        .map(|(_, node)| node.name.as_str())
        .collect();
    let update = facts
        .catalog
        .updates
        .iter()
        .rev()
        .find(|update| update.domain == id);
    let detail = update.map_or_else(String::new, |update| self::update(facts, update).detail);
    let name = &record.name;
    match record.state {
        State::Deactivating
            if update.is_some_and(|update| {
                matches!(update.status, isthmus_catalog::UpdateStatus::Failed(_))
            }) =>
        {
            (
                format!("its deactivation failed: {detail}"),
                format!("domain-ctl deactivate clusterdomain {name} --wait, or activate it"),
            )
        }
        State::Deactivating | State::Activating => (detail, String::new()),
        State::Inactive => (
            "it was deactivated: it serves nothing".to_owned(),
            format!("when it is back: domain-ctl activate clusterdomain {name} --wait"),
        ),
        State::Active if !silent.is_empty() => {
            let serves =
                |(node, _)| !facts.answers(node) && !facts.catalog.diskless.contains(&node);
            let next = match record.role {
                isthmus_catalog::DomainRole::Data if !facts.nodes_of(id).any(serves) => {
                    "start it".to_owned()
                }
                isthmus_catalog::DomainRole::Data => {
                    format!(
                        "start it, or if the site is lost: domain-ctl deactivate clusterdomain {name} --wait"
                    )
                }
                isthmus_catalog::DomainRole::Witness => "start it".to_owned(),
            };
            (format!("does not answer: {}", silent.join(", ")), next)
        }
        State::Active => match sync {
            Some(SyncStatus::NotInSync) => (
                "some of its replicas lack writes".to_owned(),
                "domain-ctl get volumes".to_owned(),
            ),
            Some(SyncStatus::SyncStatusUnknown) => (
                "nobody who would know how its replicas stand answers".to_owned(),
                "domain-ctl get nodes".to_owned(),
            ),
            None | Some(SyncStatus::InSync | SyncStatus::SyncInProgress) => {
                (String::new(), String::new())
            }
        },
    }
}

/// All updates, oldest first.
pub fn updates(facts: &Facts) -> ClusterDomainUpdateList {
    let items = facts
        .catalog
        .updates
        .iter()
        .map(|item| update(facts, item))
        .collect();
    ClusterDomainUpdateList {
        items,
        observed: facts.observed(),
    }
}

fn update(facts: &Facts, record: &DomainUpdate) -> ClusterDomainUpdate {
    let runtimes = facts
        .observations
        .values()
        .filter(|observation| observation.answers);
    let waiting = runtimes
        .filter_map(|observation| observation.runtime.as_ref())
        .flat_map(|runtime| &runtime.updates_waiting)
        .find(|(name, _)| *name == record.name);
    let (status, reason) = match &record.status {
        isthmus_catalog::UpdateStatus::Pending => (UpdateStatus::Pending, String::new()),
        isthmus_catalog::UpdateStatus::InProgress => (UpdateStatus::InProgress, String::new()),
        isthmus_catalog::UpdateStatus::Successful => (UpdateStatus::Successful, String::new()),
        isthmus_catalog::UpdateStatus::Failed(reason) => (UpdateStatus::Failed, reason.clone()),
    };
    ClusterDomainUpdate {
        name: record.name.clone(),
        cluster_domain: facts.domain_name(record.domain),
        action: match record.action {
            isthmus_catalog::UpdateAction::Activate => UpdateAction::Activate,
            isthmus_catalog::UpdateAction::Deactivate => UpdateAction::Deactivate,
        },
        detail: match (status, waiting) {
            (UpdateStatus::InProgress, Some((_, waits))) => waits.clone(),
            _ => record.detail.clone(),
        },
        status,
        reason,
        created_ms: record.created_ms,
    }
}

/// The catalog's role in the API's words.
pub fn role(role: isthmus_catalog::DomainRole) -> DomainRole {
    match role {
        isthmus_catalog::DomainRole::Data => DomainRole::Data,
        isthmus_catalog::DomainRole::Witness => DomainRole::Witness,
    }
}

/// The catalog's state in the API's words.
pub fn state(state: isthmus_catalog::DomainState) -> DomainState {
    match state {
        isthmus_catalog::DomainState::Active => DomainState::Active,
        isthmus_catalog::DomainState::Deactivating => DomainState::Deactivating,
        isthmus_catalog::DomainState::Inactive => DomainState::Inactive,
        isthmus_catalog::DomainState::Activating => DomainState::Activating,
    }
}

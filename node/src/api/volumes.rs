//! Volumes as the API shows them.

use crate::api::facts::Facts;
use crate::api::replicas;
use isthmus_api::{
    Durability, OnPeerLoss, Published, Relocating, Replica, ServiceState, SyncStatus, Volume,
    VolumeList, VolumeRole,
};
use isthmus_catalog::VolumeRecord;
use isthmus_engine::VolumeId;

/// All volumes in the order of their names.
pub fn list(facts: &Facts) -> VolumeList {
    let mut items: Vec<Volume> = facts
        .catalog
        .volumes
        .iter()
        .map(|(id, record)| volume(facts, *id, record))
        .collect();
    items.sort_by(|left, right| left.name.cmp(&right.name));
    VolumeList {
        items,
        observed: facts.observed(),
    }
}

/// One volume.
pub fn volume(facts: &Facts, id: VolumeId, record: &VolumeRecord) -> Volume {
    let replicas: Vec<_> = record
        .replicas
        .iter()
        .map(|node| replicas::replica(facts, id, record, *node))
        .collect();
    let sync_status = replicas::summary(
        replicas
            .iter()
            .map(|replica| replicas::sync_status(&replica.state)),
    );
    let (service, reason, next) = service(facts, id, record);
    let (sync_reason, sync_next) = lack(facts, record, sync_status, &replicas);
    Volume {
        name: record.name.clone(),
        id: id.0,
        bytes: record.bytes,
        block_bytes: record.block_bytes,
        created_ms: record.created_ms,
        on_peer_loss: match record.policy.on_peer_loss {
            isthmus_catalog::OnPeerLoss::Degrade => OnPeerLoss::Degrade,
            isthmus_catalog::OnPeerLoss::Suspend => OnPeerLoss::Suspend,
        },
        durability: match record.policy.durability {
            isthmus_catalog::Durability::Acknowledged => Durability::Acknowledged,
            isthmus_catalog::Durability::Flush => Durability::Flush,
        },
        preferred_domain: record
            .policy
            .preferred_domain
            .map(|domain| facts.domain_name(domain)),
        epoch: record.epoch.to_string(),
        service,
        sync_status,
        primary: record.primary.map(|primary| facts.node_name(primary.node)),
        in_sync: record
            .in_sync
            .iter()
            .map(|replica| facts.node_name(replica.node))
            .collect(),
        replicas,
        unprotected_since_ms: record.unprotected_since_ms,
        published: facts
            .catalog
            .published
            .get(&id)
            .map(|published| Published {
                node: facts.node_name(published.node),
                since_ms: published.since_ms,
                read_only: published.read_only,
            })
            .into_iter()
            .collect(),
        relocating: facts
            .catalog
            .relocations
            .get(&id)
            .map(|relocation| Relocating {
                to: facts.node_name(relocation.to),
                since_ms: relocation.since_ms,
            }),
        nbd: addresses(facts, id, record),
        reason: joined(joined(reason, catching_up(facts, id)), sync_reason),
        next: joined(next, sync_next),
    }
}

fn joined(first: String, second: String) -> String {
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second,
        (_, true) => first,
        (false, false) => format!("{first}; {second}"),
    }
}

/// Which members lost power, and may lack what another one has kept.
fn catching_up(facts: &Facts, id: VolumeId) -> String {
    let Some(rebooted) = facts.catalog.rebooted.get(&id) else {
        return String::new();
    };
    let names: Vec<String> = rebooted
        .iter()
        .map(|replica| facts.node_name(replica.node))
        .collect();
    format!(
        "the machine of {} was booted anew: its replica serves again once it has caught up with another in-sync one",
        names.join(", ")
    )
}

/// Whether the volume's clients are answered, why not, and what to do.
fn service(facts: &Facts, id: VolumeId, record: &VolumeRecord) -> (ServiceState, String, String) {
    if facts.catalog.unproven.contains(&id) {
        return (
            ServiceState::Stopped,
            format!(
                "generation {} was forced, and nobody has said yet which replica counts",
                facts.catalog.lineage
            ),
            format!(
                "domain-ctl recover volume {} shows what there is, --from NODE names one",
                record.name
            ),
        );
    }
    let Some(primary) = record.primary else {
        return (ServiceState::Idle, String::new(), String::new());
    };
    let node = facts.node_name(primary.node);
    let Some(runtime) = facts.runtime(primary.node, id) else {
        let domain = facts
            .catalog
            .nodes
            .get(&primary.node)
            .map(|node| facts.domain_name(node.domain));
        let next = domain.map_or_else(String::new, |domain| {
            format!("if that site is lost: domain-ctl deactivate clusterdomain {domain} --wait; else start its node")
        });
        return (
            ServiceState::Unknown,
            format!("the primary's node {node} does not answer"),
            next,
        );
    };
    let said = runtime.reason.clone();
    match runtime.role {
        VolumeRole::Primary => (ServiceState::Serving, said, String::new()),
        VolumeRole::Idle | VolumeRole::Secondary | VolumeRole::Opening => {
            let reason = if said.is_empty() {
                format!("{node} makes the replicas agree before it serves")
            } else {
                said
            };
            (ServiceState::Opening, reason, String::new())
        }
        VolumeRole::Frozen => {
            let silent: Vec<String> = record
                .in_sync
                .iter()
                .filter(|replica| !facts.answers(replica.node))
                .map(|replica| facts.node_name(replica.node))
                .collect();
            let reason = if said.is_empty() {
                "I/O waits".to_owned()
            } else {
                said
            };
            let next = if silent.is_empty() {
                String::new()
            } else {
                unfreeze(facts, record, &silent)
            };
            (ServiceState::Frozen, reason, next)
        }
        VolumeRole::Unable => (
            ServiceState::Stopped,
            said,
            "open it at the other site, where its replica is in sync".to_owned(),
        ),
        VolumeRole::Stopped => (
            ServiceState::Stopped,
            said,
            format!("look at the log of {node}; another in-sync replica may take over"),
        ),
    }
}

fn unfreeze(facts: &Facts, record: &VolumeRecord, silent: &[String]) -> String {
    let domains: Vec<String> = record
        .in_sync
        .iter()
        .filter(|replica| !facts.answers(replica.node))
        .filter_map(|replica| facts.catalog.nodes.get(&replica.node))
        .map(|node| facts.domain_name(node.domain))
        .collect();
    format!(
        "start {}, or if that site is lost: domain-ctl deactivate clusterdomain {} --wait",
        silent.join(" and "),
        domains.first().map_or("DOMAIN", String::as_str)
    )
}

/// What the in-sync set lacks, and what brings it back.
fn lack(
    facts: &Facts,
    record: &VolumeRecord,
    status: SyncStatus,
    replicas: &[Replica],
) -> (String, String) {
    let mut behind = replicas.iter().zip(&record.replicas);
    let kept_out = behind.find_map(|(replica, node)| {
        replicas::kept_out(facts, record, *node).map(|reason| (replica, reason))
    });
    let inactive: Vec<String> = record
        .replicas
        .iter()
        .filter(|node| !facts.in_active_domain(**node))
        .filter_map(|node| facts.catalog.nodes.get(node))
        .map(|node| facts.domain_name(node.domain))
        .collect();
    match status {
        SyncStatus::InSync | SyncStatus::SyncInProgress => (String::new(), String::new()),
        SyncStatus::NotInSync if !inactive.is_empty() => (
            format!("it has no in-sync replica in {}", inactive.join(", ")),
            format!(
                "when that site is back: domain-ctl activate clusterdomain {} --wait",
                inactive[0]
            ),
        ),
        SyncStatus::NotInSync if kept_out.is_some() => {
            let why = |(replica, reason): (&Replica, String)| format!("{}: {reason}", replica.node);
            let next = "the link is the cause: domain-ctl get links".to_owned();
            (kept_out.map_or_else(String::new, why), next)
        }
        SyncStatus::NotInSync => (
            "a replica lacks acknowledged writes".to_owned(),
            "start its node; it is brought back by itself".to_owned(),
        ),
        SyncStatus::SyncStatusUnknown if !facts.confirmed => (
            "no majority of kvdb's voters confirms its in-sync set".to_owned(),
            "start the nodes that do not answer: domain-ctl get nodes".to_owned(),
        ),
        SyncStatus::SyncStatusUnknown => (String::new(), String::new()),
    }
}

/// Where a client may open the volume now: at its primary, or while there is none at any in-sync replica that has kept all that it held.
fn addresses(facts: &Facts, id: VolumeId, record: &VolumeRecord) -> Vec<String> {
    let kept = record
        .in_sync
        .iter()
        .filter(|replica| !facts.catalog.is_rebooted(id, **replica));
    let nodes = kept.map(|replica| replica.node);
    let goal = facts.catalog.relocations.get(&id);
    let published = facts.catalog.published.get(&id);
    let open = nodes.filter(|node| match (goal, record.primary) {
        (Some(goal), _) => goal.to == *node,
        (None, Some(primary)) => primary.node == *node,
        (None, None) => published.is_none_or(|published| published.node == *node),
    });
    open.filter(|node| facts.in_active_domain(*node))
        .filter_map(|node| facts.catalog.nodes.get(&node)?.nbd_address.as_ref())
        .map(|address| format!("nbd://{address}/{}", record.name))
        .collect()
}

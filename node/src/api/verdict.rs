//! The cluster at one glance: would any acknowledged write be lost if a site failed now?

use crate::api::facts::Facts;
use crate::api::{domains, links, volumes};
use isthmus_api::{KvdbStatus, ReplicaState, Resync, SiteLoss, Status, SyncStatus, Volume};
use isthmus_catalog::{DomainRole, DomainState};
use isthmus_engine::{DomainId, NodeId};
use std::collections::BTreeSet;

/// Lines of a list that may be as long as there are volumes.
const LINES_MAX: usize = 100;

/// The cluster at one glance.
pub fn status(facts: &Facts) -> Status {
    let volumes = volumes::list(facts).items;
    let active_data = facts.catalog.domains.iter().filter(|(_, domain)| {
        domain.role == DomainRole::Data && domain.state == DomainState::Active
    });
    Status {
        cluster: facts.catalog.cluster_name.clone(),
        site_loss: active_data.map(|(id, _)| site_loss(facts, *id)).collect(),
        domains: domains::list(facts),
        kvdb: kvdb(facts),
        links: links::between_data_domains(facts),
        volumes: count(volumes.len()),
        volumes_in_sync: count(
            volumes
                .iter()
                .filter(|volume| volume.sync_status == SyncStatus::InSync)
                .count(),
        ),
        volume_problems: volumes.iter().filter_map(problem).take(LINES_MAX).collect(),
        resyncs: volumes.iter().flat_map(resyncs).take(LINES_MAX).collect(),
        nodes_silent: facts
            .catalog
            .nodes
            .iter()
            .filter(|(id, _)| !facts.answers(**id))
            .map(|(_, node)| node.name.clone())
            .collect(),
        observed: facts.observed(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What would happen if the domain `lost` failed now: a volume keeps its writes where another active domain has an in-sync
/// replica on a node that answers.
pub fn site_loss(facts: &Facts, lost: DomainId) -> SiteLoss {
    let mut reasons = Vec::new();
    let outside = |node: NodeId| {
        facts
            .catalog
            .nodes
            .get(&node)
            .is_some_and(|record| record.domain != lost)
    };
    let mut alone: Vec<&str> = Vec::new();
    for (id, volume) in &facts.catalog.volumes {
        let counts = !facts.catalog.unproven.contains(id);
        let kept = counts
            && volume.in_sync.iter().any(|replica| {
                outside(replica.node)
                    && facts.in_active_domain(replica.node)
                    && facts.answers(replica.node)
            });
        if !kept {
            alone.push(&volume.name);
        }
    }
    if !facts.confirmed {
        reasons.push("not known: no majority of kvdb's voters answers".to_owned());
    }
    if !alone.is_empty() {
        let others = alone.len().saturating_sub(10);
        alone.truncate(10);
        let more = if others > 0 {
            format!(" and {others} more")
        } else {
            String::new()
        };
        reasons.push(format!(
            "no in-sync replica that answers elsewhere: {}{more}",
            alone.join(", ")
        ));
    }
    let zero_data_loss = reasons.is_empty();
    let voters = &facts.kvdb.voters;
    let left = voters
        .iter()
        .filter(|id| outside(NodeId(**id)) && facts.answers(NodeId(**id)))
        .count();
    let kvdb_goes_on = left * 2 > voters.len();
    if !kvdb_goes_on {
        reasons.push(format!(
            "kvdb would keep {left} of {} voters: no majority to take over with",
            voters.len()
        ));
    }
    SiteLoss {
        domain: facts.domain_name(lost),
        zero_data_loss,
        kvdb_goes_on,
        reasons,
    }
}

fn kvdb(facts: &Facts) -> KvdbStatus {
    let voters = &facts.kvdb.voters;
    let answering: Vec<NodeId> = voters
        .iter()
        .map(|id| NodeId(*id))
        .filter(|id| facts.answers(*id))
        .collect();
    let needed = voters.len() / 2 + 1;
    KvdbStatus {
        leader: facts.kvdb.leader.map(|id| facts.node_name(NodeId(id))),
        voters: voters
            .iter()
            .map(|id| facts.node_name(NodeId(*id)))
            .collect(),
        voters_answering: answering.iter().map(|id| facts.node_name(*id)).collect(),
        quorum_margin: answering.len().checked_sub(needed).map(count),
        tolerates_loss_of: tolerated(facts, &answering, needed),
        generation: facts.kvdb.generation.clone(),
        strangers: facts
            .kvdb
            .strangers
            .iter()
            .map(|(node, generation)| {
                format!(
                    "{} (generation {generation})",
                    facts.node_name(NodeId(*node))
                )
            })
            .collect(),
    }
}

/// The domains without which enough voters answer.
fn tolerated(facts: &Facts, answering: &[NodeId], needed: usize) -> Vec<String> {
    let domain_of = |node: &NodeId| facts.catalog.nodes.get(node).map(|record| record.domain);
    let domains: BTreeSet<DomainId> = answering.iter().filter_map(domain_of).collect();
    let tolerated = domains.into_iter().filter(|domain| {
        let left = answering
            .iter()
            .filter(|node| domain_of(node) != Some(*domain));
        left.count() >= needed
    });
    tolerated.map(|domain| facts.domain_name(domain)).collect()
}

fn problem(volume: &Volume) -> Option<String> {
    if volume.reason.is_empty() {
        return None;
    }
    let next = if volume.next.is_empty() {
        String::new()
    } else {
        format!("; {}", volume.next)
    };
    Some(format!(
        "{} ({:?}): {}{next}",
        volume.name, volume.service, volume.reason
    ))
}

fn resyncs(volume: &Volume) -> impl Iterator<Item = Resync> {
    volume
        .replicas
        .iter()
        .filter_map(|replica| match replica.state {
            ReplicaState::Resyncing {
                done_bytes,
                total_bytes,
                bytes_per_second,
                seconds_left,
            } => Some(Resync {
                volume: volume.name.clone(),
                node: replica.node.clone(),
                done_bytes,
                total_bytes,
                bytes_per_second,
                seconds_left,
            }),
            ReplicaState::InSync | ReplicaState::NotInSync { .. } | ReplicaState::Unknown => None,
        })
}

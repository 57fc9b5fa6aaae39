//! How a replica stands: from the committed set first, then from what its volume's primary says.

use crate::api::facts::Facts;
use crate::api::links;
use isthmus_api::{Replica, ReplicaState, SyncStatus};
use isthmus_catalog::{DomainState, OnPeerLoss, VolumeRecord};
use isthmus_engine::{NodeId, VolumeId};

/// How the replica of `volume` on `node` stands.
pub fn state(facts: &Facts, id: VolumeId, volume: &VolumeRecord, node: NodeId) -> ReplicaState {
    if !facts.confirmed {
        return ReplicaState::Unknown; // The other side may have shrunk the set since.
    }
    let registered = facts
        .catalog
        .nodes
        .get(&node)
        .and_then(|record| record.incarnation);
    let in_set = volume
        .in_sync
        .iter()
        .any(|replica| replica.node == node && Some(replica.incarnation) == registered);
    if in_set {
        return ReplicaState::InSync;
    }
    let outside = ReplicaState::NotInSync {
        since_ms: volume.unprotected_since_ms,
        dirty_bytes: None,
    };
    let Some(primary) = volume.primary else {
        return outside;
    };
    let Some(runtime) = facts.runtime(primary.node, id) else {
        // Only the primary knows whether it brings the replica back; an inactive domain's replicas nobody brings back.
        return if facts.in_active_domain(node) {
            ReplicaState::Unknown
        } else {
            outside
        };
    };
    match runtime
        .absent
        .iter()
        .find(|progress| progress.node == node.0)
    {
        None => outside,
        Some(progress) if progress.resyncing => ReplicaState::Resyncing {
            done_bytes: progress.done_bytes,
            total_bytes: progress.total_bytes,
            bytes_per_second: progress.bytes_per_second,
            seconds_left: progress
                .total_bytes
                .saturating_sub(progress.done_bytes)
                .checked_div(progress.bytes_per_second),
        },
        Some(progress) => ReplicaState::NotInSync {
            since_ms: progress.since_ms.or(volume.unprotected_since_ms),
            dirty_bytes: Some(progress.dirty_bytes),
        },
    }
}

/// The state in one of storkctl's four words.
pub fn sync_status(state: &ReplicaState) -> SyncStatus {
    match state {
        ReplicaState::InSync => SyncStatus::InSync,
        ReplicaState::Resyncing { .. } => SyncStatus::SyncInProgress,
        ReplicaState::NotInSync { .. } => SyncStatus::NotInSync,
        ReplicaState::Unknown => SyncStatus::SyncStatusUnknown,
    }
}

/// The word for several replicas together: progress is shown before lack, lack before ignorance.
pub fn summary(states: impl Iterator<Item = SyncStatus>) -> SyncStatus {
    let mut summary = SyncStatus::InSync;
    for state in states {
        summary = match (summary, state) {
            (SyncStatus::SyncInProgress, _) | (_, SyncStatus::SyncInProgress) => {
                SyncStatus::SyncInProgress
            }
            (SyncStatus::NotInSync, _) | (_, SyncStatus::NotInSync) => SyncStatus::NotInSync,
            (SyncStatus::SyncStatusUnknown, _) | (_, SyncStatus::SyncStatusUnknown) => {
                SyncStatus::SyncStatusUnknown
            }
            (SyncStatus::InSync, SyncStatus::InSync) => SyncStatus::InSync,
        };
    }
    summary
}

/// Why it is not brought back, where that is for the link to a member of the set.
pub fn kept_out(facts: &Facts, volume: &VolumeRecord, node: NodeId) -> Option<String> {
    if volume.policy.on_peer_loss != OnPeerLoss::Degrade {
        return None;
    }
    let (member, kept_out) = volume.in_sync.iter().find_map(|member| {
        let kept_out = links::kept_out(facts, member.node, node)?;
        Some((member.node, kept_out))
    })?;
    Some(format!(
        "it is out of the set for the link to {}, at {}: {}; {}",
        facts.node_name(member),
        clock_time(kept_out.since_ms),
        kept_out.reason,
        links::staying_out(kept_out, facts.now_ms)
    ))
}

/// `14:02:11 UTC`.
pub fn clock_time(ms: u64) -> String {
    let seconds = ms / 1000;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02} UTC", seconds % 60)
}

/// All that is known of the replica of `volume` on `node`.
pub fn replica(facts: &Facts, id: VolumeId, volume: &VolumeRecord, node: NodeId) -> Replica {
    let state = state(facts, id, volume, node);
    let record = facts.catalog.nodes.get(&node);
    let domain = record.and_then(|record| facts.catalog.domains.get(&record.domain));
    let own = facts
        .runtime(node, id)
        .map(|runtime| runtime.reason.clone())
        .filter(|reason| !reason.is_empty());
    let reason = match (&state, domain) {
        _ if own.is_some() => own.unwrap_or_default(),
        (_, Some(domain)) if domain.state != DomainState::Active => {
            format!(
                "its domain {} is {}",
                domain.name,
                format!("{:?}", domain.state).to_lowercase()
            )
        }
        _ if !facts.answers(node) => "its node does not answer".to_owned(),
        (ReplicaState::InSync, _) => String::new(),
        (ReplicaState::Resyncing { .. }, _) => "it is being brought back".to_owned(),
        (ReplicaState::NotInSync { .. }, _) if kept_out(facts, volume, node).is_some() => {
            kept_out(facts, volume, node).unwrap_or_default()
        }
        (ReplicaState::NotInSync { .. }, _) if volume.primary.is_none() => {
            "it lacks writes; it is brought back once a client is attached to the volume".to_owned()
        }
        (ReplicaState::NotInSync { .. }, _) => {
            "it lacks writes and waits to be brought back".to_owned()
        }
        (ReplicaState::Unknown, _) if !facts.confirmed => {
            "no majority of kvdb's voters confirms it".to_owned()
        }
        (ReplicaState::Unknown, _) => "the volume's primary does not answer".to_owned(),
    };
    Replica {
        node: facts.node_name(node),
        domain: record.map_or_else(String::new, |record| facts.domain_name(record.domain)),
        primary: volume.primary.is_some_and(|primary| primary.node == node),
        state,
        observed_at_ms: facts.heard_at_ms(node),
        reason,
        disk: facts
            .runtime(node, id)
            .map(|runtime| runtime.disk.clone())
            .unwrap_or_default(),
    }
}

//! What the data path says about itself.

use super::inputs::Ticket;
use crate::api::access::now_ms;
use crate::serve::DataPathState;
use isthmus_api::{
    DiskState, FaultKind, Grant, ReplicaFault, ReplicaProgress, VolumeRole, VolumeRuntime,
};
use isthmus_disk::FileDisk;
use isthmus_engine::{Standing, Time};
use isthmus_host::{Host, VolumeStatus};
use std::time::Duration;

/// The state of all volumes, having acted on the catalog up to `revision`.
pub fn state(host: &Host<FileDisk, Ticket>, now: Time, revision: u64) -> DataPathState {
    let mut volumes: Vec<VolumeRuntime> = host
        .status(now)
        .iter()
        .map(|status| runtime(status, now))
        .collect();
    volumes.extend(host.closed().iter().map(|(volume, reason)| VolumeRuntime {
        volume: volume.0,
        epoch: (0, 0),
        role: VolumeRole::Stopped,
        may_serve: false,
        committed_seq: 0,
        last_epoch: (0, 0),
        last_seq: 0,
        whole: false,
        clients: 0,
        welcomed: false,
        absent: Vec::new(),
        moved_bytes: 0,
        reason: reason.clone(),
        frozen_since_ms: None,
        grants: Vec::new(),
        disk: DiskState::default(),
    }));
    volumes.sort_by_key(|volume| volume.volume);
    DataPathState {
        acted_on_revision: revision,
        volumes,
    }
}

fn runtime(status: &VolumeStatus, now: Time) -> VolumeRuntime {
    let (role, may_serve, reason) = match &status.standing {
        Standing::Idle | Standing::Releasing => (VolumeRole::Idle, false, String::new()),
        Standing::Following { .. } => (VolumeRole::Secondary, false, String::new()),
        Standing::Promoting { waits_for } => {
            (VolumeRole::Opening, true, format!("waits for {waits_for}"))
        }
        Standing::Serving { frozen: None } => (VolumeRole::Primary, true, String::new()),
        Standing::Serving {
            frozen: Some(reason),
        } => (VolumeRole::Frozen, true, reason.clone()),
        Standing::Unable(reason) => (VolumeRole::Unable, false, reason.clone()),
        Standing::Damaged(reason) => (VolumeRole::Stopped, false, reason.clone()),
    };
    VolumeRuntime {
        volume: status.volume.0,
        epoch: (status.epoch.generation, status.epoch.number),
        role,
        may_serve,
        committed_seq: status.committed.0,
        last_epoch: (status.end_epoch.generation, status.end_epoch.number),
        last_seq: status.end.0,
        whole: status.whole,
        clients: u32::try_from(status.clients).unwrap_or(u32::MAX),
        welcomed: status.welcomed,
        absent: absent(status),
        moved_bytes: status.moved_bytes,
        reason,
        frozen_since_ms: status
            .frozen_for
            .map(|ago| now_ms().saturating_sub(ms(ago))),
        grants: status
            .grants
            .iter()
            .map(|grant| Grant {
                from: grant.from.map(|node| node.0),
                to: grant.to.0,
                ends_in_ms: ms(grant.until.since(now)),
            })
            .collect(),
        disk: disk(status, now),
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn disk(status: &VolumeStatus, now: Time) -> DiskState {
    // The host counts by a clock that starts with the machine; people read the wall's.
    let at = |since: Time| now_ms().saturating_sub(ms(now.since(since)));
    DiskState {
        bad_blocks: status.bad_blocks,
        checksum_errors: status.checksum_errors,
        repaired_blocks: status.repaired_blocks,
        fault: status.fault.as_ref().map(|fault| ReplicaFault {
            kind: match fault.kind {
                isthmus_host::FaultKind::Full => FaultKind::Full,
                isthmus_host::FaultKind::Failing => FaultKind::Failing,
                isthmus_host::FaultKind::Lost => FaultKind::Lost,
            },
            reason: fault.reason.clone(),
            since_ms: at(fault.since),
        }),
        short_of_space_since_ms: status.short_of_space_since.map(at),
    }
}

/// The replicas outside the set, as a primary sees them.
fn absent(status: &VolumeStatus) -> Vec<ReplicaProgress> {
    let mut absent: Vec<ReplicaProgress> = Vec::new();
    for (replica, dirty_bytes) in &status.dirty {
        absent.push(ReplicaProgress {
            node: replica.node.0,
            resyncing: false,
            dirty_bytes: *dirty_bytes,
            done_bytes: 0,
            total_bytes: 0,
            bytes_per_second: 0,
            since_ms: None,
        });
    }
    for (node, progress) in &status.joiners {
        let done = progress.total_bytes.saturating_sub(progress.left_bytes);
        let dirty_bytes = absent
            .iter()
            .find(|absent| absent.node == node.0)
            .map_or(progress.left_bytes, |absent| absent.dirty_bytes);
        absent.retain(|absent| absent.node != node.0);
        absent.push(ReplicaProgress {
            node: node.0,
            resyncing: true,
            dirty_bytes,
            done_bytes: done,
            total_bytes: progress.total_bytes,
            bytes_per_second: progress.bytes_per_second,
            since_ms: None,
        });
    }
    absent
}

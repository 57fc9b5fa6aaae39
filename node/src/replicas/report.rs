//! What the data path says about itself.

use super::inputs::Ticket;
use crate::serve::DataPathState;
use isthmus_api::{ReplicaProgress, VolumeRole, VolumeRuntime};
use isthmus_disk::FileDisk;
use isthmus_engine::{Standing, Time};
use isthmus_host::{Host, VolumeStatus};

/// The state of all volumes, having acted on the catalog up to `revision`.
pub fn state(host: &Host<FileDisk, Ticket>, now: Time, revision: u64) -> DataPathState {
    let mut volumes: Vec<VolumeRuntime> = host.status(now).iter().map(runtime).collect();
    volumes.extend(host.closed().iter().map(|(volume, reason)| VolumeRuntime {
        volume: volume.0,
        epoch: (0, 0),
        role: VolumeRole::Stopped,
        may_serve: false,
        committed_seq: 0,
        clients: 0,
        absent: Vec::new(),
        moved_bytes: 0,
        reason: reason.clone(),
    }));
    volumes.sort_by_key(|volume| volume.volume);
    DataPathState {
        acted_on_revision: revision,
        volumes,
    }
}

fn runtime(status: &VolumeStatus) -> VolumeRuntime {
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
        Standing::Damaged(reason) => (VolumeRole::Stopped, false, reason.clone()),
    };
    VolumeRuntime {
        volume: status.volume.0,
        epoch: (status.epoch.generation, status.epoch.number),
        role,
        may_serve,
        committed_seq: status.committed.0,
        clients: u32::try_from(status.clients).unwrap_or(u32::MAX),
        absent: absent(status),
        moved_bytes: status.moved_bytes,
        reason,
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

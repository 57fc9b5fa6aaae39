//! A volume of the cluster in the interface's words.

use crate::identity::Driver;
use crate::names;
use crate::refusals::{needed, no_such_volume, status};
use crate::sizes;
use isthmus_api::{ServiceState, SyncStatus, Volume};
use isthmus_csi_interface::v1;
use std::collections::{BTreeSet, HashMap};
use tonic::Status;

/// The volume with that id.
///
/// # Errors
/// INVALID_ARGUMENT for no id, NOT_FOUND where there is none.
pub fn find(driver: &Driver, id: &str) -> Result<Volume, Status> {
    let id = needed("volume_id", id)?;
    if !names::is_volume_name(id) {
        return Err(no_such_volume(id));
    }
    driver.cluster.volume(id).map_err(status)
}

/// The volume as the interface shows it: reachable from each domain that has a replica.
pub fn volume(driver: &Driver, volume: &Volume) -> v1::Volume {
    let domains: BTreeSet<&str> = volume
        .replicas
        .iter()
        .map(|replica| replica.domain.as_str())
        .collect();
    let accessible_topology = domains.into_iter().map(|domain| topology(driver, domain));
    v1::Volume {
        capacity_bytes: sizes::signed(volume.bytes),
        volume_id: volume.name.clone(),
        volume_context: HashMap::new(),
        content_source: None,
        accessible_topology: accessible_topology.collect(),
    }
}

/// A domain as a segment of topology.
pub fn topology(driver: &Driver, domain: &str) -> v1::Topology {
    v1::Topology {
        segments: HashMap::from([(driver.topology_key(), domain.to_owned())]),
    }
}

/// The nodes at which it is published.
pub fn published_nodes(volume: &Volume) -> Vec<String> {
    let published = volume.published.iter();
    published.map(|published| published.node.clone()).collect()
}

/// Whether all is well with it: it is in sync, and answers whoever uses it.
pub fn condition(volume: &Volume) -> v1::VolumeCondition {
    let answers = match volume.service {
        ServiceState::Idle | ServiceState::Opening | ServiceState::Serving => true,
        ServiceState::Frozen | ServiceState::Stopped | ServiceState::Unknown => false,
    };
    let abnormal = !answers || volume.sync_status != SyncStatus::InSync;
    let mut message = format!("{:?}, {}", volume.service, volume.sync_status.as_str());
    for more in [&volume.reason, &volume.next] {
        if !more.is_empty() {
            message.push_str("; ");
            message.push_str(more);
        }
    }
    v1::VolumeCondition { abnormal, message }
}

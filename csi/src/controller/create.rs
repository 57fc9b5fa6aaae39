//! Makes and deletes volumes.

use super::describe;
use crate::capabilities;
use crate::cluster::Trouble;
use crate::identity::Driver;
use crate::names;
use crate::parameters::{FS_TYPE, Parameters};
use crate::refusals::{needed, status};
use crate::sizes::Range;
use isthmus_api::{CreateVolume, Volume};
use isthmus_csi_interface::v1::{
    CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse,
    TopologyRequirement,
};
use tonic::Status;

/// CreateVolume: the volume of that name, if it is as asked for; made, if there is none.
pub fn create(
    driver: &Driver,
    request: &CreateVolumeRequest,
) -> Result<CreateVolumeResponse, Status> {
    let name = names::volume_name(&request.name).map_err(Status::invalid_argument)?;
    capabilities::read_all(&request.volume_capabilities)?;
    let parameters = Parameters::read(&request.parameters, &request.mutable_parameters)
        .map_err(Status::invalid_argument)?;
    let range = Range::read(request.capacity_range.as_ref())?;
    if request.volume_content_source.is_some() {
        return Err(Status::invalid_argument(
            "volume_content_source is not possible: this driver has no snapshots and no clones",
        ));
    }
    if let Some(wanted) = &request.accessibility_requirements {
        check_topology(driver, wanted)?;
    }
    let volume = match driver.cluster.volume(&name) {
        Ok(volume) => volume,
        Err(Trouble::Unknown(_)) => make(driver, &name, &parameters, range)?,
        Err(trouble) => return Err(status(trouble)),
    };
    check_same(&volume, &parameters, range)?;
    let mut described = describe::volume(driver, &volume);
    if let Some(fs_type) = parameters.fs_type {
        described.volume_context.insert(FS_TYPE.to_owned(), fs_type);
    }
    Ok(CreateVolumeResponse {
        volume: Some(described),
    })
}

fn make(
    driver: &Driver,
    name: &str,
    parameters: &Parameters,
    range: Range,
) -> Result<Volume, Status> {
    let wanted = CreateVolume {
        name: name.to_owned(),
        bytes: range.choose()?,
        block_bytes: parameters.block_bytes.unwrap_or(4096),
        on_peer_loss: parameters.on_peer_loss.unwrap_or_default(),
        durability: parameters.durability.unwrap_or_default(),
        preferred_domain: parameters.preferred_domain.clone().flatten(),
        replicas_per_domain: parameters.replicas_per_domain.unwrap_or(1),
    };
    let refused = match driver.cluster.create(&wanted) {
        Ok(()) => None,
        // Another call may have made it meanwhile: then it is compared like one that was there. If not, the refusal says why it can't be made.
        Err(trouble @ Trouble::Conflict { .. }) => Some(trouble),
        Err(trouble) => return Err(status(trouble)),
    };
    match (driver.cluster.volume(name), refused) {
        (Err(Trouble::Unknown(_)), Some(refused)) => Err(status(refused)),
        (Err(Trouble::Unknown(_)), None) => Err(Status::unavailable(format!(
            "volume {name} was made, but no node that answers knows it yet; try again"
        ))),
        (result, _) => result.map_err(status),
    }
}

/// ALREADY_EXISTS unless the volume is as asked for.
fn check_same(volume: &Volume, parameters: &Parameters, range: Range) -> Result<(), Status> {
    let other = |what: &str| {
        Err(Status::already_exists(format!(
            "volume {} is there with another {what}",
            volume.name
        )))
    };
    if !range.holds(volume.bytes) {
        return other("size");
    }
    if volume.block_bytes != parameters.block_bytes.unwrap_or(4096) {
        return other("blockSize");
    }
    if volume.on_peer_loss != parameters.on_peer_loss.unwrap_or_default() {
        return other("onPeerLoss");
    }
    if volume.durability != parameters.durability.unwrap_or_default() {
        return other("durability");
    }
    if replicas_per_domain(volume) < usize::from(parameters.replicas_per_domain.unwrap_or(1)) {
        return other("replicasPerDomain");
    }
    if volume.preferred_domain != parameters.preferred_domain.clone().flatten() {
        return other("preferredDomain");
    }
    Ok(())
}

/// Replicas in the domain that has the fewest of those that have some: an operator may have added others.
fn replicas_per_domain(volume: &Volume) -> usize {
    let domains = volume.replicas.iter().map(|replica| &replica.domain);
    let counts = domains.map(|domain| {
        let there = volume.replicas.iter();
        there.filter(|replica| replica.domain == *domain).count()
    });
    counts.min().unwrap_or_default()
}

/// A replica is made in every data domain, whichever the orchestrator prefers: so one of those that it requires must be one of them.
fn check_topology(driver: &Driver, wanted: &TopologyRequirement) -> Result<(), Status> {
    if wanted.requisite.is_empty() {
        return Ok(());
    }
    let domains = driver.cluster.data_domains().map_err(status)?;
    let key = driver.topology_key();
    let reachable = wanted.requisite.iter().any(|topology| {
        topology
            .segments
            .get(&key)
            .is_some_and(|domain| domains.contains(domain))
    });
    if reachable {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!(
        "none of the required topologies is a data domain of the cluster: {key} is one of {}",
        domains.join(", ")
    )))
}

/// DeleteVolume: gone, or never there.
pub fn delete(
    driver: &Driver,
    request: &DeleteVolumeRequest,
) -> Result<DeleteVolumeResponse, Status> {
    let id = needed("volume_id", &request.volume_id)?;
    if !names::is_volume_name(id) {
        return Ok(DeleteVolumeResponse {});
    }
    match driver.cluster.volume(id) {
        Ok(volume) => {
            let nodes = describe::published_nodes(&volume);
            if !nodes.is_empty() {
                return Err(Status::failed_precondition(format!(
                    "volume {id} is published to {}; unpublish it first",
                    nodes.join(", ")
                )));
            }
        }
        // The cluster's own answer to the deletion is the one that counts.
        Err(Trouble::Unknown(_)) => {}
        Err(trouble) => return Err(status(trouble)),
    }
    match driver.cluster.delete(id) {
        Ok(()) | Err(Trouble::Unknown(_)) => Ok(DeleteVolumeResponse {}),
        Err(trouble) => Err(status(trouble)),
    }
}

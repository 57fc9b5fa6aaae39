//! Lets the device of a volume that was made larger, and its file system, grow while they are used.

use super::stage::unlisted;
use super::{Machine, filesystem, mounts, volume_id};
use crate::capabilities;
use crate::refusals::{needed, status};
use crate::sizes::{Range, signed};
use isthmus_csi_interface::v1::{NodeExpandVolumeRequest, NodeExpandVolumeResponse};
use std::io;
use std::path::Path;
use tonic::Status;

/// NodeExpandVolume.
pub fn expand(
    machine: &Machine,
    request: &NodeExpandVolumeRequest,
) -> Result<NodeExpandVolumeResponse, Status> {
    needed("volume_id", &request.volume_id)?;
    let path = Path::new(needed("volume_path", &request.volume_path)?);
    let range = Range::read(request.capacity_range.as_ref())?;
    if request.volume_capability.is_some() {
        capabilities::read(request.volume_capability.as_ref())?;
    }
    let id = volume_id(&request.volume_id)?;
    let _claim = machine.claim(id)?;
    let not_there = || Status::not_found(format!("volume {id} is not at {}", request.volume_path));
    let device = machine.attachments.device(id)?.ok_or_else(not_there)?;
    if !path.exists() {
        return Err(not_there());
    }
    let volume = machine.driver.cluster.volume(id).map_err(status)?;
    if !range.is_reached_by(volume.bytes) {
        return Err(Status::out_of_range(format!(
            "volume {id} has {} bytes; call ControllerExpandVolume first",
            volume.bytes
        )));
    }
    let failed =
        |error: io::Error| Status::internal(format!("{}: {error}", device.path().display()));
    if device.bytes().map_err(failed)? < volume.bytes {
        machine.attachments.grow(id, volume.bytes)?;
    }
    let mount = mounts::at(path).map_err(|error| unlisted(&error))?;
    if let Some(mount) = mount.filter(|mount| mount.device == device.major_minor())
        && !mount.read_only
    {
        let node = device.path();
        filesystem::grow(&mount.fs_type, &node.to_string_lossy(), path)?;
    }
    Ok(NodeExpandVolumeResponse {
        capacity_bytes: signed(device.bytes().map_err(failed)?),
    })
}

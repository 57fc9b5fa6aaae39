//! Shows a staged volume where its user looks for it.

use super::stage::{hide, show_device, staged_device, unlisted, users};
use super::{Machine, filesystem, mounts, path, volume_id};
use crate::attach::loop_device::LoopDevice;
use crate::capabilities::{self, Access, Use};
use crate::controller::publish::READ_ONLY;
use crate::refusals::{needed, status};
use isthmus_csi_interface::v1::{
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse,
};
use rustix::mount::MountFlags;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tonic::Status;

/// NodePublishVolume.
pub fn publish(
    machine: &Machine,
    request: &NodePublishVolumeRequest,
) -> Result<NodePublishVolumeResponse, Status> {
    needed("volume_id", &request.volume_id)?;
    let target = path("target_path", &request.target_path)?;
    let access = capabilities::read(request.volume_capability.as_ref())?;
    let staging = path("staging_target_path", &request.staging_target_path)?;
    let id = volume_id(&request.volume_id)?;
    let _claim = machine.claim(id)?;
    let Some(device) = machine.attachments.device(id)? else {
        machine.driver.cluster.volume(id).map_err(status)?;
        return Err(not_staged(id, &staging));
    };
    let asked = request.publish_context.get(READ_ONLY).map(String::as_str);
    let read_only = request.readonly || access.read_only || asked == Some("true");
    let others = other_targets(device, &staging, &target)?;
    if access.single_target && !others.is_empty() {
        return Err(Status::failed_precondition(format!(
            "volume {id} may have one user only, and is published at {}",
            others[0].display()
        )));
    }
    match &access.used_as {
        Use::Mount(wanted) => {
            let mount = mounts::at(&staging).map_err(|error| unlisted(&error))?;
            if mount.is_none_or(|mount| mount.device != device.major_minor()) {
                return Err(not_staged(id, &staging));
            }
            show_folder(device, &staging, &target, read_only)?;
            if let Some(group) = wanted.group.filter(|_| !read_only) {
                filesystem::give_to_group(&target, group)?;
            }
        }
        Use::Block => {
            if LoopDevice::at(&staged_device(&staging)) != Some(device) {
                return Err(not_staged(id, &staging));
            }
            publish_device(device, &target, read_only, &others, &access)?;
        }
    }
    Ok(NodePublishVolumeResponse {})
}

fn not_staged(id: &str, staging: &Path) -> Status {
    Status::failed_precondition(format!(
        "volume {id} is not staged at {} for this use; call NodeStageVolume first",
        staging.display()
    ))
}

/// Where else the volume is published.
fn other_targets(
    device: LoopDevice,
    staging: &Path,
    target: &Path,
) -> Result<Vec<PathBuf>, Status> {
    let own = [staging, &staged_device(staging), target].map(mounts::resolved);
    let mut others = users(device)?;
    others.retain(|path| !own.contains(path));
    Ok(others)
}

fn show_folder(
    device: LoopDevice,
    staging: &Path,
    target: &Path,
    read_only: bool,
) -> Result<(), Status> {
    let failed = |error: io::Error| {
        Status::internal(format!(
            "{} can't be shown at {}: {error}",
            staging.display(),
            target.display()
        ))
    };
    if let Some(mount) = mounts::at(target).map_err(|error| unlisted(&error))? {
        if mount.device != device.major_minor() || mount.read_only != read_only {
            return Err(otherwise(target));
        }
        return Ok(());
    }
    fs::create_dir_all(target).map_err(failed)?;
    rustix::mount::mount_bind(staging, target).map_err(|error| failed(error.into()))?;
    if read_only {
        let mount = mounts::at(target).map_err(|error| unlisted(&error))?;
        let kept = mount.map_or(MountFlags::empty(), |mount| mount.kept);
        let flags = MountFlags::BIND | MountFlags::RDONLY | kept;
        if let Err(error) = rustix::mount::mount_remount(target, flags, "") {
            // What could be written to must not stay.
            hide(target)?;
            return Err(failed(error.into()));
        }
    }
    Ok(())
}

/// A device is read-only as a whole, for all who use it.
fn publish_device(
    device: LoopDevice,
    target: &Path,
    read_only: bool,
    others: &[PathBuf],
    access: &Access,
) -> Result<(), Status> {
    debug_assert!(access.used_as == Use::Block, "{access:?}");
    let failed =
        |error: io::Error| Status::internal(format!("{}: {error}", device.path().display()));
    let is_read_only = device.is_read_only().map_err(failed)?;
    if LoopDevice::at(target) == Some(device) {
        if is_read_only != read_only {
            return Err(otherwise(target));
        }
        return Ok(());
    }
    if is_read_only != read_only {
        if let Some(other) = others.first() {
            return Err(Status::failed_precondition(format!(
                "the volume is published at {} {}; a block volume is one or the other",
                other.display(),
                if is_read_only {
                    "for reading only"
                } else {
                    "for writing"
                }
            )));
        }
        device.set_read_only(read_only).map_err(failed)?;
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    show_device(device, target)
}

fn otherwise(target: &Path) -> Status {
    Status::already_exists(format!(
        "something is published at {} for another use; unpublish it first",
        target.display()
    ))
}

/// NodeUnpublishVolume.
pub fn unpublish(
    machine: &Machine,
    request: &NodeUnpublishVolumeRequest,
) -> Result<NodeUnpublishVolumeResponse, Status> {
    let id = needed("volume_id", &request.volume_id)?;
    let target = path("target_path", &request.target_path)?;
    let _claim = machine.claim(id)?;
    hide(&target)?;
    let removed = match fs::symlink_metadata(&target) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(&target),
        Ok(_) => fs::remove_file(&target),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Status::internal(format!(
            "{} can't be removed: {error}",
            target.display()
        ))),
        _ => Ok(NodeUnpublishVolumeResponse {}),
    }
}

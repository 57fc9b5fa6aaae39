//! Attaches a volume to this machine, and lets it go. A file system is mounted at the staging path; of a block volume the device appears
//! there as the file `volume`: so the kernel's list of mounts says what is staged, and where.

use super::{Machine, filesystem, mounts, path, volume_id};
use crate::attach::Wanted;
use crate::attach::loop_device::LoopDevice;
use crate::capabilities::{self, Access, Use};
use crate::controller::publish::READ_ONLY;
use crate::parameters::{self, FS_TYPE};
use crate::refusals::status;
use isthmus_csi_interface::v1::{
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnstageVolumeRequest,
    NodeUnstageVolumeResponse,
};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use tonic::Status;
use tracing::warn;

/// Below the staging path of a block volume.
const DEVICE: &str = "volume";

/// Where a block volume's device is staged.
pub fn staged_device(staging: &Path) -> PathBuf {
    staging.join(DEVICE)
}

/// NodeStageVolume.
pub fn stage(
    machine: &Machine,
    request: &NodeStageVolumeRequest,
) -> Result<NodeStageVolumeResponse, Status> {
    let id = volume_id(&request.volume_id)?;
    let staging = path("staging_target_path", &request.staging_target_path)?;
    let access = capabilities::read(request.volume_capability.as_ref())?;
    let default = match request.volume_context.get(FS_TYPE) {
        Some(name) => Some(parameters::file_system(name).map_err(Status::invalid_argument)?),
        None => None,
    };
    let _claim = machine.claim(id)?;
    let volume = machine.driver.cluster.volume(id).map_err(status)?;
    let node = machine.local_node()?;
    let published = volume
        .published
        .iter()
        .find(|published| published.node == node.name)
        .ok_or_else(|| {
            Status::failed_precondition(format!(
                "volume {id} is not published to node {}; call ControllerPublishVolume first",
                node.name
            ))
        })?;
    let asked = request.publish_context.get(READ_ONLY).map(String::as_str);
    let read_only = access.read_only || asked == Some("true") || published.read_only;
    check_not_dead(machine, id)?;
    let wanted = Wanted {
        volume: id,
        node: &node.name,
        nbd: &node.nbd,
        since_ms: published.since_ms,
    };
    let (device, was_there) = machine.attachments.attach(&wanted)?;
    let shown = show(device, &staging, &access, default.as_deref(), read_only);
    if shown.is_err() && !was_there {
        // As before: who asks again begins anew, and who does not leaves nothing behind.
        if let Err(error) = machine.attachments.detach(id) {
            warn!(volume = id, ?error, "what was attached in vain stays");
        }
    }
    shown.map(|()| NodeStageVolumeResponse {})
}

/// What a dead attachment left mounted can't be brought back to life below those who use it.
fn check_not_dead(machine: &Machine, id: &str) -> Result<(), Status> {
    let Some(device) = machine.attachments.device(id)? else {
        return Ok(());
    };
    if machine.attachments.lives(id) {
        return Ok(());
    }
    let users = users(device)?;
    if users.is_empty() {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "the process that attaches volume {id} to this node has ended while it was mounted at {}; unpublish and unstage it first",
        listed(&users)
    )))
}

fn listed(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

fn show(
    device: LoopDevice,
    staging: &Path,
    access: &Access,
    default: Option<&str>,
    read_only: bool,
) -> Result<(), Status> {
    let there = mounts::at(staging).map_err(|error| unlisted(&error))?;
    let there = there.filter(|mount| mount.device == device.major_minor());
    match &access.used_as {
        Use::Mount(wanted) => {
            if let Some(mount) = there {
                let other = wanted
                    .fs_type
                    .as_ref()
                    .is_some_and(|fs_type| *fs_type != mount.fs_type);
                if other || mount.read_only != read_only {
                    return Err(otherwise(staging));
                }
            } else if LoopDevice::at(&staged_device(staging)) == Some(device) {
                return Err(otherwise(staging));
            } else {
                let node = device.path();
                let node = node.to_string_lossy();
                let bytes = device
                    .bytes()
                    .map_err(|error| Status::internal(format!("{node}: {error}")))?;
                filesystem::mount(&node, staging, wanted, default, bytes, read_only)?;
            }
            match wanted.group {
                Some(group) if !read_only => filesystem::give_to_group(staging, group),
                _ => Ok(()),
            }
        }
        Use::Block => {
            if there.is_some() {
                return Err(otherwise(staging));
            }
            let at = staged_device(staging);
            if LoopDevice::at(&at) == Some(device) {
                return Ok(());
            }
            fs::create_dir_all(staging)
                .map_err(|error| Status::internal(format!("{}: {error}", staging.display())))?;
            show_device(device, &at)
        }
    }
}

/// Lets a device appear as a file.
pub fn show_device(device: LoopDevice, at: &Path) -> Result<(), Status> {
    let shown = File::options()
        .create(true)
        .append(true)
        .open(at)
        .and_then(|_| Ok(rustix::mount::mount_bind(device.path(), at)?));
    shown.map_err(|error| {
        Status::internal(format!(
            "{} can't be shown at {}: {error}",
            device.path().display(),
            at.display()
        ))
    })
}

fn otherwise(staging: &Path) -> Status {
    Status::already_exists(format!(
        "the volume is staged at {} for another use; unstage it first",
        staging.display()
    ))
}

/// INTERNAL, for a list of mounts that can't be read.
pub fn unlisted(error: &io::Error) -> Status {
    Status::internal(format!("the list of mounts can't be read: {error}"))
}

/// NodeUnstageVolume.
pub fn unstage(
    machine: &Machine,
    request: &NodeUnstageVolumeRequest,
) -> Result<NodeUnstageVolumeResponse, Status> {
    let done = NodeUnstageVolumeResponse {};
    super::needed("volume_id", &request.volume_id)?;
    let staging = path("staging_target_path", &request.staging_target_path)?;
    let Ok(id) = volume_id(&request.volume_id) else {
        return Ok(done);
    };
    let _claim = machine.claim(id)?;
    let device = machine.attachments.device(id)?;
    let staged = staged_device(&staging);
    if let Some(device) = device {
        let mount = mounts::at(&staging).map_err(|error| unlisted(&error))?;
        if mount.is_some_and(|mount| mount.device == device.major_minor()) {
            hide(&staging)?;
        } else if LoopDevice::at(&staged) == Some(device) {
            hide(&staged)?;
            fs::remove_file(&staged)
                .map_err(|error| Status::internal(format!("{}: {error}", staged.display())))?;
        }
        let used = users(device)?;
        if !used.is_empty() {
            return Err(Status::failed_precondition(format!(
                "volume {id} is still mounted at {}; unpublish it there first",
                listed(&used)
            )));
        }
    }
    machine.attachments.detach(id)?;
    Ok(done)
}

/// Where a device is mounted, or shown as a file.
pub fn users(device: LoopDevice) -> Result<Vec<PathBuf>, Status> {
    let mounts = mounts::all().map_err(|error| unlisted(&error))?;
    let node = device.path();
    let name = node.file_name();
    let shows = |mount: &mounts::Mount| {
        mount.device == device.major_minor()
            || (mount.fs_type == "devtmpfs" && mount.root.file_name() == name)
    };
    let users = mounts.into_iter().filter(shows);
    Ok(users.map(|mount| mount.point).collect())
}

/// Takes away what is mounted there.
pub fn hide(at: &Path) -> Result<(), Status> {
    mounts::unmount(at).map_err(|error| {
        Status::internal(format!(
            "{} can't be unmounted: {error}; end what uses it",
            at.display()
        ))
    })
}

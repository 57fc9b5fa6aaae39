//! How full a volume is, and whether it is well.

use super::stage::{staged_device, unlisted};
use super::{Machine, mounts, volume_id};
use crate::attach::loop_device::LoopDevice;
use crate::controller::describe;
use crate::refusals::needed;
use crate::sizes::signed;
use isthmus_csi_interface::v1::volume_usage::Unit;
use isthmus_csi_interface::v1::{
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeCondition, VolumeUsage,
};
use std::path::Path;
use tonic::Status;

/// NodeGetVolumeStats.
pub fn stats(
    machine: &Machine,
    request: &NodeGetVolumeStatsRequest,
) -> Result<NodeGetVolumeStatsResponse, Status> {
    needed("volume_id", &request.volume_id)?;
    let path = Path::new(needed("volume_path", &request.volume_path)?);
    let id = volume_id(&request.volume_id)?;
    let not_there = || Status::not_found(format!("volume {id} is not at {}", request.volume_path));
    let device = machine.attachments.device(id)?.ok_or_else(not_there)?;
    let mount = mounts::at(path).map_err(|error| unlisted(&error))?;
    let usage = if mount.is_some_and(|mount| mount.device == device.major_minor()) {
        of_file_system(path)?
    } else if [path, &staged_device(path)]
        .map(LoopDevice::at)
        .contains(&Some(device))
    {
        of_device(device)?
    } else {
        return Err(not_there());
    };
    Ok(NodeGetVolumeStatsResponse {
        usage,
        volume_condition: Some(condition(machine, id)),
    })
}

fn of_file_system(path: &Path) -> Result<Vec<VolumeUsage>, Status> {
    let figures = rustix::fs::statvfs(path)
        .map_err(|error| Status::internal(format!("{}: {error}", path.display())))?;
    let bytes = |blocks: u64| signed(blocks.saturating_mul(figures.f_frsize));
    Ok(vec![
        VolumeUsage {
            available: bytes(figures.f_bavail),
            total: bytes(figures.f_blocks),
            used: bytes(figures.f_blocks.saturating_sub(figures.f_bfree)),
            unit: Unit::Bytes.into(),
        },
        VolumeUsage {
            available: signed(figures.f_favail),
            total: signed(figures.f_files),
            used: signed(figures.f_files.saturating_sub(figures.f_ffree)),
            unit: Unit::Inodes.into(),
        },
    ])
}

fn of_device(device: LoopDevice) -> Result<Vec<VolumeUsage>, Status> {
    let bytes = device
        .bytes()
        .map_err(|error| Status::internal(format!("{}: {error}", device.path().display())))?;
    Ok(vec![VolumeUsage {
        total: signed(bytes),
        unit: Unit::Bytes.into(),
        ..Default::default()
    }])
}

fn condition(machine: &Machine, id: &str) -> VolumeCondition {
    let abnormal = |message: String| VolumeCondition {
        abnormal: true,
        message,
    };
    if !machine.attachments.lives(id) {
        return abnormal(
            "the process that attaches the volume to this node has ended; restart what uses it"
                .to_owned(),
        );
    }
    match machine.driver.cluster.volume(id) {
        Ok(volume) => describe::condition(&volume),
        Err(trouble) => abnormal(trouble.to_string()),
    }
}

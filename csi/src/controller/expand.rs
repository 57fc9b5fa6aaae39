//! Makes volumes larger, also while they are used.

use super::describe;
use crate::capabilities;
use crate::identity::Driver;
use crate::refusals::{needed, status};
use crate::sizes::{self, Range};
use isthmus_csi_interface::v1::{ControllerExpandVolumeRequest, ControllerExpandVolumeResponse};
use tonic::Status;

/// ControllerExpandVolume. The node has to take notice afterwards, of a block volume too: its device grows there.
pub fn expand(
    driver: &Driver,
    request: &ControllerExpandVolumeRequest,
) -> Result<ControllerExpandVolumeResponse, Status> {
    needed("volume_id", &request.volume_id)?;
    if request.capacity_range.is_none() {
        return Err(Status::invalid_argument("capacity_range is missing"));
    }
    let range = Range::read(request.capacity_range.as_ref())?;
    if request.volume_capability.is_some() {
        capabilities::read(request.volume_capability.as_ref())?;
    }
    let volume = describe::find(driver, &request.volume_id)?;
    let bytes = if range.is_reached_by(volume.bytes) {
        if !range.holds(volume.bytes) {
            return Err(Status::out_of_range(format!(
                "volume {} has {} bytes already, and volumes do not shrink",
                volume.name, volume.bytes
            )));
        }
        volume.bytes
    } else {
        let wanted = range.choose()?;
        let larger = driver.cluster.expand(&volume.name, wanted);
        larger.map_err(status)?.bytes
    };
    Ok(ControllerExpandVolumeResponse {
        capacity_bytes: sizes::signed(bytes),
        node_expansion_required: true,
    })
}

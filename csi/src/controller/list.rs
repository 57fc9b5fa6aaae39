//! Shows volumes.

use super::describe;
use crate::identity::Driver;
use crate::refusals::status;
use isthmus_csi_interface::v1::{
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ListVolumesRequest,
    ListVolumesResponse, controller_get_volume_response, list_volumes_response,
};
use tonic::Status;

/// A token is this and the name after which the next page begins: so it stays good when that volume goes.
const TOKEN: &str = "after:";

/// ListVolumes, in the order of their names.
pub fn list(driver: &Driver, request: &ListVolumesRequest) -> Result<ListVolumesResponse, Status> {
    let entries_max = usize::try_from(request.max_entries)
        .map_err(|_| Status::invalid_argument("max_entries is negative"))?;
    let after = match request.starting_token.as_str() {
        "" => "",
        token => token.strip_prefix(TOKEN).ok_or_else(|| {
            Status::aborted("starting_token is none of this driver's; begin without one")
        })?,
    };
    let mut volumes = driver.cluster.volumes().map_err(status)?;
    volumes.retain(|volume| volume.name.as_str() > after);
    volumes.sort_by(|one, other| one.name.cmp(&other.name));
    let more = entries_max > 0 && volumes.len() > entries_max;
    if more {
        volumes.truncate(entries_max);
    }
    let next_token = volumes
        .last()
        .filter(|_| more)
        .map(|last| format!("{TOKEN}{}", last.name));
    let entries = volumes
        .iter()
        .map(|volume| list_volumes_response::Entry {
            volume: Some(describe::volume(driver, volume)),
            status: Some(list_volumes_response::VolumeStatus {
                published_node_ids: describe::published_nodes(volume),
                volume_condition: Some(describe::condition(volume)),
            }),
        })
        .collect();
    Ok(ListVolumesResponse {
        entries,
        next_token: next_token.unwrap_or_default(),
    })
}

/// ControllerGetVolume.
pub fn get(
    driver: &Driver,
    request: &ControllerGetVolumeRequest,
) -> Result<ControllerGetVolumeResponse, Status> {
    let volume = describe::find(driver, &request.volume_id)?;
    Ok(ControllerGetVolumeResponse {
        volume: Some(describe::volume(driver, &volume)),
        status: Some(controller_get_volume_response::VolumeStatus {
            published_node_ids: describe::published_nodes(&volume),
            volume_condition: Some(describe::condition(&volume)),
        }),
    })
}

//! Says at which node a volume may be used. Whether a node that does not answer can still serve it is proven by the cluster, never
//! guessed here: its refusal, with the seconds that are left, is handed on.

use super::describe;
use crate::capabilities;
use crate::cluster::Trouble;
use crate::identity::Driver;
use crate::names;
use crate::refusals::{needed, no_such_volume, status};
use isthmus_csi_interface::v1::{
    ControllerPublishVolumeRequest, ControllerPublishVolumeResponse,
    ControllerUnpublishVolumeRequest, ControllerUnpublishVolumeResponse,
};
use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};
use tonic::Status;

/// How long a client that has just gone may still be seen.
const CLIENT_GONE_WITHIN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);
/// In a publish context: whether nothing may be written.
pub const READ_ONLY: &str = "readOnly";

/// ControllerPublishVolume.
pub fn publish(
    driver: &Driver,
    request: &ControllerPublishVolumeRequest,
) -> Result<ControllerPublishVolumeResponse, Status> {
    let id = needed("volume_id", &request.volume_id)?;
    let node = needed("node_id", &request.node_id)?;
    let access = capabilities::read(request.volume_capability.as_ref())?;
    if !names::is_volume_name(id) {
        return Err(no_such_volume(id));
    }
    let read_only = request.readonly || access.read_only;
    match driver.cluster.publish(id, node, read_only) {
        Ok(_) => Ok(ControllerPublishVolumeResponse {
            publish_context: HashMap::from([(READ_ONLY.to_owned(), read_only.to_string())]),
        }),
        Err(trouble @ Trouble::Conflict { .. }) => {
            let text = trouble.to_string();
            if is_there_otherwise(driver, id, node, read_only) {
                return Err(Status::already_exists(text));
            }
            Err(Status::failed_precondition(text))
        }
        Err(trouble) => Err(status(trouble)),
    }
}

/// Whether it is published to that node, but for another use.
fn is_there_otherwise(driver: &Driver, id: &str, node: &str, read_only: bool) -> bool {
    let volume = driver.cluster.volume(id).ok();
    let published = volume.map(|volume| volume.published).unwrap_or_default();
    published
        .iter()
        .any(|published| published.node == node && published.read_only != read_only)
}

/// ControllerUnpublishVolume: from one node, or from all.
pub fn unpublish(
    driver: &Driver,
    request: &ControllerUnpublishVolumeRequest,
) -> Result<ControllerUnpublishVolumeResponse, Status> {
    let id = needed("volume_id", &request.volume_id)?;
    let done = ControllerUnpublishVolumeResponse {};
    if !names::is_volume_name(id) {
        return Ok(done);
    }
    let nodes = match request.node_id.as_str() {
        "" => match driver.cluster.volume(id) {
            Ok(volume) => describe::published_nodes(&volume),
            Err(Trouble::Unknown(_)) => return Ok(done),
            Err(trouble) => return Err(status(trouble)),
        },
        node => vec![node.to_owned()],
    };
    for node in nodes {
        unpublish_from(driver, id, &node)?;
    }
    Ok(done)
}

/// The cluster may not have seen yet that the node's client has gone: it is asked again for a moment.
fn unpublish_from(driver: &Driver, id: &str, node: &str) -> Result<(), Status> {
    let end = Instant::now() + CLIENT_GONE_WITHIN;
    loop {
        match driver.cluster.unpublish(id, node) {
            // What is not there is not published.
            Ok(()) | Err(Trouble::Unknown(_)) => return Ok(()),
            Err(Trouble::Conflict { .. }) if Instant::now() < end => thread::sleep(PAUSE),
            Err(trouble) => return Err(status(trouble)),
        }
    }
}

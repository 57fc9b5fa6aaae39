//! Changes what may be changed of a volume: its policy.

use super::describe;
use crate::cluster::Trouble;
use crate::identity::Driver;
use crate::parameters::Parameters;
use crate::refusals::{needed, status};
use isthmus_api::ChangePolicy;
use isthmus_csi_interface::v1::{ControllerModifyVolumeRequest, ControllerModifyVolumeResponse};
use tonic::Status;

/// ControllerModifyVolume.
pub fn modify(
    driver: &Driver,
    request: &ControllerModifyVolumeRequest,
) -> Result<ControllerModifyVolumeResponse, Status> {
    needed("volume_id", &request.volume_id)?;
    let policy =
        Parameters::read_mutable(&request.mutable_parameters).map_err(Status::invalid_argument)?;
    let volume = describe::find(driver, &request.volume_id)?;
    if policy != ChangePolicy::default() {
        match driver.cluster.set_policy(&volume.name, &policy) {
            Ok(_) => {}
            // The volume was there just now.
            Err(Trouble::Unknown(text)) if policy.preferred_domain.is_some() => {
                return Err(Status::invalid_argument(format!("preferredDomain: {text}")));
            }
            Err(trouble) => return Err(status(trouble)),
        }
    }
    Ok(ControllerModifyVolumeResponse {})
}

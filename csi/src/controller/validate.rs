//! Whether a volume can be used as an orchestrator wants.

use super::describe;
use crate::capabilities::{self, Unfit};
use crate::identity::Driver;
use crate::parameters::Parameters;
use crate::refusals::needed;
use isthmus_csi_interface::v1::validate_volume_capabilities_response::Confirmed;
use isthmus_csi_interface::v1::{
    ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse,
};
use tonic::Status;

/// ValidateVolumeCapabilities.
pub fn validate(
    driver: &Driver,
    request: &ValidateVolumeCapabilitiesRequest,
) -> Result<ValidateVolumeCapabilitiesResponse, Status> {
    needed("volume_id", &request.volume_id)?;
    let unfit = match capabilities::read_all(&request.volume_capabilities) {
        Err(unfit @ Unfit::Malformed(_)) => return Err(unfit.into()),
        Err(Unfit::Unsupported(text)) => Some(text),
        Ok(_) => None,
    };
    describe::find(driver, &request.volume_id)?;
    let unfit =
        unfit.or_else(|| Parameters::read(&request.parameters, &request.mutable_parameters).err());
    Ok(match unfit {
        Some(message) => ValidateVolumeCapabilitiesResponse {
            confirmed: None,
            message,
        },
        None => ValidateVolumeCapabilitiesResponse {
            confirmed: Some(Confirmed {
                volume_context: request.volume_context.clone(),
                volume_capabilities: request.volume_capabilities.clone(),
                parameters: request.parameters.clone(),
                mutable_parameters: request.mutable_parameters.clone(),
            }),
            message: String::new(),
        },
    })
}

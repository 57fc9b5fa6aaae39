//! The controller service: volumes of the whole cluster, by the admin API. It keeps nothing: any number of calls may run at once, at
//! any number of processes; the cluster decides.
//!
//! Reading order: [`create`], [`publish`], [`list`], [`expand`], [`modify`], [`validate`], [`capacity`], [`describe`].
//! Snapshots, clones and groups have their place here once the cluster has them.

mod capacity;
mod create;
pub mod describe;
mod expand;
mod list;
mod modify;
pub mod publish;
mod validate;

use crate::identity::Driver;
use crate::log;
use isthmus_csi_interface::v1::controller_server::Controller;
use isthmus_csi_interface::v1::controller_service_capability::rpc::Type as Ability;
use isthmus_csi_interface::v1::controller_service_capability::{Rpc, Type};
use isthmus_csi_interface::v1::*;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// What this service can do.
const ABILITIES: [Ability; 10] = [
    Ability::CreateDeleteVolume,
    Ability::PublishUnpublishVolume,
    Ability::ListVolumes,
    Ability::ListVolumesPublishedNodes,
    Ability::GetVolume,
    Ability::VolumeCondition,
    Ability::GetCapacity,
    Ability::ExpandVolume,
    Ability::SingleNodeMultiWriter,
    Ability::ModifyVolume,
];

/// The controller service.
#[derive(Debug)]
pub struct ControllerService {
    driver: Arc<Driver>,
}

impl ControllerService {
    /// For this driver.
    pub fn new(driver: Arc<Driver>) -> ControllerService {
        ControllerService { driver }
    }
}

/// Takes the request out, and answers with what `act` makes of it.
macro_rules! answer {
    ($self:ident, $request:ident, $name:literal, $volume:ident, $act:path) => {{
        let request = $request.into_inner();
        let driver = Arc::clone(&$self.driver);
        let volume = request.$volume.clone();
        log::answer($name, &volume, move || $act(&driver, &request)).await
    }};
}

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        answer!(self, request, "CreateVolume", name, create::create)
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        answer!(self, request, "DeleteVolume", volume_id, create::delete)
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        answer!(
            self,
            request,
            "ControllerPublishVolume",
            volume_id,
            publish::publish
        )
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        answer!(
            self,
            request,
            "ControllerUnpublishVolume",
            volume_id,
            publish::unpublish
        )
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        answer!(
            self,
            request,
            "ValidateVolumeCapabilities",
            volume_id,
            validate::validate
        )
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let request = request.into_inner();
        let driver = Arc::clone(&self.driver);
        log::answer("ListVolumes", "", move || list::list(&driver, &request)).await
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let request = request.into_inner();
        let driver = Arc::clone(&self.driver);
        log::answer("GetCapacity", "", move || {
            capacity::capacity(&driver, &request)
        })
        .await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        log::answer("ControllerGetCapabilities", "", || {
            let capability = |ability: Ability| ControllerServiceCapability {
                r#type: Some(Type::Rpc(Rpc {
                    r#type: ability.into(),
                })),
            };
            Ok(ControllerGetCapabilitiesResponse {
                capabilities: ABILITIES.into_iter().map(capability).collect(),
            })
        })
        .await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        answer!(
            self,
            request,
            "ControllerExpandVolume",
            volume_id,
            expand::expand
        )
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        answer!(self, request, "ControllerGetVolume", volume_id, list::get)
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        answer!(
            self,
            request,
            "ControllerModifyVolume",
            volume_id,
            modify::modify
        )
    }
}

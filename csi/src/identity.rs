//! Who this is, what it can do, and whether it can do it now.

use crate::cluster::Cluster;
use crate::log;
use isthmus_csi_interface::v1::identity_server::Identity;
use isthmus_csi_interface::v1::plugin_capability::{
    Service, Type, VolumeExpansion, service, volume_expansion,
};
use isthmus_csi_interface::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse,
};
use std::path::Path;
use std::sync::Arc;
use tonic::{Request, Response, Status};
use tracing::warn;

/// What the services of this process share.
#[derive(Debug)]
pub struct Driver {
    /// Its name, such as `csi.isthmus.dev`.
    pub name: String,
    /// The cluster.
    pub cluster: Cluster,
    /// Whether it serves the controller's calls.
    pub controller: bool,
    /// Whether it serves the node's calls.
    pub node: bool,
}

impl Driver {
    /// The key of topology segments; their values are domains' names.
    pub fn topology_key(&self) -> String {
        format!("topology.{}/domain", self.name)
    }
}

/// The identity service.
#[derive(Debug)]
pub struct IdentityService {
    driver: Arc<Driver>,
}

impl IdentityService {
    /// For this driver.
    pub fn new(driver: Arc<Driver>) -> IdentityService {
        IdentityService { driver }
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        let name = self.driver.name.clone();
        log::answer("GetPluginInfo", "", move || {
            Ok(GetPluginInfoResponse {
                name,
                vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Default::default()
            })
        })
        .await
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let controller = self.driver.controller;
        log::answer("GetPluginCapabilities", "", move || {
            Ok(plugin_capabilities(controller))
        })
        .await
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let driver = Arc::clone(&self.driver);
        log::answer("Probe", "", move || probe(&driver)).await
    }
}

fn plugin_capabilities(controller: bool) -> GetPluginCapabilitiesResponse {
    let service = |kind: service::Type| {
        Type::Service(Service {
            r#type: kind.into(),
        })
    };
    let mut all = vec![
        service(service::Type::VolumeAccessibilityConstraints),
        Type::VolumeExpansion(VolumeExpansion {
            r#type: volume_expansion::Type::Online.into(),
        }),
    ];
    if controller {
        all.push(service(service::Type::ControllerService));
    }
    let capabilities = all
        .into_iter()
        .map(|kind| PluginCapability { r#type: Some(kind) });
    GetPluginCapabilitiesResponse {
        capabilities: capabilities.collect(),
    }
}

/// Ready when the cluster answers. Without a cluster the process is sound and would be no better for a restart; on a node that can't
/// attach anything it is not.
fn probe(driver: &Driver) -> Result<ProbeResponse, Status> {
    if driver.node && !Path::new("/dev/fuse").exists() {
        return Err(Status::failed_precondition(
            "this node has no /dev/fuse, and so can't attach volumes; load the kernel's module fuse (modprobe fuse)",
        ));
    }
    let answers = if driver.controller {
        driver.cluster.volumes().map(drop)
    } else {
        driver.cluster.own_node().map(drop)
    };
    if let Err(trouble) = &answers {
        warn!(reason = %trouble, "not ready: the cluster does not answer");
    }
    Ok(ProbeResponse {
        ready: Some(answers.is_ok()),
    })
}

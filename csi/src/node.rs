//! The node service: volumes on this machine. What it knows of them it asks of the kernel each time (mounts, loop devices), so that
//! neither a restart nor a crash makes it wrong.
//!
//! Reading order: [`stage`], [`publish`], [`stats`], [`expand`], [`filesystem`], [`mounts`], [`programs`].

mod expand;
pub mod filesystem;
pub mod mounts;
pub mod programs;
mod publish;
mod stage;
mod stats;

use crate::attach::{AttachError, Attachments};
use crate::controller::describe;
use crate::identity::Driver;
use crate::log;
use crate::names;
use crate::refusals::{needed, no_such_volume, status};
use isthmus_csi_interface::v1::node_server::Node;
use isthmus_csi_interface::v1::node_service_capability::rpc::Type as Ability;
use isthmus_csi_interface::v1::node_service_capability::{Rpc, Type};
use isthmus_csi_interface::v1::*;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// What this service can do.
const ABILITIES: [Ability; 6] = [
    Ability::StageUnstageVolume,
    Ability::GetVolumeStats,
    Ability::ExpandVolume,
    Ability::VolumeCondition,
    Ability::SingleNodeMultiWriter,
    Ability::VolumeMountGroup,
];

/// This machine.
#[derive(Debug)]
pub struct Machine {
    driver: Arc<Driver>,
    attachments: Attachments,
    /// The name of its isthmusd; none to ask it.
    name: Option<String>,
    /// Volumes with a call under way.
    busy: Mutex<BTreeSet<String>>,
}

/// This machine's isthmusd.
#[derive(Debug)]
struct LocalNode {
    name: String,
    domain: String,
    nbd: String,
}

/// One call's hold on a volume.
struct Claim<'a> {
    machine: &'a Machine,
    volume: &'a str,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.machine.busy.lock().remove(self.volume);
    }
}

impl Machine {
    /// With the attachments in `folder`.
    pub fn new(driver: Arc<Driver>, attachments: Attachments, name: Option<String>) -> Machine {
        Machine {
            driver,
            attachments,
            name,
            busy: Mutex::new(BTreeSet::new()),
        }
    }

    /// ABORTED while another call is at work on that volume.
    fn claim<'a>(&'a self, volume: &'a str) -> Result<Claim<'a>, Status> {
        if !self.busy.lock().insert(volume.to_owned()) {
            return Err(Status::aborted(format!(
                "another call for volume {volume} is under way"
            )));
        }
        Ok(Claim {
            machine: self,
            volume,
        })
    }

    /// This machine's isthmusd, as the cluster knows it.
    fn local_node(&self) -> Result<LocalNode, Status> {
        let cluster = &self.driver.cluster;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => cluster.own_node().map_err(status)?.name,
        };
        let nodes = cluster.nodes().map_err(status)?;
        let node = nodes.into_iter().find(|node| node.name == name);
        let node = node.ok_or_else(|| {
            Status::failed_precondition(format!(
                "the cluster has no node {name}; start isthmusd on this machine, or name its node with --node"
            ))
        })?;
        let nbd = node.nbd_address.ok_or_else(|| {
            Status::failed_precondition(format!(
                "node {name} of domain {} serves no volumes, so none can be used here; run the node service beside a data node or a diskless one",
                node.domain
            ))
        })?;
        Ok(LocalNode {
            name,
            domain: node.domain,
            nbd: reachable(&nbd),
        })
    }

    fn info(&self) -> Result<NodeGetInfoResponse, Status> {
        let node = self.local_node()?;
        Ok(NodeGetInfoResponse {
            accessible_topology: Some(describe::topology(&self.driver, &node.domain)),
            node_id: node.name,
            max_volumes_per_node: 0,
        })
    }
}

/// A server that listens everywhere is reached here.
fn reachable(address: &str) -> String {
    match address.parse::<std::net::SocketAddr>() {
        Ok(socket) if socket.ip().is_unspecified() => format!("127.0.0.1:{}", socket.port()),
        _ => address.to_owned(),
    }
}

/// A volume's id that may be one.
fn volume_id(id: &str) -> Result<&str, Status> {
    let id = needed("volume_id", id)?;
    if !names::is_volume_name(id) {
        return Err(no_such_volume(id));
    }
    Ok(id)
}

/// A path that may be one.
fn path(field: &str, text: &str) -> Result<PathBuf, Status> {
    let path = Path::new(needed(field, text)?);
    if !path.is_absolute() {
        return Err(Status::invalid_argument(format!(
            "{field} {text:?} is no absolute path"
        )));
    }
    Ok(path.to_owned())
}

impl From<AttachError> for Status {
    fn from(error: AttachError) -> Status {
        match error {
            AttachError::NotServed(text) => Status::failed_precondition(text),
            AttachError::System(text) => Status::internal(text),
        }
    }
}

/// The node service.
#[derive(Debug)]
pub struct NodeService {
    machine: Arc<Machine>,
}

impl NodeService {
    /// For this machine.
    pub fn new(machine: Machine) -> NodeService {
        NodeService {
            machine: Arc::new(machine),
        }
    }
}

/// Takes the request out, and answers with what `act` makes of it.
macro_rules! answer {
    ($self:ident, $request:ident, $name:literal, $act:path) => {{
        let request = $request.into_inner();
        let machine = Arc::clone(&$self.machine);
        let volume = request.volume_id.clone();
        log::answer($name, &volume, move || $act(&machine, &request)).await
    }};
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        answer!(self, request, "NodeStageVolume", stage::stage)
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        answer!(self, request, "NodeUnstageVolume", stage::unstage)
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        answer!(self, request, "NodePublishVolume", publish::publish)
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        answer!(self, request, "NodeUnpublishVolume", publish::unpublish)
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        answer!(self, request, "NodeGetVolumeStats", stats::stats)
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        answer!(self, request, "NodeExpandVolume", expand::expand)
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        log::answer("NodeGetCapabilities", "", || {
            let capability = |ability: Ability| NodeServiceCapability {
                r#type: Some(Type::Rpc(Rpc {
                    r#type: ability.into(),
                })),
            };
            Ok(NodeGetCapabilitiesResponse {
                capabilities: ABILITIES.into_iter().map(capability).collect(),
            })
        })
        .await
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        let machine = Arc::clone(&self.machine);
        log::answer("NodeGetInfo", "", move || machine.info()).await
    }
}

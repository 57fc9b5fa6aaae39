//! How much space there is for new volumes.

use crate::capabilities;
use crate::identity::Driver;
use crate::parameters::Parameters;
use crate::refusals::status;
use crate::sizes;
use isthmus_api::{Node, NodeRole};
use isthmus_csi_interface::v1::{GetCapacityRequest, GetCapacityResponse};
use std::collections::BTreeMap;
use tonic::Status;

/// GetCapacity: a volume has a replica in each data domain, so the domain with the least space counts. Volumes are thin: this is what
/// is free now, not what was promised.
pub fn capacity(
    driver: &Driver,
    request: &GetCapacityRequest,
) -> Result<GetCapacityResponse, Status> {
    if !request.volume_capabilities.is_empty() {
        capabilities::read_all(&request.volume_capabilities)?;
    }
    Parameters::read(&request.parameters, &Default::default()).map_err(Status::invalid_argument)?;
    let free = free_by_domain(&driver.cluster.nodes().map_err(status)?);
    let topology = request.accessible_topology.as_ref();
    let domain = topology.and_then(|topology| topology.segments.get(&driver.topology_key()));
    if domain.is_some_and(|domain| !free.contains_key(domain)) {
        return Ok(GetCapacityResponse::default());
    }
    let mut least = None;
    for (domain, free) in &free {
        let free = free.ok_or_else(|| {
            Status::unavailable(format!(
                "no node of domain {domain} says how much space it has; see domain-ctl get nodes"
            ))
        })?;
        least = Some(least.map_or(free, |least: u64| least.min(free)));
    }
    Ok(GetCapacityResponse {
        available_capacity: sizes::signed(least.unwrap_or(0)),
        maximum_volume_size: None,
        minimum_volume_size: None,
    })
}

/// Each data domain with what the emptiest of its nodes has free; none where none says.
fn free_by_domain(nodes: &[Node]) -> BTreeMap<String, Option<u64>> {
    let mut free = BTreeMap::new();
    for node in nodes {
        if node.role == NodeRole::Data {
            let most: &mut Option<u64> = free.entry(node.domain.clone()).or_default();
            *most = (*most).max(node.store_bytes_free);
        }
    }
    free
}

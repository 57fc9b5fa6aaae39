//! Handlers that say where a volume is used: published to a node by an orchestrator, and moved from one site to the other.

use crate::api::access::{ClusterAccess, DECIDED_WITHIN};
use crate::api::changes::{find, propose};
use crate::api::errors::HttpError;
use crate::api::facts::Facts;
use crate::api::input;
use crate::api::modify::{Asked, asked, shown};
use crate::api::reads::{self, ObservedVolume};
use crate::api::routes::Api;
use crate::failover::watch::can_serve;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use isthmus_api::{
    ApiError, DomainRelocate, DomainRelocated, PublishVolume, Relocate, UnpublishVolume,
};
use isthmus_catalog::{Catalog, Command, DomainState, Refusal, RequestId, VolumeRecord};
use isthmus_engine::{DomainId, NodeId, VolumeId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How long a fence of a deactivated domain takes at most when its nodes are silent, in seconds from the deactivation on: the default
/// lease with its drift, and a second for kvdb. For people and orchestrators, who ask again then; nothing is decided by it.
const FENCED_WITHIN_SECONDS: u64 = 5;

/// POST /v1/volumes/{name}/publish
pub async fn publish<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<ObservedVolume>, HttpError> {
    let Asked {
        id,
        wanted,
        catalog,
        volume,
    } = asked::<A, PublishVolume>(&api, &name, &headers, &bytes).await?;
    let node = node_named(&catalog, &wanted.node)?;
    let command = Command::Publish {
        volume,
        node,
        read_only: wanted.read_only,
    };
    let now = catalog.published.get(&volume).map(|now| now.node);
    place(&api, id, command, &catalog, volume, now).await?;
    shown(&api, &name).await
}

/// POST /v1/volumes/{name}/unpublish
pub async fn unpublish<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<ObservedVolume>, HttpError> {
    let Asked {
        id, wanted, volume, ..
    } = asked::<A, UnpublishVolume>(&api, &name, &headers, &bytes).await?;
    let facts = reads::facts(api.cluster.as_ref()).await;
    let node = node_named(&facts.catalog, &wanted.node)?;
    // What came to a diskless node is attached at the primary.
    let served_by = match facts.catalog.volumes.get(&volume) {
        Some(record) if facts.catalog.diskless.contains(&node) => {
            record.primary.map_or(node, |primary| primary.node)
        }
        Some(_) | None => node,
    };
    let idle = facts
        .runtime(served_by, volume)
        .is_some_and(|runtime| runtime.clients == 0);
    let command = Command::Unpublish { volume, node, idle };
    place(&api, id, command, &facts.catalog, volume, Some(node)).await?;
    shown(&api, &name).await
}

/// Has the command applied; a refusal because `held_by` may serve the volume says what ends that, and when time does.
async fn place<A: ClusterAccess>(
    api: &Api<A>,
    id: RequestId,
    command: Command,
    catalog: &Catalog,
    volume: VolumeId,
    held_by: Option<NodeId>,
) -> Result<(), HttpError> {
    let cause = crate::api::changes::operator(String::new());
    match api.cluster.propose(id, cause, command).await? {
        isthmus_catalog::Answer::Refused(
            refusal @ (Refusal::Published { .. } | Refusal::MayServe { .. }),
        ) => Err(HttpError {
            status: StatusCode::CONFLICT,
            error: way_out(ApiError::new(refusal.to_string()), catalog, volume, held_by),
        }),
        isthmus_catalog::Answer::Refused(refusal) => Err(refusal.into()),
        _ => Ok(()),
    }
}

/// What ends a node's right to a volume.
fn way_out(
    error: ApiError,
    catalog: &Catalog,
    volume: VolumeId,
    held_by: Option<NodeId>,
) -> ApiError {
    let (Some(node), Some(record)) = (held_by, catalog.volumes.get(&volume)) else {
        return error;
    };
    let name = catalog.node_name(node);
    let domain = catalog
        .nodes
        .get(&node)
        .and_then(|node| catalog.domains.get(&node.domain));
    let is_primary = record.primary.is_some_and(|primary| primary.node == node);
    match domain {
        Some(domain) if domain.state == DomainState::Deactivating => error
            .because(format!(
                "cluster domain {} is being deactivated, and the grants of {name} may not be over yet",
                domain.name
            ))
            .next("ask again then")
            .after(FENCED_WITHIN_SECONDS),
        _ if catalog.diskless.contains(&node) => {
            let primary = record.primary.map(|primary| catalog.node_name(primary.node));
            let primary = primary.unwrap_or_else(|| "its primary".to_owned());
            error
                .because(format!(
                    "{name} forwards its clients to {primary}, which has one of the volume, or does not answer"
                ))
                .next(format!(
                    "disconnect its clients; where {name} has died, {primary} notices within seconds: ask again then"
                ))
                .after(FENCED_WITHIN_SECONDS)
        }
        Some(domain) if is_primary => error
            .because(format!("{name} is the volume's primary"))
            .next(format!(
                "disconnect its clients there; if its site is lost: domain-ctl deactivate clusterdomain {} --wait",
                domain.name
            )),
        _ => error.next(format!(
            "domain-ctl unpublish volume {} --node {name}",
            record.name
        )),
    }
}

/// POST /v1/volumes/{name}/relocate
pub async fn relocate_volume<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<(StatusCode, Json<ObservedVolume>), HttpError> {
    let Asked { id, wanted, .. } = asked::<A, Relocate>(&api, &name, &headers, &bytes).await?;
    let facts = reads::facts(api.cluster.as_ref()).await;
    let (volume, record) = facts.volume_named(&name)?;
    let nodes = goals(&facts, &wanted.to)?;
    let to = goal(&facts, (volume, record), &nodes).map_err(|reason| {
        refused(
            &format!("volume {name} can't be moved to {}", wanted.to),
            reason,
        )
    })?;
    propose(&api, id, String::new(), Command::Relocate { volume, to }).await?;
    Ok((StatusCode::ACCEPTED, shown(&api, &name).await?))
}

/// POST /v1/clusterdomains/{name}/relocate
pub async fn relocate_domain<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<(StatusCode, Json<DomainRelocated>), HttpError> {
    let wanted: DomainRelocate = input::body(&headers, &bytes)?;
    api.cluster.confirmed(DECIDED_WITHIN).await?;
    let facts = reads::facts(api.cluster.as_ref()).await;
    let from = find(&facts.catalog, &name)?;
    let to: BTreeSet<NodeId> = match &wanted.to {
        Some(to) => goals(&facts, to)?,
        None => facts.catalog.nodes.keys().copied().collect(),
    };
    let to: BTreeSet<NodeId> = to
        .into_iter()
        .filter(|node| domain_of(&facts.catalog, *node) != Some(from))
        .collect();
    let mut answer = DomainRelocated {
        cluster_domain: name,
        moving: Vec::new(),
        refused: Vec::new(),
    };
    for (volume, record) in primaries_in(&facts.catalog, from) {
        let id = api.request_id(&HeaderMap::new())?;
        let moved = match goal(&facts, (volume, record), &to) {
            Err(reason) => Err(reason),
            Ok(to) => propose(&api, id, String::new(), Command::Relocate { volume, to })
                .await
                .map_err(|error| error.error.to_string()),
        };
        match moved {
            Ok(_) => answer.moving.push(record.name.clone()),
            Err(reason) => answer.refused.push((record.name.clone(), reason)),
        }
    }
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

fn refused(error: &str, reason: String) -> HttpError {
    HttpError {
        status: StatusCode::CONFLICT,
        error: ApiError::new(error).because(reason),
    }
}

pub(super) fn node_named(catalog: &Catalog, name: &str) -> Result<NodeId, HttpError> {
    let found = catalog.nodes.iter().find(|(_, node)| node.name == name);
    found
        .map(|(id, _)| *id)
        .ok_or_else(|| HttpError::not_found(format!("node {name} not found")))
}

fn domain_of(catalog: &Catalog, node: NodeId) -> Option<DomainId> {
    catalog.nodes.get(&node).map(|node| node.domain)
}

fn primaries_in(
    catalog: &Catalog,
    domain: DomainId,
) -> impl Iterator<Item = (VolumeId, &VolumeRecord)> {
    let volumes = catalog.volumes.iter();
    volumes
        .filter(move |(_, record)| {
            record
                .primary
                .is_some_and(|primary| domain_of(catalog, primary.node) == Some(domain))
        })
        .map(|(id, record)| (*id, record))
}

/// The nodes that a domain's name, or a node's, stands for.
fn goals(facts: &Facts, name: &str) -> Result<BTreeSet<NodeId>, HttpError> {
    if let Some((domain, _)) = facts.domain_named(name) {
        return Ok(facts.nodes_of(domain).map(|(id, _)| id).collect());
    }
    match node_named(&facts.catalog, name) {
        Ok(node) => Ok([node].into()),
        Err(_) => Err(HttpError::not_found(format!(
            "there is no cluster domain and no node {name}"
        ))),
    }
}

/// The node of `nodes` to which the volume's primary can go: it answers, and its replica is in sync.
fn goal(
    facts: &Facts,
    (volume, record): (VolumeId, &VolumeRecord),
    nodes: &BTreeSet<NodeId>,
) -> Result<NodeId, String> {
    let holders: Vec<NodeId> = record.replicas.intersection(nodes).copied().collect();
    if holders.is_empty() {
        return Err("it has no replica there".to_owned());
    }
    let answering = facts.answering();
    let in_sync = |node: &NodeId| record.in_sync.iter().any(|replica| replica.node == *node);
    let serves = |node: NodeId| facts.runtime(node, volume).is_none_or(can_serve);
    let rebooted = |node: &NodeId| {
        let replica = record.in_sync.iter().find(|replica| replica.node == *node);
        replica.is_some_and(|replica| facts.catalog.is_rebooted(volume, *replica))
    };
    let mut ready: Vec<&NodeId> = holders
        .iter()
        .filter(|node| in_sync(node) && answering.contains(node) && serves(**node))
        .collect();
    // Where it is already, if that is one of them; one that has to catch up first only where there is no other.
    let is_primary = |node: NodeId| record.primary.is_some_and(|primary| primary.node == node);
    ready.sort_by_key(|node| (!is_primary(**node), rebooted(node)));
    let ready = ready.first().copied();
    ready.copied().ok_or_else(|| {
        let why = match holders.iter().any(in_sync) {
            true => "does not answer, or can't serve it",
            false => "is not in sync",
        };
        let names: Vec<String> = holders.iter().map(|node| facts.node_name(*node)).collect();
        format!("its replica on {} {why}", names.join(" and "))
    })
}

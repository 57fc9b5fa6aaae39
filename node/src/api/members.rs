//! Handlers that say which nodes hold a volume, and which nodes there are: a second replica in a site, and a node that is replaced.

use crate::api::access::{ClusterAccess, DECIDED_WITHIN};
use crate::api::changes::{earlier, propose};
use crate::api::errors::HttpError;
use crate::api::facts::volume_named;
use crate::api::links;
use crate::api::modify::{Asked, asked, shown};
use crate::api::places::node_named;
use crate::api::reads::{self, ObservedVolume};
use crate::api::routes::Api;
use crate::failover::watch::can_serve;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use isthmus_api::{AddReplica, ApiError, LinkAction, NodeRemoved};
use isthmus_catalog::{Answer, Command};
use std::sync::Arc;

/// POST /v1/volumes/{name}/replicas
pub async fn add_replica<A: ClusterAccess>(
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
    } = asked::<A, AddReplica>(&api, &name, &headers, &bytes).await?;
    let node = node_named(&catalog, &wanted.node)?;
    if api.cluster.link_action() == LinkAction::RefuseNew {
        let facts = reads::facts(api.cluster.as_ref()).await;
        let holders = catalog.volumes.get(&volume).map(|record| &record.replicas);
        let places = holders.into_iter().flatten().copied().chain([node]);
        links::check_new_volume(&facts, &name, &places.collect())?;
    }
    let command = Command::AddReplica { volume, node };
    propose(&api, id, String::new(), command).await?;
    shown(&api, &name).await
}

/// DELETE /v1/volumes/{name}/replicas/{node}
pub async fn remove_replica<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path((name, node)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<ObservedVolume>, HttpError> {
    let id = api.request_id(&headers)?;
    let catalog = api.cluster.confirmed(DECIDED_WITHIN).await?;
    let (volume, _) = volume_named(&catalog, &name)?;
    let node = node_named(&catalog, &node)?;
    let facts = reads::facts(api.cluster.as_ref()).await;
    let mut answering = facts.answering();
    answering.retain(|node| {
        let runtime = facts.runtime(*node, volume);
        runtime.is_some_and(|runtime| runtime.whole && can_serve(runtime))
    });
    let command = Command::RemoveReplica {
        volume,
        node,
        answering,
    };
    propose(&api, id, String::new(), command).await?;
    shown(&api, &name).await
}

/// DELETE /v1/nodes/{name}
pub async fn remove_node<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<NodeRemoved>, HttpError> {
    let id = api.request_id(&headers)?;
    let catalog = api.cluster.confirmed(DECIDED_WITHIN).await?;
    let node = match node_named(&catalog, &name) {
        Ok(node) => node,
        // An earlier try of this very request may have removed it, and its answer was lost on the way.
        Err(_) if matches!(earlier(&catalog, id), Some(Answer::Done)) => {
            return Ok(Json(NodeRemoved { name }));
        }
        Err(unknown) => return Err(unknown),
    };
    if node == api.cluster.this_node() {
        let error = ApiError::new(format!("node {name} can't be asked to remove itself"));
        return Err(HttpError {
            status: StatusCode::CONFLICT,
            error: error.next("stop it, and ask another node"),
        });
    }
    propose(&api, id, String::new(), Command::RemoveNode { node }).await?;
    Ok(Json(NodeRemoved { name }))
}

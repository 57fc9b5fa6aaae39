//! Handlers that change nothing.

use crate::api::access::{ClusterAccess, SHOWN_WITHIN, now_ms};
use crate::api::errors::HttpError;
use crate::api::facts::Facts;
use crate::api::routes::Api;
use crate::api::{domains, explain, failovers, links, nodes, verdict, volumes};
use crate::metrics::listener::CONTENT_TYPE;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use isthmus_api::{
    ClusterDomainUpdateList, ClusterDomainsStatus, Event, EventList, Explanation,
    FailoverReportList, LinkList, NodeList, NodeRuntime, Observed, Status, Volume, VolumeList,
};
use isthmus_catalog::Catalog;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What can be known now: confirmed where a majority answers, else what this node knows.
pub async fn facts<A: ClusterAccess>(cluster: &A) -> Facts {
    let (confirmed, observations) =
        tokio::join!(cluster.confirmed(SHOWN_WITHIN), cluster.observe());
    let (catalog, confirmed) = match confirmed {
        Ok(catalog) => (catalog, true),
        Err(_) => (cluster.local(), false),
    };
    Facts {
        catalog,
        confirmed,
        observations,
        kvdb: cluster.kvdb(),
        this_node: cluster.this_node(),
        now_ms: now_ms(),
    }
}

/// GET /v1/clusterdomains
pub async fn cluster_domains<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
) -> Json<ClusterDomainsStatus> {
    Json(domains::status(&facts(api.cluster.as_ref()).await))
}

/// GET /v1/clusterdomainupdates
pub async fn cluster_domain_updates<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
) -> Json<ClusterDomainUpdateList> {
    Json(domains::updates(&facts(api.cluster.as_ref()).await))
}

/// GET /v1/volumes
pub async fn volume_list<A: ClusterAccess>(State(api): State<Arc<Api<A>>>) -> Json<VolumeList> {
    Json(volumes::list(&facts(api.cluster.as_ref()).await))
}

/// A volume with its freshness.
#[derive(Serialize)]
pub struct ObservedVolume {
    #[serde(flatten)]
    volume: Volume,
    observed: Observed,
}

/// GET /v1/volumes/{name}
pub async fn volume<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
) -> Result<Json<ObservedVolume>, HttpError> {
    let facts = facts(api.cluster.as_ref()).await;
    shown(&facts, &name).map(Json)
}

/// A volume as the answer to whoever asked for it by name.
pub fn shown(facts: &Facts, name: &str) -> Result<ObservedVolume, HttpError> {
    let (id, record) = facts.volume_named(name)?;
    Ok(ObservedVolume {
        volume: volumes::volume(facts, id, record),
        observed: facts.observed(),
    })
}

/// GET /v1/volumes/{name}/explain
pub async fn explain_volume<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
) -> Result<Json<Explanation>, HttpError> {
    let facts = facts(api.cluster.as_ref()).await;
    let (id, record) = facts.volume_named(&name)?;
    Ok(Json(explain::volume(&facts, id, record)))
}

/// GET /v1/clusterdomains/{name}/explain
pub async fn explain_domain<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
) -> Result<Json<Explanation>, HttpError> {
    let facts = facts(api.cluster.as_ref()).await;
    match facts.domain_named(&name) {
        Some((id, record)) => Ok(Json(explain::domain(&facts, id, record))),
        None => Err(HttpError::not_found(format!(
            "cluster domain {name} not found"
        ))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Which events.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Only those after this revision.
    #[serde(default)]
    after: u64,
}

/// GET /v1/events
pub async fn events<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    wanted: Result<Query<Events>, QueryRejection>,
) -> Result<Json<EventList>, HttpError> {
    let Query(wanted) = wanted.map_err(|error| HttpError::field("after", error.body_text()))?;
    let facts = facts(api.cluster.as_ref()).await;
    let audit = &facts.catalog.audit;
    let dropped = audit.len() >= Catalog::AUDIT_MAX;
    let oldest = audit.front().filter(|_| dropped);
    Ok(Json(EventList {
        items: facts
            .catalog
            .audit_trail()
            .filter(|(record, _)| record.revision > wanted.after)
            .map(|(record, digest)| Event {
                revision: record.revision,
                at_ms: record.at_ms,
                who: record.who.clone(),
                why: record.why.clone(),
                what: record.what.clone(),
                digest: Some(hex(&digest.0)),
            })
            .collect(),
        links: links::events(&facts),
        broken_at: facts.catalog.audit_gap().map(|record| record.revision),
        complete_from: oldest.map_or(0, |record| record.revision),
        observed: facts.observed(),
    }))
}

/// GET /v1/failovers
pub async fn failover_list<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
) -> Json<FailoverReportList> {
    Json(failovers::list(&facts(api.cluster.as_ref()).await))
}

/// GET /v1/nodes
pub async fn node_list<A: ClusterAccess>(State(api): State<Arc<Api<A>>>) -> Json<NodeList> {
    Json(nodes::list(&facts(api.cluster.as_ref()).await))
}

/// GET /v1/links
pub async fn link_list<A: ClusterAccess>(State(api): State<Arc<Api<A>>>) -> Json<LinkList> {
    Json(links::list(&facts(api.cluster.as_ref()).await))
}

/// GET /v1/node
pub async fn node<A: ClusterAccess>(State(api): State<Arc<Api<A>>>) -> Json<NodeRuntime> {
    Json(api.cluster.own_runtime().await)
}

/// GET /metrics
pub async fn metrics<A: ClusterAccess>(State(api): State<Arc<Api<A>>>) -> impl IntoResponse {
    let page = api.cluster.metrics().await;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page.to_string())
}

/// GET /v1/status
pub async fn status<A: ClusterAccess>(State(api): State<Arc<Api<A>>>) -> Json<Status> {
    Json(verdict::status(&facts(api.cluster.as_ref()).await))
}

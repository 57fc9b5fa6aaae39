//! The API's paths.

use crate::api::access::ClusterAccess;
use crate::api::errors::HttpError;
use crate::api::{changes, input, members, modify, places, reads, recovery};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use isthmus_api::ApiError;
use isthmus_catalog::RequestId;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a request may take. Each step below has its own, shorter bound.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(9);

/// The API's description, written by hand; a test compares it with the routes.
pub const OPENAPI: &str = include_str!("openapi.json");

/// What the handlers share.
pub struct Api<A> {
    /// The cluster.
    pub cluster: Arc<A>,
    /// Names the requests of clients that give no id.
    client: u64,
    requests: AtomicU64,
}

impl<A> Api<A> {
    /// The id of a request: the client's, or a fresh one.
    pub fn request_id(&self, headers: &HeaderMap) -> Result<RequestId, HttpError> {
        let fresh = || RequestId {
            client: self.client,
            number: self.requests.fetch_add(1, Ordering::Relaxed),
        };
        Ok(input::request_id(headers)?.unwrap_or_else(fresh))
    }
}

/// The whole API over a cluster. `client` is a random number of this process.
pub fn router<A: ClusterAccess>(cluster: Arc<A>, client: u64) -> Router {
    let api = Arc::new(Api {
        cluster,
        client,
        requests: AtomicU64::new(1),
    });
    Router::new()
        .route("/v1/clusterdomains", get(reads::cluster_domains::<A>))
        .route(
            "/v1/clusterdomains/{name}/activate",
            post(changes::activate::<A>),
        )
        .route(
            "/v1/clusterdomains/{name}/deactivate",
            post(changes::deactivate::<A>),
        )
        .route(
            "/v1/clusterdomains/{name}/relocate",
            post(places::relocate_domain::<A>),
        )
        .route(
            "/v1/clusterdomainupdates",
            get(reads::cluster_domain_updates::<A>),
        )
        .route(
            "/v1/volumes",
            get(reads::volume_list::<A>).post(changes::create_volume::<A>),
        )
        .route(
            "/v1/volumes/{name}",
            delete(changes::delete_volume::<A>).get(reads::volume::<A>),
        )
        .route(
            "/v1/volumes/{name}/explain",
            get(reads::explain_volume::<A>),
        )
        .route(
            "/v1/clusterdomains/{name}/explain",
            get(reads::explain_domain::<A>),
        )
        .route("/v1/volumes/{name}/expand", post(modify::expand::<A>))
        .route("/v1/volumes/{name}/policy", post(modify::policy::<A>))
        .route("/v1/volumes/{name}/publish", post(places::publish::<A>))
        .route("/v1/volumes/{name}/unpublish", post(places::unpublish::<A>))
        .route(
            "/v1/volumes/{name}/relocate",
            post(places::relocate_volume::<A>),
        )
        .route(
            "/v1/volumes/{name}/recover",
            post(recovery::recover_volume::<A>),
        )
        .route(
            "/v1/volumes/{name}/replicas",
            post(members::add_replica::<A>),
        )
        .route(
            "/v1/volumes/{name}/replicas/{node}",
            delete(members::remove_replica::<A>),
        )
        .route("/v1/nodes/{name}", delete(members::remove_node::<A>))
        .route("/v1/kvdb/snapshot", get(recovery::snapshot::<A>))
        .route(
            "/v1/kvdb/recover",
            post(recovery::recover_kvdb::<A>)
                .layer(DefaultBodyLimit::max(input::SNAPSHOT_BYTES_MAX)),
        )
        .route("/v1/failovers", get(reads::failover_list::<A>))
        .route("/v1/events", get(reads::events::<A>))
        .route("/v1/nodes", get(reads::node_list::<A>))
        .route("/v1/links", get(reads::link_list::<A>))
        .route("/v1/node", get(reads::node::<A>))
        .route("/v1/status", get(reads::status::<A>))
        .route("/v1/openapi.json", get(openapi))
        .route("/metrics", get(reads::metrics::<A>))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(input::BODY_BYTES_MAX))
        .layer(middleware::from_fn(bounded))
        .layer(middleware::from_fn(from_this_machine))
        .with_state(api)
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn unknown_path(request: Request) -> HttpError {
    let error = ApiError::new(format!("there is no {} in this API", request.uri().path()));
    HttpError {
        status: StatusCode::NOT_FOUND,
        error: error.next("see /v1/openapi.json"),
    }
}

async fn wrong_method(request: Request) -> HttpError {
    let error = ApiError::new(format!(
        "{} does not take {}",
        request.uri().path(),
        request.method()
    ));
    HttpError {
        status: StatusCode::METHOD_NOT_ALLOWED,
        error: error.next("see /v1/openapi.json"),
    }
}

async fn bounded(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let error = ApiError::new("the cluster did not answer in time")
                .next("see domain-ctl status, then try again");
            HttpError {
                status: StatusCode::SERVICE_UNAVAILABLE,
                error,
            }
            .into_response()
        }
    }
}

/// Refuses what a web page could make a browser on this machine send: a name of its own that resolves to loopback.
async fn from_this_machine(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if is_loopback(host) {
        return next.run(request).await;
    }
    let error = ApiError::new("this API answers on loopback addresses only")
        .because("the request's host header names something else")
        .next("use http://127.0.0.1:PORT");
    HttpError {
        status: StatusCode::FORBIDDEN,
        error,
    }
    .into_response()
}

fn is_loopback(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = without_port.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

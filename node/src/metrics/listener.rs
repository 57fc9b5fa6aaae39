//! Where only `GET /metrics` is answered, over plain HTTP, on whatever address the configuration names.

use crate::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// What the text is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long making the page may take.
const PAGE_WITHIN: Duration = Duration::from_secs(5);

/// Opens the socket.
///
/// # Errors
/// One line for the operator.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!("can't listen on {address} for Prometheus: {error}; see [metrics] listen")
    })
}

/// The one path.
pub fn router(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(page))
        .with_state(metrics)
}

async fn page(State(metrics): State<Arc<Metrics>>) -> Response {
    match tokio::time::timeout(PAGE_WITHIN, metrics.page()).await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text.to_string()).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

//! Handlers that change what a volume is: its size, its policy.

use crate::api::access::{ClusterAccess, DECIDED_WITHIN};
use crate::api::changes::{find, propose};
use crate::api::errors::HttpError;
use crate::api::facts::volume_named;
use crate::api::input;
use crate::api::reads::{self, ObservedVolume};
use crate::api::routes::Api;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use isthmus_api::{ChangePolicy, ExpandVolume};
use isthmus_catalog::{Catalog, Command, Durability, OnPeerLoss, RequestId};
use isthmus_engine::VolumeId;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// POST /v1/volumes/{name}/expand
pub async fn expand<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<ObservedVolume>, HttpError> {
    let asked: Asked<ExpandVolume> = asked(&api, &name, &headers, &bytes).await?;
    let command = Command::ExpandVolume {
        volume: asked.volume,
        bytes: asked.wanted.bytes,
    };
    propose(&api, asked.id, String::new(), command).await?;
    shown(&api, &name).await
}

/// POST /v1/volumes/{name}/policy
pub async fn policy<A: ClusterAccess>(
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
    } = asked::<A, ChangePolicy>(&api, &name, &headers, &bytes).await?;
    let preferred_domain = match wanted.preferred_domain {
        None => None,
        Some(None) => Some(None),
        Some(Some(domain)) => Some(Some(find(&catalog, &domain)?)),
    };
    let command = Command::ChangePolicy {
        volume,
        on_peer_loss: wanted.on_peer_loss.map(|wanted| match wanted {
            isthmus_api::OnPeerLoss::Degrade => OnPeerLoss::Degrade,
            isthmus_api::OnPeerLoss::Suspend => OnPeerLoss::Suspend,
        }),
        durability: wanted.durability.map(|wanted| match wanted {
            isthmus_api::Durability::Acknowledged => Durability::Acknowledged,
            isthmus_api::Durability::Flush => Durability::Flush,
        }),
        preferred_domain,
    };
    propose(&api, id, String::new(), command).await?;
    shown(&api, &name).await
}

/// A change of one volume, read and found.
pub(super) struct Asked<T> {
    /// Names it.
    pub id: RequestId,
    /// What is wanted.
    pub wanted: T,
    /// The confirmed catalog.
    pub catalog: Arc<Catalog>,
    /// Of which volume.
    pub volume: VolumeId,
}

/// Reads what is asked for the volume of this name.
pub(super) async fn asked<A: ClusterAccess, T: DeserializeOwned>(
    api: &Api<A>,
    name: &str,
    headers: &HeaderMap,
    bytes: &Bytes,
) -> Result<Asked<T>, HttpError> {
    let id = api.request_id(headers)?;
    let wanted = input::body(headers, bytes)?;
    let catalog = api.cluster.confirmed(DECIDED_WITHIN).await?;
    let (volume, _) = volume_named(&catalog, name)?;
    Ok(Asked {
        id,
        wanted,
        catalog,
        volume,
    })
}

/// The volume after the change.
pub(super) async fn shown<A: ClusterAccess>(
    api: &Api<A>,
    name: &str,
) -> Result<Json<ObservedVolume>, HttpError> {
    let facts = reads::facts(api.cluster.as_ref()).await;
    reads::shown(&facts, name).map(Json)
}

//! Handlers that change something: each makes one command for kvdb, which applies it once per request id.

use crate::api::access::{ClusterAccess, DECIDED_WITHIN, now_ms};
use crate::api::errors::HttpError;
use crate::api::facts::Facts;
use crate::api::reads;
use crate::api::routes::Api;
use crate::api::{input, links};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use isthmus_api::{
    CreateVolume, DomainChange, DomainChanged, LinkAction, UpdateAction, VolumeCreated,
    VolumeDeleted,
};
use isthmus_catalog::{
    Answer, Catalog, Cause, Command, DeactivationPlan, DomainRole, DomainState, Durability,
    OnPeerLoss, RequestId, VolumePolicy,
};
use isthmus_engine::{DomainId, VolumeId};
use std::sync::Arc;

/// Who asks, in the audit trail.
const OPERATOR: &str = "operator";

/// An operator's wish.
pub(super) fn operator(why: String) -> Cause {
    Cause {
        who: OPERATOR.to_owned(),
        why,
        at_ms: now_ms(),
    }
}

/// Has a command applied.
pub(super) async fn propose<A: ClusterAccess>(
    api: &Api<A>,
    id: RequestId,
    why: String,
    command: Command,
) -> Result<Answer, HttpError> {
    match api.cluster.propose(id, operator(why), command).await? {
        Answer::Refused(refusal) => Err(refusal.into()),
        answer => Ok(answer),
    }
}

/// The recorded answer to an earlier try of the same request.
pub(super) fn earlier(catalog: &Catalog, id: RequestId) -> Option<&Answer> {
    catalog
        .answers
        .iter()
        .rev()
        .find(|(known, _)| *known == id)
        .map(|(_, answer)| answer)
}

/// POST /v1/clusterdomains/{name}/activate
pub async fn activate<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<(StatusCode, Json<DomainChanged>), HttpError> {
    let id = api.request_id(&headers)?;
    let change: DomainChange = input::body(&headers, &bytes)?;
    for (field, set) in [
        ("accept_data_loss", change.accept_data_loss),
        ("dry_run", change.dry_run),
    ] {
        if set {
            return Err(HttpError::field(field, "it is for deactivations only"));
        }
    }
    let why = input::reason(&change.reason)?;
    let catalog = api.cluster.confirmed(DECIDED_WITHIN).await?;
    let domain = find(&catalog, &name)?;
    let plan = vec![
        format!("the nodes of {name} catch up with kvdb; until then they serve nothing"),
        "the votes go back to all active domains".to_owned(),
        "its replicas are brought back: only what changed is copied".to_owned(),
    ];
    if earlier(&catalog, id).is_none()
        && let Some(answer) = already(&catalog, domain, &name, UpdateAction::Activate)
    {
        return Ok((StatusCode::OK, Json(answer)));
    }
    let answer = propose(&api, id, why, Command::Activate { domain }).await?;
    Ok((StatusCode::ACCEPTED, Json(changed(name, answer, plan))))
}

/// POST /v1/clusterdomains/{name}/deactivate
pub async fn deactivate<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<(StatusCode, Json<DomainChanged>), HttpError> {
    let id = api.request_id(&headers)?;
    let change: DomainChange = input::body(&headers, &bytes)?;
    let why = input::reason(&change.reason)?;
    let mut facts = reads::facts(api.cluster.as_ref()).await;
    if !facts.confirmed {
        api.cluster.confirmed(DECIDED_WITHIN).await?;
        facts = reads::facts(api.cluster.as_ref()).await;
    }
    let domain = find(&facts.catalog, &name)?;
    let answering = facts.answering();
    let planned = facts.catalog.plan_deactivation(domain, &answering);
    if change.dry_run {
        let (plan, refusal) = match planned {
            Ok(plan) => {
                let steps = steps(&facts, &name, &plan);
                let refused = !plan.lost.is_empty() && !change.accept_data_loss;
                let refusal = if refused {
                    format!(
                        "these volumes would be left without an in-sync replica that answers: {}; \
                             bring another replica in sync first, or accept the loss with --accept-data-loss",
                        names(&facts.catalog, &plan.lost)
                    )
                } else {
                    String::new()
                };
                (steps, refusal)
            }
            Err(refusal) => (Vec::new(), refusal.to_string()),
        };
        return Ok((
            StatusCode::OK,
            Json(DomainChanged {
                cluster_domain: name,
                update: None,
                plan,
                refusal,
            }),
        ));
    }
    if earlier(&facts.catalog, id).is_none()
        && let Some(answer) = already(&facts.catalog, domain, &name, UpdateAction::Deactivate)
    {
        return Ok((StatusCode::OK, Json(answer)));
    }
    let plan = planned
        .map(|plan| steps(&facts, &name, &plan))
        .unwrap_or_default();
    let command = Command::Deactivate {
        domain,
        answering,
        accept_data_loss: change.accept_data_loss,
    };
    let answer = propose(&api, id, why, command).await?;
    Ok((StatusCode::ACCEPTED, Json(changed(name, answer, plan))))
}

pub(super) fn find(catalog: &Catalog, name: &str) -> Result<DomainId, HttpError> {
    let found = catalog
        .domains
        .iter()
        .find(|(_, record)| record.name == name);
    found
        .map(|(id, _)| *id)
        .ok_or_else(|| HttpError::not_found(format!("provided cluster domain {name} not found")))
}

fn changed(name: String, answer: Answer, plan: Vec<String>) -> DomainChanged {
    let update = match answer {
        Answer::Update(update) => Some(update),
        _ => None,
    };
    DomainChanged {
        cluster_domain: name,
        update,
        plan,
        refusal: String::new(),
    }
}

/// The answer where the domain is there already, or on its way: asking twice does no harm.
fn already(
    catalog: &Catalog,
    domain: DomainId,
    name: &str,
    action: UpdateAction,
) -> Option<DomainChanged> {
    let (there, under_way) = match action {
        UpdateAction::Activate => (DomainState::Active, DomainState::Activating),
        UpdateAction::Deactivate => (DomainState::Inactive, DomainState::Deactivating),
    };
    let state = catalog.domains.get(&domain)?.state;
    let update = if state == there {
        None
    } else if state == under_way {
        let last = catalog
            .updates
            .iter()
            .rev()
            .find(|update| update.domain == domain);
        let running =
            last.filter(|update| update.status == isthmus_catalog::UpdateStatus::InProgress);
        Some(running?.name.clone()) // One that failed may be asked for again.
    } else {
        return None;
    };
    Some(DomainChanged {
        cluster_domain: name.to_owned(),
        update,
        plan: Vec::new(),
        refusal: String::new(),
    })
}

fn names(catalog: &Catalog, volumes: &[VolumeId]) -> String {
    const NAMES_MAX: usize = 20;
    let mut names: Vec<String> = volumes
        .iter()
        .take(NAMES_MAX)
        .filter_map(|id| Some(catalog.volumes.get(id)?.name.clone()))
        .collect();
    if volumes.len() > NAMES_MAX {
        names.push(format!("and {} more", volumes.len() - NAMES_MAX));
    }
    names.join(", ")
}

fn steps(facts: &Facts, name: &str, plan: &DeactivationPlan) -> Vec<String> {
    let catalog = &facts.catalog;
    let is_data = facts
        .domain_named(name)
        .is_some_and(|(_, domain)| domain.role == DomainRole::Data);
    let mut steps = Vec::new();
    if is_data {
        steps.push(format!("{name} is marked inactive, its replicas leave every in-sync set, every volume's epoch rises (one commit)"));
    }
    for (volumes, words) in [
        (
            &plan.moved,
            "their primary ends; clients reconnect at the other site",
        ),
        (
            &plan.unprotected,
            "they stay whole, with one site's replicas only, until the domain is back and in sync",
        ),
        (
            &plan.lost,
            "WITHOUT an in-sync replica that answers: acknowledged writes may be lost",
        ),
    ] {
        if !volumes.is_empty() {
            steps.push(format!("volumes {}: {words}", names(catalog, volumes)));
        }
    }
    let voters: Vec<String> = plan.voters.iter().map(|id| facts.node_name(*id)).collect();
    steps.push(format!("kvdb's votes move to {}", voters.join(", ")));
    steps.push(format!(
        "successful once no node of {name} can serve any more: it said so, or its lease is over"
    ));
    steps
}

/// POST /v1/volumes
pub async fn create_volume<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<(StatusCode, Json<VolumeCreated>), HttpError> {
    let id = api.request_id(&headers)?;
    let wanted: CreateVolume = input::body(&headers, &bytes)?;
    check(&wanted)?;
    let preferred_domain = match &wanted.preferred_domain {
        None => None,
        Some(name) => {
            let catalog = api.cluster.confirmed(DECIDED_WITHIN).await?;
            let domain = catalog
                .domains
                .iter()
                .find(|(_, record)| record.name == *name && record.role == DomainRole::Data);
            let unknown = || {
                HttpError::field(
                    "preferred_domain",
                    format!("'{name}' is no data domain of the cluster"),
                )
            };
            Some(*domain.ok_or_else(unknown)?.0)
        }
    };
    let policy = VolumePolicy {
        on_peer_loss: match wanted.on_peer_loss {
            isthmus_api::OnPeerLoss::Degrade => OnPeerLoss::Degrade,
            isthmus_api::OnPeerLoss::Suspend => OnPeerLoss::Suspend,
        },
        durability: match wanted.durability {
            isthmus_api::Durability::Acknowledged => Durability::Acknowledged,
            isthmus_api::Durability::Flush => Durability::Flush,
        },
        preferred_domain,
    };
    check_links(&api, id, &wanted).await?;
    let (name, bytes, block_bytes) = (wanted.name.clone(), wanted.bytes, wanted.block_bytes);
    let command = match wanted.replicas_per_domain {
        1 => Command::CreateVolume {
            name,
            bytes,
            block_bytes,
            policy,
        },
        replicas_per_domain => Command::CreateVolumeWith {
            name,
            bytes,
            block_bytes,
            policy,
            replicas_per_domain,
        },
    };
    let Answer::Volume(volume) = propose(&api, id, String::new(), command).await? else {
        let error = isthmus_api::ApiError::new(format!(
            "the request id of volume {} was used for something else",
            wanted.name
        ));
        return Err(HttpError {
            status: StatusCode::CONFLICT,
            error: error.next("repeat it with a new request id"),
        });
    };
    Ok((
        StatusCode::CREATED,
        Json(VolumeCreated {
            name: wanted.name,
            id: volume.0,
        }),
    ))
}

/// Whether the links to where its replicas would be are good enough for a new volume. Not asked by the command itself: what links are like is
/// measured, not agreed on; and a volume that is created just as its link becomes too slow is one that was created before.
async fn check_links<A: ClusterAccess>(
    api: &Api<A>,
    id: RequestId,
    wanted: &CreateVolume,
) -> Result<(), HttpError> {
    if api.cluster.link_action() != LinkAction::RefuseNew {
        return Ok(());
    }
    let facts = reads::facts(api.cluster.as_ref()).await;
    let is_there = facts.volume_named(&wanted.name).is_ok();
    // A repetition is answered as the first try was; one that is there is refused for that.
    if is_there || earlier(&facts.catalog, id).is_some() {
        return Ok(());
    }
    match facts.catalog.place(wanted.replicas_per_domain) {
        Ok(places) => links::check_new_volume(&facts, &wanted.name, &places),
        // The command says why.
        Err(_) => Ok(()),
    }
}

fn check(wanted: &CreateVolume) -> Result<(), HttpError> {
    let name = wanted.name.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let well_formed = name.first().is_some_and(plain)
        && name.len() <= Catalog::NAME_BYTES_MAX
        && name.iter().all(|byte| plain(byte) || b"._-".contains(byte));
    if !well_formed {
        return Err(HttpError::field(
            "name",
            "write 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit",
        ));
    }
    if wanted.bytes == 0
        || !wanted.bytes.is_multiple_of(4096)
        || wanted.bytes > Catalog::VOLUME_BYTES_MAX
    {
        let problem = format!(
            "{} bytes: a size is a multiple of 4096, more than 0 and at most 256 TiB",
            wanted.bytes
        );
        return Err(HttpError::field("bytes", problem));
    }
    if !(1..=Catalog::REPLICAS_PER_DOMAIN_MAX).contains(&wanted.replicas_per_domain) {
        return Err(HttpError::field(
            "replicas_per_domain",
            format!(
                "{}: write 1 to {}",
                wanted.replicas_per_domain,
                Catalog::REPLICAS_PER_DOMAIN_MAX
            ),
        ));
    }
    if !matches!(wanted.block_bytes, 512 | 4096) {
        return Err(HttpError::field(
            "block_bytes",
            format!("{}: write 512 or 4096", wanted.block_bytes),
        ));
    }
    Ok(())
}

/// DELETE /v1/volumes/{name}
pub async fn delete_volume<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<VolumeDeleted>, HttpError> {
    let id = api.request_id(&headers)?;
    let catalog = api.cluster.confirmed(DECIDED_WITHIN).await?;
    let found = catalog
        .volumes
        .iter()
        .find(|(_, record)| record.name == name);
    let Some((volume, _)) = found else {
        // An earlier try of this very request may have deleted it, and its answer was lost on the way.
        return match earlier(&catalog, id) {
            Some(Answer::Done) => Ok(Json(VolumeDeleted { name })),
            _ => Err(HttpError::not_found(format!("volume {name} not found"))),
        };
    };
    propose(
        &api,
        id,
        String::new(),
        Command::DeleteVolume { volume: *volume },
    )
    .await?;
    Ok(Json(VolumeDeleted { name }))
}

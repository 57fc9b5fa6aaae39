//! Handlers for when kvdb has lost its majority for good: what it was saved as, going on without the others, and naming the replica of a
//! volume that counts.

use crate::api::access::{ClusterAccess, SHOWN_WITHIN, now_ms};
use crate::api::changes::{operator, propose};
use crate::api::errors::HttpError;
use crate::api::facts::Facts;
use crate::api::input;
use crate::api::reads;
use crate::api::routes::Api;
use crate::generation::Change;
use crate::random;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use isthmus_api::{
    ApiError, KvdbSnapshot, RecoverKvdb, RecoverVolume, Recovery, ReplicaEvidence, VolumeRecovery,
    VolumeRole, VolumeRuntime,
};
use isthmus_catalog::{Catalog, Command, DomainRole, Lineage, Refusal, VolumeRecord};
use isthmus_engine::{Epoch, NodeId, ReplicaId, VolumeId};
use std::sync::Arc;

/// GET /v1/kvdb/snapshot
pub async fn snapshot<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
) -> Result<Json<KvdbSnapshot>, HttpError> {
    let (catalog, confirmed) = match api.cluster.confirmed(SHOWN_WITHIN).await {
        Ok(catalog) => (catalog, true),
        Err(_) => (api.cluster.local(), false),
    };
    if catalog.cluster_id == 0 {
        return Err(nothing_held());
    }
    let bytes = catalog.encode().ok();
    let bytes = bytes.filter(|bytes| bytes.len() <= KvdbSnapshot::CATALOG_BYTES_MAX);
    let Some(bytes) = bytes else {
        return Err(refused(ApiError::new(
            "the catalog is too large to be saved",
        )));
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (text, crc32) = KvdbSnapshot::sealed(&bytes);
    Ok(Json(KvdbSnapshot {
        format: KvdbSnapshot::FORMAT.to_owned(),
        cluster: catalog.cluster_name.clone(),
        cluster_id: format!("{:016x}", catalog.cluster_id),
        generation: catalog.lineage.to_string(),
        revision: catalog.revision,
        taken_ms: now_ms(),
        nodes: count(catalog.nodes.len()),
        volumes: count(catalog.volumes.len()),
        confirmed,
        crc32,
        catalog: text,
    }))
}

/// POST /v1/kvdb/recover
pub async fn recover_kvdb<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<(StatusCode, Json<Recovery>), HttpError> {
    let wanted: RecoverKvdb = input::body(&headers, &bytes)?;
    let cause = operator(input::reason(&wanted.reason)?);
    let facts = reads::facts(api.cluster.as_ref()).await;
    let before = api.cluster.lineage();
    let held = Arc::clone(&facts.catalog);
    let saved = match &wanted.snapshot {
        None if held.cluster_id == 0 => return Err(nothing_held()),
        None => None,
        Some(snapshot) => Some(Arc::new(read(snapshot)?)),
    };
    if let Some(saved) = &saved {
        let restored = Catalog::clone(saved);
        restored.restored_over(&held, api.cluster.cluster_id(), &before)?;
    }
    let begins_with = saved.as_ref().unwrap_or(&held);
    let survivor = survivor(&facts, begins_with)?;
    if facts.confirmed && saved.is_none() {
        let error = ApiError::new("kvdb has a majority: there is nothing to recover")
            .because(format!("the voters {} agree", voters(&facts)))
            .next("domain-ctl deactivate clusterdomain NAME takes a lost site out");
        return Err(refused(error));
    }
    let others = begins_with
        .nodes
        .iter()
        .filter(|(id, _)| **id != facts.this_node);
    let (answering, silent): (Vec<_>, Vec<_>) = others.partition(|(id, _)| facts.answers(**id));
    let names = |nodes: Vec<(&NodeId, &isthmus_catalog::NodeRecord)>| -> Vec<String> {
        nodes.iter().map(|(_, node)| node.name.clone()).collect()
    };
    let mut recovery = Recovery {
        node: survivor.0,
        domain: survivor.1,
        from: before.to_string(),
        generation: None,
        revision: begins_with.revision,
        volumes: u32::try_from(begins_with.volumes.len()).unwrap_or(u32::MAX),
        answering: names(answering),
        silent: names(silent),
    };
    if wanted.dry_run {
        return Ok((StatusCode::OK, Json(recovery)));
    }
    if !wanted.others_are_off {
        let error = ApiError::new("other nodes may still serve, and what they acknowledge would be lost")
            .because(format!("not known to be off: {}", others_named(&recovery)))
            .next("see what would happen with --dry-run; make sure that they are off, then say so with --others-are-off");
        return Err(refused(error));
    }
    if before.0.len() >= Lineage::MAX {
        return Err(refused(ApiError::new(format!(
            "a cluster has at most {} forced generations: make a new one, and copy the volumes",
            Lineage::MAX
        ))));
    }
    let lineage = before.forced(random::number().map_err(no_numbers)?);
    recovery.generation = Some(lineage.to_string());
    tracing::warn!(generation = %lineage, "the operator forces a new generation of the cluster from this node");
    let change = Change::Force {
        lineage,
        cause,
        catalog: saved,
    };
    if !api.cluster.change_generation(change) {
        let error = ApiError::new("this node is changing its generation already")
            .next("wait until it is up again, then see domain-ctl status");
        return Err(refused(error));
    }
    Ok((StatusCode::ACCEPTED, Json(recovery)))
}

/// POST /v1/volumes/{name}/recover
pub async fn recover_volume<A: ClusterAccess>(
    State(api): State<Arc<Api<A>>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<VolumeRecovery>, HttpError> {
    let id = api.request_id(&headers)?;
    let wanted: RecoverVolume = input::body(&headers, &bytes)?;
    let why = input::reason(&wanted.reason)?;
    let facts = reads::facts(api.cluster.as_ref()).await;
    let (volume, record) = facts.volume_named(&name)?;
    let replicas: Vec<(NodeId, ReplicaEvidence)> = (record.replicas.iter())
        .map(|node| (*node, evidence(&facts, volume, record, *node)))
        .collect();
    let said = |node: NodeId| facts.runtime(node, volume);
    let mut answer = VolumeRecovery {
        volume: name.clone(),
        unproven: facts.catalog.unproven.contains(&volume),
        replicas: replicas
            .iter()
            .map(|(_, replica)| replica.clone())
            .collect(),
        named: None,
        observed: facts.observed(),
    };
    let Some(from) = wanted.from else {
        return Ok(Json(answer));
    };
    if !answer.unproven {
        return Err(Refusal::Proven(name).into());
    }
    let chosen = replicas.iter().find(|(_, replica)| replica.node == from);
    let Some((node, chosen)) = chosen else {
        let holders: Vec<&str> = (replicas.iter())
            .map(|(_, replica)| replica.node.as_str())
            .collect();
        let error = ApiError::new(format!("node {from} holds no replica of volume {name}"))
            .next(format!("name one of {}", holders.join(", ")));
        return Err(refused(error));
    };
    if chosen.whole != Some(true) {
        let error = ApiError::new(format!("the replica on {from} can't be named"))
            .because(chosen.reason.clone())
            .next("start its node, or name another one");
        return Err(refused(error));
    }
    let others = replicas.iter().filter(|(other, _)| other != node);
    let mut better: Vec<String> = others
        .filter_map(|(other, shown)| holds_more(said(*node)?, &chosen.node, said(*other), shown))
        .collect();
    if !chosen.was_in_sync {
        better.push(format!(
            "{from} was not in the last in-sync set that is known"
        ));
    }
    if !better.is_empty() && !wanted.accept_data_loss {
        let error = ApiError::new(format!(
            "naming the replica on {from} may lose acknowledged writes of volume {name}"
        ))
        .because(better.join("; "))
        .next(
            "bring these back first, name one of them, or accept the loss with --accept-data-loss",
        );
        return Err(refused(error));
    }
    let incarnation = facts
        .catalog
        .nodes
        .get(node)
        .and_then(|node| node.incarnation);
    let incarnation = incarnation.ok_or(Refusal::UnknownNode(*node))?;
    let replica = ReplicaId {
        node: *node,
        incarnation,
    };
    propose(&api, id, why, Command::NameReplica { volume, replica }).await?;
    answer.unproven = false;
    answer.named = Some(from);
    Ok(Json(answer))
}

/// What is known of a replica.
fn evidence(
    facts: &Facts,
    volume: VolumeId,
    record: &VolumeRecord,
    node: NodeId,
) -> ReplicaEvidence {
    let known = facts.catalog.nodes.get(&node);
    let said = facts.runtime(node, volume);
    let answers = facts.answers(node);
    let whole = said.map(|said| said.whole);
    let reason = match (answers, whole) {
        (false, _) => "its node does not answer".to_owned(),
        (true, None) => {
            "its node says nothing of it: it may not have a replica yet, or still be starting"
                .to_owned()
        }
        (true, Some(false)) => {
            "it was copied over in part: its blocks are not those of one moment".to_owned()
        }
        (true, Some(true)) => String::new(),
    };
    ReplicaEvidence {
        node: facts.node_name(node),
        domain: known.map_or_else(String::new, |node| facts.domain_name(node.domain)),
        was_in_sync: (record.in_sync.iter())
            .any(|replica| replica.node == node && facts.catalog.is_registered(*replica)),
        answers,
        heard_at_ms: facts.heard_at_ms(node),
        whole,
        epoch: said.map_or_else(String::new, |said| {
            let (generation, number) = said.last_epoch;
            Epoch { generation, number }.to_string()
        }),
        last_seq: said.map(|said| said.last_seq),
        committed_seq: said.map(|said| said.committed_seq),
        reason,
    }
}

/// Why another replica may hold what the chosen one does not, if it may.
fn holds_more(
    chosen: &VolumeRuntime,
    node: &str,
    other: Option<&VolumeRuntime>,
    shown: &ReplicaEvidence,
) -> Option<String> {
    let name = &shown.node;
    let can_tell =
        |said: &&VolumeRuntime| !matches!(said.role, VolumeRole::Stopped | VolumeRole::Unable);
    let Some(other) = other.filter(|_| shown.answers).filter(can_tell) else {
        let why = match shown.reason.as_str() {
            "" => "its replica can't take part",
            reason => reason,
        };
        return Some(format!("{name} may hold more: {why}"));
    };
    // Only within one epoch is a higher seq more: a later epoch's first record may stand where an earlier one's last one did.
    let last = |said: &VolumeRuntime| (said.last_epoch, said.last_seq);
    let epoch = |(generation, number): (u32, u32)| Epoch { generation, number };
    if last(other) > last(chosen) {
        return Some(format!(
            "{name} holds records up to {} of epoch {}, {node} up to {} of epoch {}",
            other.last_seq,
            epoch(other.last_epoch),
            chosen.last_seq,
            epoch(chosen.last_epoch)
        ));
    }
    (other.committed_seq > chosen.last_seq).then(|| {
        format!(
            "{name} knows records up to {} as committed, {node} holds those up to {}",
            other.committed_seq, chosen.last_seq
        )
    })
}

/// This node and its domain, if it is one that can go on alone.
fn survivor(facts: &Facts, begins_with: &Catalog) -> Result<(String, String), HttpError> {
    let node = begins_with.nodes.get(&facts.this_node);
    let domain = node.and_then(|node| begins_with.domains.get(&node.domain));
    match (node, domain) {
        (Some(node), Some(domain))
            if domain.role == DomainRole::Data
                && !begins_with.diskless.contains(&facts.this_node) =>
        {
            Ok((node.name.clone(), domain.name.clone()))
        }
        // Another node may do it.
        _ => Err(HttpError {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error: ApiError::new(
                "this node holds no replicas: a new generation is forced from one that does",
            )
            .next("name the admin API of a surviving data node with --api"),
        }),
    }
}

fn read(snapshot: &KvdbSnapshot) -> Result<Catalog, HttpError> {
    let wrong = |why: String| HttpError::field("snapshot", why);
    let bytes = snapshot.bytes().map_err(wrong)?;
    Catalog::decode(&bytes).map_err(|error| wrong(error.to_string()))
}

fn voters(facts: &Facts) -> String {
    let names: Vec<String> = (facts.kvdb.voters.iter())
        .map(|id| facts.node_name(NodeId(*id)))
        .collect();
    names.join(", ")
}

fn others_named(recovery: &Recovery) -> String {
    let others: Vec<&str> = (recovery.answering.iter().chain(&recovery.silent))
        .map(String::as_str)
        .collect();
    others.join(", ")
}

fn refused(error: ApiError) -> HttpError {
    HttpError {
        status: StatusCode::CONFLICT,
        error,
    }
}

fn nothing_held() -> HttpError {
    HttpError {
        status: StatusCode::SERVICE_UNAVAILABLE,
        error: ApiError::new("this node holds nothing of kvdb yet")
            .next("wait until it has joined the cluster, or ask another node"),
    }
}

fn no_numbers(error: std::io::Error) -> HttpError {
    HttpError {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        error: ApiError::new("there are no random numbers").because(error.to_string()),
    }
}

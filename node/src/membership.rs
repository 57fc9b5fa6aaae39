//! How a node becomes a member: one node forms the cluster, those that it did not know of add themselves, each registers its start (I12).

use crate::api::access::ClusterAccess;
use crate::cluster::Cluster;
use crate::generation;
use crate::links::Links;
use crate::run::own_cause;
use crate::store::Store;
use isthmus_api::KvdbView;
use isthmus_catalog::{
    Answer, Command, DomainRecord, DomainRole, DomainState, NodeRecord, Refusal,
};
use isthmus_config::{Config, Member, NodeRole, Role};
use isthmus_engine::{DomainId, NodeId};
use isthmus_kvdb::{Kvdb, KvdbError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Between tries while no majority is there.
const RETRY_PERIOD: Duration = Duration::from_millis(100);

/// Forms the cluster where the configuration says so, and registers this start. Tries until it is done.
///
/// # Errors
/// One line for the operator: the cluster refuses this store, or kvdb has stopped. The node must stop then.
pub async fn join(
    kvdb: Kvdb,
    cluster: Arc<Cluster>,
    config: Config,
    store: Store,
    links: Links,
) -> anyhow::Result<()> {
    // Only the first generation is formed: in any later one there is a cluster already, whoever answers just now.
    let is_first = store.lineage.number() == 0;
    if is_first && config.bootstrap && may_form(&kvdb, &*cluster, &config).await? {
        let formed = retried("form the cluster", || {
            let (domains, nodes) = members(&config);
            kvdb.form(
                config.cluster.name.clone(),
                config.cluster.id.0,
                domains,
                nodes,
                own_cause(&config, "first start"),
            )
        });
        accepted("form the cluster", formed.await?)?;
    }
    let is_diskless = config.role_of(config.this_member()) == NodeRole::Diskless;
    let record = || Box::new(record(&config, config.this_member()));
    if is_diskless {
        let command = Command::AddDiskless {
            node: store.node,
            record: record(),
        };
        propose(&kvdb, &config, "be one of its nodes", command).await?;
    }
    admitted(&kvdb, &links, &store).await;
    let command = Command::NodeStartedIn {
        node: store.node,
        incarnation: store.incarnation,
        starts: store.starts,
        boot: crate::boot::boot_id()?,
    };
    let answer = propose_any(&kvdb, &config, "register this start", command.clone()).await?;
    if answer == Answer::Refused(Refusal::UnknownNode(store.node)) && !is_diskless {
        // It was not there when the cluster was formed: it comes to it now.
        let add = Command::AddNode {
            node: store.node,
            record: record(),
        };
        propose(&kvdb, &config, "be one of its nodes", add).await?;
        propose(&kvdb, &config, "register this start", command).await?;
    } else {
        accepted("register this start", answer)?;
    }
    tracing::info!(node = config.node, "registered with the cluster");
    forget_others(&kvdb, &config, &store).await;
    Ok(())
}

/// Returns once the links to the other data domains are good enough for a new member, or kvdb here says that this store is none: kvdb
/// brings nothing to who is not registered.
async fn admitted(kvdb: &Kvdb, links: &Links, store: &Store) {
    let is_registered = || {
        let catalog = kvdb.catalog();
        let record = catalog.nodes.get(&store.node);
        record.is_some_and(|record| record.incarnation == Some(store.incarnation))
    };
    let mut said = None;
    while !is_registered()
        && let Err(reason) = links.admit()
    {
        if said.as_ref() != Some(&reason) {
            tracing::warn!(
                reason,
                "this node is not a member yet: it waits for its links"
            );
            said = Some(reason);
        }
        tokio::time::sleep(RETRY_PERIOD).await;
    }
}

/// As soon as kvdb holds the catalog here: what it held in generations long ago is not needed any more.
async fn forget_others(kvdb: &Kvdb, config: &Config, store: &Store) {
    let mut watched = kvdb.watch();
    while watched.newest().lineage != store.lineage || watched.newest().cluster_id == 0 {
        if watched.changed().await.is_err() {
            return;
        }
    }
    if let Err(error) = generation::remove_others(&config.data_dir, &store.lineage) {
        tracing::warn!(%error, "what is left of earlier generations could not be removed");
    }
}

/// Whether this node is to form the cluster: it has begun to, or there is none yet, as all say that answer, and with this node they
/// are most of its members. A node that formed the cluster long ago, and whose disk was emptied, must not form a second one.
async fn may_form(
    kvdb: &Kvdb,
    cluster: &impl ClusterAccess,
    config: &Config,
) -> anyhow::Result<bool> {
    let mut said = false;
    loop {
        if kvdb.is_initialized().await? {
            return Ok(true);
        }
        let observed = cluster.observe().await;
        let others = observed
            .iter()
            .filter(|(node, observation)| **node != config.node_id() && observation.answers);
        let others: Vec<(NodeId, &KvdbView)> = others
            .filter_map(|(node, observation)| Some((*node, &observation.runtime.as_ref()?.kvdb)))
            .collect();
        if others.iter().any(|(_, kvdb)| knows_a_cluster(kvdb)) {
            tracing::info!("there is a cluster already: this node joins it and forms none");
            return Ok(false);
        }
        // Diskless ones come to the cluster once it is formed.
        let forms = |member: &&Member| config.role_of(member) != NodeRole::Diskless;
        let members = config.members.iter().filter(forms);
        let members: Vec<NodeId> = members.map(|member| NodeId(member.id)).collect();
        let answering = others.iter().filter(|(node, _)| members.contains(node));
        if (answering.count() + 1) * 2 > members.len() {
            return Ok(true);
        }
        if !said {
            said = true;
            tracing::info!("waits for most members to say that there is no cluster yet");
        }
        tokio::time::sleep(RETRY_PERIOD).await;
    }
}

/// Whether a node has ever been a member of a cluster.
fn knows_a_cluster(kvdb: &KvdbView) -> bool {
    kvdb.revision > 0 || !kvdb.voters.is_empty()
}

/// Has a command of this node applied.
async fn propose(kvdb: &Kvdb, config: &Config, what: &str, command: Command) -> anyhow::Result<()> {
    accepted(what, propose_any(kvdb, config, what, command).await?)
}

/// The same, whatever the answer is.
async fn propose_any(
    kvdb: &Kvdb,
    config: &Config,
    what: &str,
    command: Command,
) -> anyhow::Result<Answer> {
    retried(what, || {
        kvdb.propose(command.clone(), own_cause(config, "start"))
    })
    .await
}

fn accepted(what: &str, answer: Answer) -> anyhow::Result<()> {
    match answer {
        Answer::Refused(refusal) => anyhow::bail!("the cluster refuses to {what}: {refusal}"),
        _ => Ok(()),
    }
}

async fn retried<F: Future<Output = Result<Answer, KvdbError>>>(
    what: &str,
    attempt: impl Fn() -> F,
) -> anyhow::Result<Answer> {
    let mut said = false;
    loop {
        match attempt().await {
            Ok(Answer::Refused(Refusal::NotFormed)) => {}
            Ok(answer) => return Ok(answer),
            Err(KvdbError::Stopped(why)) => anyhow::bail!("kvdb has stopped: {why}"),
            Err(error) if !said => {
                said = true;
                tracing::warn!(%error, what, "not yet possible; it is tried again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY_PERIOD).await;
    }
}

fn members(
    config: &Config,
) -> (
    BTreeMap<DomainId, DomainRecord>,
    BTreeMap<NodeId, NodeRecord>,
) {
    let now_ms = crate::api::access::now_ms();
    let domains = config.domains.iter().map(|domain| {
        let record = DomainRecord {
            name: domain.name.clone(),
            role: match domain.role {
                Role::Data => DomainRole::Data,
                Role::Witness => DomainRole::Witness,
            },
            state: DomainState::Active,
            since_ms: now_ms,
            created_ms: now_ms,
        };
        (DomainId(domain.id), record)
    });
    let nodes = config
        .members
        .iter()
        .filter(|member| config.role_of(member) != NodeRole::Diskless)
        .map(|member| (NodeId(member.id), record(config, member)));
    (domains.collect(), nodes.collect())
}

fn record(config: &Config, member: &Member) -> NodeRecord {
    NodeRecord {
        name: member.name.clone(),
        domain: config.domain_id_of(member),
        peer_address: member.peer_address.to_string(),
        api_address: member.api_address.to_string(),
        nbd_address: member.nbd_address.map(|address| address.to_string()),
        incarnation: None,
        starts: 0,
    }
}

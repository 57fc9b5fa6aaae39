//! One node, from its configuration to its end.
//!
//! Order of starting: lock, store (this start is counted before anything else), the API's socket (a port in use is found before
//! anything is made), kvdb, data path, transport, membership, API. Order of stopping: the reverse.

use crate::api::access::now_ms;
use crate::api::{routes, server};
use crate::cluster::{Cluster, OwnState};
use crate::data_thread::DataThread;
use crate::domains::driver::{self, UpdatesWaiting};
use crate::forwarding::Diskless;
use crate::generation::{self, Generation};
use crate::links::{Actions, Limits, Links};
use crate::metrics::{Metrics, events, listener};
use crate::peers::{KvdbPeers, Outlet, Switchboard};
use crate::replicas::{OpenDirectory, Replicas};
use crate::serve::{DataPath, NoReplicas};
use crate::store::space::StoreSpace;
use crate::store::{self, Store};
use crate::{failover, membership, random};
use anyhow::Context;
use isthmus_api::LinkAction;
use isthmus_catalog::starts_counted;
use isthmus_config::{Config, FailoverPolicy, LatencyAction, Member, NodeRole, Role};
use isthmus_disk::{DirectoryLock, FileDisk};
use isthmus_engine::NodeId;
use isthmus_kvdb::{Kvdb, KvdbConfig};
use isthmus_transport::{CertificateFiles, Transport};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Runs a node until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// One line for the operator.
pub fn run(config: Config) -> anyhow::Result<()> {
    // From here on: whoever uses the directory is alone with it.
    let _lock =
        DirectoryLock::acquire(&config.data_dir).map_err(|error| anyhow::anyhow!("{error}"))?;
    let store = store::start(&config.data_dir, config.cluster.id.0, config.node_id())?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("can't start")?;
    match runtime.block_on(live(&config, store))? {
        End::Stopped => Ok(()),
        End::Changes(mut store, change) => {
            drop(runtime);
            generation::apply(&config.data_dir, &mut store, change)?;
            tracing::info!(node = config.node, generation = %store.lineage, "node starts anew in another generation");
            Err(generation::start_anew())
        }
    }
}

/// Why a node has ended in order.
enum End {
    /// It was told to stop.
    Stopped,
    /// It goes on in another generation.
    Changes(Store, generation::Change),
}

/// As many open files as the process may have: each client is one, each volume a few; and what a shell gives is 1,024.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::info!(%error, "the limit of open files stays as it is");
    }
}

async fn live(config: &Config, mut store: Store) -> anyhow::Result<End> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let api = server::listen(config.listen.api).await?;
    let data = DataThread::start()?;
    let outlet = Outlet::default();
    let directory = OpenDirectory::open(config)?;
    let kvdb = start_kvdb(config, &mut store, &outlet).await?;
    let data_path = start_data_path(config, directory, &store, &kvdb, &outlet, &data).await?;
    let waiting = UpdatesWaiting::default();
    let generation = Generation::new(store.lineage.clone());
    let peers: Vec<NodeId> = others(config).map(|(node, _)| node).collect();
    let own = Arc::new(OwnState {
        outlet: outlet.clone(),
        peers: peers.clone(),
        name: config.node.clone(),
        store: store.clone(),
        generation: generation.clone(),
        since: Instant::now(),
        kvdb: kvdb.clone(),
        data_path: Arc::clone(&data_path),
        waiting: waiting.clone(),
        space: StoreSpace::follow(&config.data_dir),
        links: Links::follow(
            &outlet,
            peers.iter().copied(),
            limits(config),
            actions(config),
            Arc::clone(&data_path),
        ),
    });
    let transport = start_transport(config, &kvdb, &data_path, &own, &data)?;
    outlet.open(Arc::clone(&transport));
    let metrics = start_metrics(config, &own).await?;
    tracing::info!(node = config.node, incarnation = %store.incarnation, starts = starts_counted(store.starts), "node is up");

    let cluster = Arc::new(Cluster::new(Arc::clone(&own), metrics, peers));
    let (stop, stopping) = watch::channel(false);
    let mut serving = start_api(api, &cluster, stopping)?;
    let mut joining = tokio::spawn(membership::join(
        kvdb.clone(),
        Arc::clone(&cluster),
        config.clone(),
        store.clone(),
        own.links.clone(),
    ));
    let driving = tokio::spawn(driver::drive(
        Arc::clone(&cluster),
        config.timing.lease(),
        random::number()?,
        waiting,
    ));
    let policy = failover::watch::Policy {
        automatic: config.failover.policy == FailoverPolicy::Automatic,
        after: Duration::from_millis(config.failover.after_ms),
        auto_activate: config.failover.auto_activate,
    };
    let watching = tokio::spawn(failover::driver::drive(cluster, policy, random::number()?));

    let ended = tokio::select! {
        _ = terminate.recv() => Ok(End::Stopped),
        _ = interrupt.recv() => Ok(End::Stopped),
        change = generation.changed() => Ok(End::Changes(store, change)),
        refused = async {
            match (&mut joining).await {
                Ok(Ok(())) => std::future::pending().await,
                Ok(Err(refused)) => refused,
                Err(error) => anyhow::anyhow!("joining the cluster ended: {error}"),
            }
        } => Err(refused),
        served = &mut serving => Err(anyhow::anyhow!("the API ended: {served:?}")),
    };
    tracing::info!(node = config.node, "node stops");
    joining.abort();
    driving.abort();
    watching.abort();
    // The API's task may have ended by itself.
    let _ = stop.send(true);
    data_path.stop().await;
    let stopped = Arc::clone(&transport);
    tokio::task::spawn_blocking(move || stopped.stop()).await?;
    kvdb.stop().await;
    data.stop();
    ended
}

/// When a link is too slow.
fn limits(config: &Config) -> Limits {
    Limits {
        round_trip_max: Duration::from_millis(config.link.max_rtt_ms),
        window: Duration::from_secs(config.link.window_seconds),
    }
}

/// What is done about links that are too slow.
fn actions(config: &Config) -> Actions {
    let this = config.this_member();
    let is_data = |member: &Member| config.domain_of(member).role == Role::Data;
    let across = config.members.iter().filter(|member| {
        is_data(this) && is_data(member) && config.domain_id_of(member) != config.domain_id_of(this)
    });
    Actions {
        action: match config.link.action {
            LatencyAction::Report => LinkAction::Report,
            LatencyAction::RefuseNew => LinkAction::RefuseNew,
            LatencyAction::Degrade => LinkAction::Degrade,
        },
        hold_down: Duration::from_secs(config.link.hold_down_seconds),
        across: across.map(|member| NodeId(member.id)).collect(),
    }
}

/// Notes events from now on, and answers Prometheus where the configuration says so.
async fn start_metrics(config: &Config, own: &Arc<OwnState>) -> anyhow::Result<Arc<Metrics>> {
    let noted = events::start(&config.node)?;
    tokio::spawn(events::count_elections(own.kvdb.clone()));
    let volumes = config.metrics.volumes as usize;
    let metrics = Arc::new(Metrics::new(Arc::clone(own), noted, volumes));
    if let Some(address) = config.metrics.listen {
        let listener = listener::listen(address).await?;
        let router = listener::router(Arc::clone(&metrics));
        // Ends with the process: it holds nothing that has to be put in order.
        tokio::spawn(server::serve(listener, router, std::future::pending()));
    }
    Ok(metrics)
}

fn others(config: &Config) -> impl Iterator<Item = (NodeId, String)> {
    let others = config
        .members
        .iter()
        .filter(|member| member.name != config.node);
    others.map(|member| (NodeId(member.id), member.peer_address.to_string()))
}

/// Starts kvdb on its generation's folder in the data directory, which is made first where there is none.
async fn start_kvdb(config: &Config, store: &mut Store, outlet: &Outlet) -> anyhow::Result<Kvdb> {
    let nodes = config
        .members
        .iter()
        .map(|member| NodeId(member.id))
        .collect();
    let mut settings = KvdbConfig::new(store.node, store.incarnation, random::number()?, nodes);
    settings.lineage = store.lineage.clone();
    settings.folder = store.kvdb_folder();
    settings.heartbeat = Duration::from_millis(config.timing.heartbeat_ms);
    settings.election_min = Duration::from_millis(config.timing.election_timeout_ms);
    settings.election_max = settings.election_min * 2;
    if !store.formatted {
        format(&config.data_dir, &settings.folder).context("can't make kvdb's store")?;
        store.set_formatted(&config.data_dir)?;
    }
    // kvdb polls its disk from its own thread; nobody has to be woken.
    let disk = open_disk(&config.data_dir)?;
    Ok(Kvdb::start(settings, disk, Arc::new(KvdbPeers(outlet.clone()))).await?)
}

fn format(data_dir: &Path, folder: &str) -> anyhow::Result<()> {
    // A crash may have left a part of it: nobody has ever relied on that.
    match std::fs::remove_dir_all(data_dir.join(folder)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    isthmus_kvdb::format(&mut open_disk(data_dir)?, folder, random::number()?)?;
    Ok(())
}

pub fn open_disk(data_dir: &Path) -> anyhow::Result<FileDisk> {
    FileDisk::open(data_dir, Arc::new(|| {}))
        .with_context(|| format!("can't use {}", data_dir.display()))
}

async fn start_data_path(
    config: &Config,
    directory: OpenDirectory,
    store: &Store,
    kvdb: &Kvdb,
    outlet: &Outlet,
    data: &DataThread,
) -> anyhow::Result<Arc<dyn DataPath>> {
    Ok(match config.role_of(config.this_member()) {
        NodeRole::Data => {
            Arc::new(Replicas::start(config, directory, store, kvdb, outlet, data.handle()).await?)
        }
        NodeRole::Witness => Arc::new(NoReplicas::new(kvdb.clone())),
        NodeRole::Diskless => {
            Arc::new(Diskless::start(config, store, kvdb, outlet, data.handle()).await?)
        }
    })
}

fn start_transport(
    config: &Config,
    kvdb: &Kvdb,
    data_path: &Arc<dyn DataPath>,
    own: &Arc<OwnState>,
    data: &DataThread,
) -> anyhow::Result<Arc<Transport>> {
    let certificates = CertificateFiles {
        authority: config.tls.authority.clone(),
        certificate: config.tls.certificate.clone(),
        key: config.tls.key.clone(),
    };
    let mut settings = isthmus_transport::Config::new(
        config.node_id(),
        config.cluster.id.0,
        config.listen.peer,
        certificates,
    );
    settings.lineage.clone_from(&own.store.lineage.0);
    settings.peers = others(config).collect();
    settings.bulk = match config.link.bulk {
        isthmus_config::Bulk::Tls => isthmus_transport::Bulk::Tls,
        isthmus_config::Bulk::Quic => isthmus_transport::Bulk::Quic,
    };
    let switchboard = Switchboard {
        kvdb: kvdb.clone(),
        data_path: Arc::clone(data_path),
        own: Arc::clone(own),
        runtime: tokio::runtime::Handle::current(),
    };
    Ok(Arc::new(Transport::start_on(
        settings,
        Arc::new(switchboard),
        data.handle(),
    )?))
}

fn start_api(
    listener: TcpListener,
    cluster: &Arc<Cluster>,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<tokio::task::JoinHandle<std::io::Result<()>>> {
    let router = routes::router(Arc::clone(cluster), random::number()?);
    let stop = async move {
        // An error means that the sender is gone, which is a stop, too.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    Ok(tokio::spawn(server::serve(listener, router, stop)))
}

/// Wall-clock cause of what a node does by itself.
pub fn own_cause(config: &Config, why: &str) -> isthmus_catalog::Cause {
    isthmus_catalog::Cause {
        who: config.node.clone(),
        why: why.to_owned(),
        at_ms: now_ms(),
    }
}

//! What a node holds of kvdb.

use isthmus_catalog::{
    Answer, Catalog, Cause, Command, DomainRecord, NodeRecord, Request, RequestId,
};
use isthmus_engine::{DomainId, NodeId};
use isthmus_journal::Disk;
use openraft::{Config, EmptyNode, SnapshotPolicy};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::KvdbConfig;
use crate::error::KvdbError;
use crate::group::{MemberId, Raft};
use crate::log_store::LogStore;
use crate::machine::{CatalogMachine, Observer};
use crate::membership;
use crate::metrics::KvdbMetrics;
use crate::network::Network;
use crate::peers::Peers;
use crate::runtime::{self, Runtime, Tokio, WatchReceiver as _, WatchReceiverOf};
use crate::serve::Assembly;
use crate::storage::{DiskOwner, Storage};
use crate::watch::CatalogWatch;

/// Entries in one message at most; bytes are bounded apart from that.
const ENTRIES_MAX: u64 = 256;
/// Entries that stay in the log behind a snapshot, for members that are a little late.
const ENTRIES_KEPT: u64 = 64;
/// A member that is further behind gets a snapshot.
const ENTRIES_BEHIND_MAX: u64 = 5000;
/// How long installing a snapshot may take.
const INSTALL_MS_MAX: u64 = 30_000;

/// kvdb on this node. Clones are the same one.
pub struct Kvdb<R: Runtime = Tokio> {
    pub(crate) shared: Arc<Shared<R>>,
}

impl<R: Runtime> Clone for Kvdb<R> {
    fn clone(&self) -> Kvdb<R> {
        Kvdb {
            shared: Arc::clone(&self.shared),
        }
    }
}

pub(crate) struct Shared<R: Runtime> {
    pub(crate) config: KvdbConfig,
    pub(crate) raft: Raft<R>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) log: LogStore<R>,
    pub(crate) assembly: Mutex<Option<Assembly>>,
    storage: Storage<R>,
    published: WatchReceiverOf<R, Arc<Catalog>>,
    requests: AtomicU64,
}

impl<R: Runtime> Drop for Shared<R> {
    fn drop(&mut self) {
        if !R::is_running() {
            return;
        }
        // Raft's own tasks hold on to each other, and to the disk, until they are told to end.
        let (raft, storage) = (self.raft.clone(), self.storage.clone());
        runtime::spawn::<R>(async move {
            drop(raft.shutdown().await);
            storage.stop().await;
        });
    }
}

impl Kvdb {
    /// Starts kvdb on a store that [`crate::format`] has made. Needs a running tokio runtime. The disk is kvdb's own: it
    /// moves to a thread that does nothing else.
    ///
    /// # Errors
    /// `Store`, when the store is not there, damaged, or can't be read; `Stopped`, when Raft can't start.
    pub fn start<D: Disk + Send + 'static>(
        config: KvdbConfig,
        disk: D,
        peers: Arc<dyn Peers>,
    ) -> impl Future<Output = Result<Kvdb, KvdbError>> + Send {
        let own = |owner: DiskOwner<Tokio>| owner.start_thread(disk);
        Kvdb::start_on_tokio(config, Box::new(own), peers)
    }

    /// Not generic, so that Raft on tokio is compiled here, and not in every crate that starts it.
    fn start_on_tokio(
        config: KvdbConfig,
        own: Own<Tokio>,
        peers: Arc<dyn Peers>,
    ) -> BoxFuture<Result<Kvdb, KvdbError>> {
        Box::pin(Kvdb::start_with(config, own, peers, Box::new(|_, _| {})))
    }
}

/// What begins the owner of a disk.
pub type Own<R> = Box<dyn FnOnce(DiskOwner<R>) -> io::Result<()> + Send>;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<R: Runtime> Kvdb<R> {
    /// Starts kvdb on any runtime: `own` sees to it that the disk's owner runs, on a thread or in a task. `observe` is told of all
    /// that is applied.
    ///
    /// # Errors
    /// As [`Kvdb::start`].
    pub async fn start_with(
        config: KvdbConfig,
        own: Own<R>,
        peers: Arc<dyn Peers>,
        observe: Observer,
    ) -> Result<Kvdb<R>, KvdbError> {
        let (storage, mut recovered) = Storage::start(config.folder.clone(), own).await?;
        let (publisher, published) = runtime::watch::<R, _>(Arc::new(Catalog::default()));
        let snapshot = recovered.snapshot.take();
        let machine = CatalogMachine::new(snapshot, storage.clone(), publisher, observe)?;
        let log = LogStore::new(recovered, storage.clone());
        let member = config.member();
        let raft_config =
            raft_config(&config).map_err(|error| KvdbError::Store(error.to_string()))?;
        let network = Network {
            peers: peers.clone(),
        };
        let started = Raft::new(member, Arc::new(raft_config), network, log.clone(), machine).await;
        let raft = started.map_err(|error| KvdbError::Stopped(error.to_string()))?;
        let shared = Arc::new(Shared {
            config,
            raft,
            peers,
            log,
            assembly: Mutex::new(None),
            storage,
            published,
            requests: AtomicU64::new(0),
        });
        // It ends with Raft.
        runtime::spawn::<R>(membership::converge(Arc::downgrade(&shared)));
        Ok(Kvdb { shared })
    }

    /// Whether this node belongs to a Raft group, of which it may be the first and only member.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn is_initialized(&self) -> Result<bool, KvdbError> {
        self.shared
            .raft
            .is_initialized()
            .await
            .map_err(|error| KvdbError::Stopped(error.to_string()))
    }

    /// Forms the cluster, with this node as its first voter; other nodes become members as they register. Exactly one node of
    /// a new cluster may do this. Repeating it on that node is fine.
    ///
    /// # Errors
    /// Those of [`Kvdb::propose`]; a cluster with another id is an answer.
    pub async fn form(
        &self,
        cluster_name: String,
        cluster_id: u64,
        domains: BTreeMap<DomainId, DomainRecord>,
        nodes: BTreeMap<NodeId, NodeRecord>,
        cause: Cause,
    ) -> Result<Answer, KvdbError> {
        if !self.is_initialized().await? {
            let members = BTreeMap::from([(self.member(), EmptyNode::new())]);
            let begun = self.shared.raft.initialize(members).await;
            begun.map_err(|error| KvdbError::Stopped(error.to_string()))?;
        }
        let domains = domains.into_iter().collect();
        let nodes = nodes.into_iter().collect();
        self.propose(
            Command::Form {
                cluster_name,
                cluster_id,
                domains,
                nodes,
            },
            cause,
        )
        .await
    }

    /// Commits a command, and returns how the catalog answered. Tries, also over other nodes, for [`KvdbConfig::within`];
    /// the command is applied at most once.
    ///
    /// # Errors
    /// `Unavailable`, when that was not long enough: the command may have been applied, or may be later.
    pub async fn propose(&self, command: Command, cause: Cause) -> Result<Answer, KvdbError> {
        let request = Request {
            id: self.next_request(),
            cause,
            command,
        };
        self.propose_request(request, self.shared.config.within)
            .await
    }

    /// A new request id, for [`Kvdb::propose_request`].
    pub fn next_request(&self) -> RequestId {
        let number = self.shared.requests.fetch_add(1, Ordering::Relaxed);
        RequestId {
            client: self.shared.config.client,
            number,
        }
    }

    /// The catalog as far as it is applied on this node: it may be old.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.published.borrow_watched().clone()
    }

    /// Shows each new state of the applied catalog; states that come fast may be skipped, the last one never is.
    pub fn watch(&self) -> CatalogWatch<R> {
        CatalogWatch(self.shared.published.clone())
    }

    /// How kvdb is, as this node sees it.
    pub fn metrics(&self) -> KvdbMetrics {
        KvdbMetrics::of(&self.shared.raft.metrics().borrow_and_update())
    }

    /// Returns once kvdb's state is so that `is_so`, or after `within`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn wait_until(
        &self,
        within: Duration,
        is_so: impl Fn(&KvdbMetrics) -> bool + Send + Sync,
    ) -> Result<KvdbMetrics, KvdbError> {
        let mut metrics = self.shared.raft.metrics();
        let waiting = async {
            loop {
                let seen = KvdbMetrics::of(&metrics.borrow_and_update());
                if is_so(&seen) {
                    return Ok(seen);
                }
                metrics
                    .changed()
                    .await
                    .map_err(|error| KvdbError::Stopped(error.to_string()))?;
            }
        };
        let late = |_| KvdbError::Unavailable {
            within,
            last: "waited for a state".to_owned(),
        };
        runtime::timeout::<R, _>(within, waiting)
            .await
            .map_err(late)?
    }

    /// Ends kvdb on this node; returns when its disk is given up.
    pub async fn stop(&self) {
        if let Err(error) = self.shared.raft.shutdown().await {
            tracing::warn!(%error, "Raft's task did not end well");
        }
        self.shared.storage.stop().await;
    }

    /// This node as a member of the Raft group.
    #[must_use]
    pub fn member(&self) -> MemberId {
        self.shared.member()
    }
}

impl<R: Runtime> Shared<R> {
    pub(crate) fn member(&self) -> MemberId {
        self.config.member()
    }

    pub(crate) fn published(&self) -> WatchReceiverOf<R, Arc<Catalog>> {
        self.published.clone()
    }
}

fn raft_config(config: &KvdbConfig) -> Result<Config, openraft::ConfigError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let raft = Config {
        cluster_name: "isthmus".to_owned(),
        heartbeat_interval: ms(config.heartbeat),
        election_timeout_min: ms(config.election_min),
        election_timeout_max: ms(config.election_max),
        install_snapshot_timeout: INSTALL_MS_MAX,
        max_payload_entries: ENTRIES_MAX,
        replication_lag_threshold: ENTRIES_BEHIND_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        enable_pre_vote: Some(true),
        // A leader sends entries on while its own disk still writes them, and a crash may lose them there. Leading on in the same
        // term it would give their places to others, which members that hold the first ones could not tell from these.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    raft.validate()
}

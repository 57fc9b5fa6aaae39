//! A member's process: kvdb as it ships, on a simulated runtime, and what it says to the world.

use super::shared_disk::SharedDisk;
use super::wires::MEMBERS;
use bytes::Bytes;
use isthmus_catalog::{
    Answer, BootId, Catalog, Cause, Command, DomainRecord, NodeRecord, Refusal, Request, RequestId,
};
use isthmus_engine::{DomainId, NodeId};
use isthmus_kvdb::peers::PeerAnswer;
use isthmus_kvdb::{
    Bypass, Detour, Kvdb, KvdbConfig, KvdbError, KvdbMetrics, Observer, Peers, Runtime,
};
use isthmus_simulated_runtime::{Executor, SimulatedRuntime};
use openraft::rt::{AsyncRuntime, Oneshot};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Between two tries to register, as in `isthmusd`.
const RETRY_PERIOD: Duration = Duration::from_millis(100);

/// The runtime of simulated members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Simulated;

impl Runtime for Simulated {
    type Async = SimulatedRuntime;

    fn is_running() -> bool {
        SimulatedRuntime::is_running()
    }
}

type OneshotChannel = <SimulatedRuntime as AsyncRuntime>::Oneshot;
pub(super) type CallAnswer = <OneshotChannel as Oneshot>::Sender<io::Result<Bytes>>;

/// What a process says to the world.
pub(super) enum Said {
    /// It asks a peer.
    Call {
        to: NodeId,
        service: Service,
        request: Bytes,
        within: Duration,
        answer: CallAnswer,
    },
    /// A peer's question is answered.
    Served { call: u64, answer: Bytes },
    /// kvdb could not start, or this start was refused.
    Broken(String),
    /// The cluster has noted this start.
    Registered,
    /// The catalog that is applied here has changed.
    News(Arc<Catalog>),
    /// A proposal has come to its end.
    Proposed {
        token: u64,
        id: RequestId,
        result: Result<Answer, KvdbError>,
    },
    /// A linearizable read has come to its end.
    Confirmed {
        token: u64,
        result: Option<Arc<Catalog>>,
    },
}

/// What a peer is asked for, as in `node/src/peers.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// kvdb's own messages.
    Kvdb,
    /// A catalog newer than this revision.
    NewerCatalog(u64),
    /// The catalog by a linearizable read.
    ConfirmedCatalog,
}

type Sayings = Arc<Mutex<Vec<Said>>>;

/// What the first node of a new cluster forms it of.
#[derive(Clone, Debug)]
pub struct Formation {
    /// The domains.
    pub domains: BTreeMap<DomainId, DomainRecord>,
    /// The nodes.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
}

/// Why, in simulations.
pub(super) fn cause() -> Cause {
    Cause {
        who: "simulation".to_owned(),
        why: String::new(),
        at_ms: 0,
    }
}

/// The way to the peers: it ends in the group's event heap.
struct Outlet {
    sayings: Sayings,
    reached: Reached,
}

/// To which members a process believes to have a session.
pub(super) type Reached = Arc<Mutex<[bool; MEMBERS]>>;

impl Outlet {
    fn ask(
        &self,
        to: NodeId,
        service: Service,
        request: Bytes,
        within: Duration,
    ) -> PeerAnswer<'_> {
        Box::pin(async move {
            let (answer, answered) = OneshotChannel::channel();
            self.sayings.lock().push(Said::Call {
                to,
                service,
                request,
                within,
                answer,
            });
            match SimulatedRuntime::timeout(within, answered).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(io::ErrorKind::ConnectionReset.into()),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

impl Peers for Outlet {
    fn call(&self, to: NodeId, request: Bytes, within: Duration) -> PeerAnswer<'_> {
        self.ask(to, Service::Kvdb, request, within)
    }
}

impl Bypass for Outlet {
    fn reaches(&self, peer: NodeId) -> bool {
        self.reached.lock()[peer.0 as usize - 1]
    }

    fn newer_catalog(&self, peer: NodeId, revision: u64, within: Duration) -> PeerAnswer<'_> {
        self.ask(peer, Service::NewerCatalog(revision), Bytes::new(), within)
    }

    fn confirmed_catalog(&self, peer: NodeId, within: Duration) -> PeerAnswer<'_> {
        self.ask(peer, Service::ConfirmedCatalog, Bytes::new(), within)
    }
}

/// What there is once kvdb is up.
#[derive(Clone)]
struct Up {
    kvdb: Kvdb<Simulated>,
    detour: Detour<Simulated>,
}

/// A process.
pub(super) struct Process {
    executor: Executor,
    up: Arc<Mutex<Option<Up>>>,
    sayings: Sayings,
    reached: Reached,
}

impl Process {
    /// Starts on a formatted disk, at `now` of its own clock; then forms the cluster, where it is to, and registers.
    pub fn start(
        seed: u64,
        now: u64,
        config: KvdbConfig,
        (starts, boot): (u64, BootId),
        disk: SharedDisk,
        observe: Observer,
        formation: Option<Formation>,
    ) -> Process {
        let executor = Executor::new(seed, now);
        let process = Process {
            executor,
            up: Arc::default(),
            sayings: Arc::default(),
            reached: Arc::default(),
        };
        let (up, sayings) = (Arc::clone(&process.up), Arc::clone(&process.sayings));
        let outlet = Arc::new(Outlet {
            sayings: Arc::clone(&process.sayings),
            reached: Arc::clone(&process.reached),
        });
        let me = config.node;
        let peers = config.nodes.iter().copied().filter(move |node| *node != me);
        let peers = peers.collect();
        let started = Command::NodeStartedIn {
            node: config.node,
            incarnation: config.incarnation,
            starts,
            boot,
        };
        process.executor.spawn(async move {
            let own = |owner: isthmus_kvdb::DiskOwner<Simulated>| {
                drop(SimulatedRuntime::spawn(owner.run(disk)));
                Ok(())
            };
            match Kvdb::start_with(config, Box::new(own), outlet.clone(), observe).await {
                Err(error) => sayings.lock().push(Said::Broken(error.to_string())),
                Ok(kvdb) => {
                    let detour = Detour::new(kvdb.clone(), outlet, peers);
                    *up.lock() = Some(Up {
                        kvdb: kvdb.clone(),
                        detour: detour.clone(),
                    });
                    let (news, by_detour) = (Arc::clone(&sayings), Arc::clone(&sayings));
                    drop(SimulatedRuntime::spawn(tell_news(kvdb.clone(), news)));
                    // Whoever hears it knows what is for which start.
                    let tell = move |catalog| by_detour.lock().push(Said::News(catalog));
                    drop(SimulatedRuntime::spawn(detour.follow(|_| true, tell)));
                    join(kvdb, started, formation, sayings).await;
                }
            }
        });
        process
    }

    /// It is `now` by the process's clock. Returns what it says.
    pub fn run(&self, now: u64) -> Vec<Said> {
        self.executor.run(now);
        std::mem::take(&mut self.sayings.lock())
    }

    pub fn next_timer(&self) -> Option<u64> {
        self.executor.next_timer()
    }

    pub fn is_ready(&self) -> bool {
        self.executor.is_ready()
    }

    /// A peer asks.
    pub fn serve(&self, call: u64, from: NodeId, service: Service, request: Bytes) {
        let Some(Up { kvdb, .. }) = self.up.lock().clone() else {
            // Not up yet: the transport is opened after kvdb.
            return;
        };
        let sayings = Arc::clone(&self.sayings);
        self.executor.spawn(async move {
            let answer = match service {
                Service::Kvdb => kvdb.serve(from, request).await,
                Service::NewerCatalog(revision) => kvdb.newer_catalog(revision),
                Service::ConfirmedCatalog => kvdb.confirmed_catalog().await,
            };
            sayings.lock().push(Said::Served { call, answer });
        });
    }

    /// Asks kvdb for something, as the node's other parts do.
    pub fn propose(&self, token: u64, command: Command, within: Duration) -> bool {
        let Some(Up { kvdb, .. }) = self.up.lock().clone() else {
            return false;
        };
        let sayings = Arc::clone(&self.sayings);
        self.executor.spawn(async move {
            let id = kvdb.next_request();
            let request = Request {
                id,
                cause: cause(),
                command,
            };
            let result = kvdb.propose_request(request, within).await;
            sayings.lock().push(Said::Proposed { token, id, result });
        });
        true
    }

    /// Asks for a linearizable read, as a host does.
    pub fn confirm(&self, token: u64, within: Duration) -> bool {
        let Some(Up { detour, .. }) = self.up.lock().clone() else {
            return false;
        };
        let sayings = Arc::clone(&self.sayings);
        self.executor.spawn(async move {
            let result = detour.confirm(within).await;
            sayings.lock().push(Said::Confirmed { token, result });
        });
        true
    }

    /// How its kvdb is, if it is up.
    pub fn metrics(&self) -> Option<KvdbMetrics> {
        let up = self.up.lock().clone()?;
        Some(self.executor.enter(|| up.kvdb.metrics()))
    }

    /// What is applied there, if it is up.
    pub fn catalog(&self) -> Option<Arc<Catalog>> {
        let up = self.up.lock().clone()?;
        Some(up.kvdb.catalog())
    }

    /// A session is up, or down.
    pub fn set_reached(&self, member: usize, is_reached: bool) {
        self.reached.lock()[member] = is_reached;
    }
}

async fn tell_news(kvdb: Kvdb<Simulated>, sayings: Sayings) {
    let mut catalogs = kvdb.watch();
    drop(kvdb);
    loop {
        let newest = catalogs.newest();
        sayings.lock().push(Said::News(newest));
        if catalogs.changed().await.is_err() {
            return;
        }
    }
}

/// As `node/src/membership.rs` does.
async fn join(
    kvdb: Kvdb<Simulated>,
    started: Command,
    formation: Option<Formation>,
    sayings: Sayings,
) {
    if let Some(Formation { domains, nodes }) = formation {
        loop {
            let (domains, nodes) = (domains.clone(), nodes.clone());
            let formed = kvdb
                .form("simulated".to_owned(), 7, domains, nodes, cause())
                .await;
            if formed.is_ok() {
                break;
            }
            SimulatedRuntime::sleep(RETRY_PERIOD).await;
        }
    }
    loop {
        match kvdb.propose(started.clone(), cause()).await {
            Ok(Answer::Refused(Refusal::NotFormed)) | Err(KvdbError::Unavailable { .. }) => {}
            Ok(Answer::Refused(refusal)) => {
                let broken = format!("{started:?} is refused: {refusal}");
                sayings.lock().push(Said::Broken(broken));
                return;
            }
            Ok(_) => {
                sayings.lock().push(Said::Registered);
                return;
            }
            Err(error) => {
                sayings.lock().push(Said::Broken(error.to_string()));
                return;
            }
        }
        SimulatedRuntime::sleep(RETRY_PERIOD).await;
    }
}

//! The data path of a data node: the host's loop, its way to kvdb and to peers, and the NBD exports.
//!
//! Modules in reading order: `inputs` (everything that reaches the host), `host_loop` (its loop), `outputs` (what it
//! wants done outside), `questions` (kvdb), `detour` (kvdb by a peer), `exports` (NBD), `report` (what it says about itself).

pub mod detour;
pub mod exports;
mod host_loop;
pub mod inputs;
mod outputs;
pub mod questions;
mod report;

use crate::clock;
use crate::forwarding::Taker;
use crate::peers::Outlet;
use crate::serve::{BoxFuture, DataPath, DataPathState, FiguresPage};
use crate::store::Store;
use anyhow::Context;
use bytes::Bytes;
use exports::NodeExports;
use host_loop::HostLoop;
use inputs::{Input, Inputs};
use isthmus_config::Config;
use isthmus_disk::FileDisk;
use isthmus_engine::{NodeId, Settings, VolumeId};
use isthmus_host::{Host, Identity, ScrubPace};
use isthmus_journal::Shape;
use isthmus_kvdb::{Detour, Kvdb};
use isthmus_nbd::{Address, Limits, Server};
use isthmus_transport::{Lane, SessionId, Tunnel};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Clients of a node at a time: a few for each of a thousand volumes.
pub const CLIENTS_MAX: usize = 4096;
/// How long the volumes get to be released when the node stops.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// The data path of a node that holds replicas.
pub struct Replicas {
    inputs: Inputs,
    /// Takes clients that other nodes forward; none where there is no NBD server.
    taker: Option<Taker>,
    server: Mutex<Option<Server>>,
    living: Mutex<Option<JoinHandle<()>>>,
}

/// The data directory, opened, before anything in it is read.
pub struct OpenDirectory {
    disk: FileDisk,
    /// Becomes readable as the disk completes what it does without threads.
    completions: Option<OwnedFd>,
    inputs: Inputs,
    receiver: UnboundedReceiver<Input>,
}

impl OpenDirectory {
    /// Opens the data directory. To be done before anybody else writes there: opening sweeps away what a crash left half-made.
    ///
    /// # Errors
    /// One line for the operator.
    pub fn open(config: &Config) -> anyhow::Result<OpenDirectory> {
        let (inputs, receiver) = inputs::channel();
        let waker = inputs.clone();
        let mut disk = FileDisk::open(&config.data_dir, Arc::new(move || waker.send(Input::Disk)))
            .with_context(|| format!("can't use {}", config.data_dir.display()))?;
        disk.keep_writes_back();
        let completions = disk.do_without_threads();
        if let Err(error) = &completions {
            tracing::info!(%error, "no io_uring here: durable writes go by threads, which takes more time and CPU");
        }
        Ok(OpenDirectory {
            disk,
            completions: completions.ok(),
            inputs,
            receiver,
        })
    }
}

impl Replicas {
    /// Opens the replicas in the data directory (which recovers them), and starts to offer them over NBD. What moves bytes runs on `data`.
    ///
    /// # Errors
    /// One line for the operator.
    pub async fn start(
        config: &Config,
        directory: OpenDirectory,
        store: &Store,
        kvdb: &Kvdb,
        outlet: &Outlet,
        data: &Handle,
    ) -> anyhow::Result<Replicas> {
        let OpenDirectory {
            disk,
            completions,
            inputs,
            receiver,
        } = directory;
        let identity = Identity {
            node: store.node,
            incarnation: store.incarnation,
        };
        let settings = Settings {
            lease: config.timing.lease(),
            replica_timeout: Duration::from_millis(config.timing.replica_timeout_ms),
        };
        let shape = Shape {
            segment_bytes: u64::from(config.journal.segment_mib) << 20,
            segments: config.journal.segments,
        };
        let scrub = ScrubPace {
            bytes_per_second: u64::from(config.scrub.mib_per_second) << 20,
            pause: Duration::from_secs(u64::from(config.scrub.every_hours) * 3600),
        };
        let mut host = tokio::task::spawn_blocking(move || {
            Host::open(disk, identity, settings, shape, clock::now())
        })
        .await?
        .with_context(|| format!("can't open the replicas in {}", config.data_dir.display()))?;
        host.set_scrub(scrub);
        let peers = config
            .members
            .iter()
            .map(|member| NodeId(member.id))
            .filter(|peer| *peer != store.node);
        let bypass = Arc::new(outlet.clone());
        let detour = Detour::new(kvdb.clone(), bypass, peers.collect());
        let host_loop = HostLoop::new(
            host,
            receiver,
            inputs.clone(),
            outlet.clone(),
            kvdb.clone(),
            detour.clone(),
            Handle::current(),
        );
        let living = data.spawn(host_loop.live(completions));
        questions::follow_catalog(kvdb.clone(), store.clone(), inputs.clone());
        detour::follow(detour, store.clone(), inputs.clone());
        let server = match config.listen.nbd {
            None => None,
            Some(address) => {
                let exports = Arc::new(NodeExports::new(kvdb.clone(), store.node, inputs.clone()));
                let limits = Limits {
                    connections: CLIENTS_MAX,
                    ..Limits::default()
                };
                let server =
                    data.spawn(async move {
                        Server::start(&[Address::Tcp(address)], exports, limits).await
                    })
                    .await?;
                Some(server.with_context(|| format!("can't listen for NBD clients on {address}: is another program using the port?"))?)
            }
        };
        let taker = server
            .as_ref()
            .map(|server| Taker::new(kvdb.clone(), inputs.clone(), server.adopter()));
        Ok(Replicas {
            inputs,
            taker,
            server: Mutex::new(server),
            living: Mutex::new(Some(living)),
        })
    }
}

impl DataPath for Replicas {
    fn session_up(&self, peer: NodeId, session: SessionId) {
        self.inputs.send(Input::SessionUp { peer, session });
    }

    fn session_down(&self, peer: NodeId, session: SessionId) {
        self.inputs.send(Input::SessionDown { peer, session });
    }

    fn frame(&self, peer: NodeId, session: SessionId, lane: Lane, frame: Bytes) {
        self.inputs.send(Input::Frame {
            peer,
            session,
            lane,
            frame,
        });
    }

    fn tunnel(&self, peer: NodeId, tunnel: Tunnel) {
        if let Some(taker) = &self.taker {
            taker.take(peer, tunnel);
        }
    }

    fn slow_peers(&self, slow: BTreeSet<NodeId>) {
        self.inputs.send(Input::SlowPeers(slow));
    }

    fn state(&self) -> BoxFuture<'_, DataPathState> {
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Report(answer));
        Box::pin(async move { answered.await.unwrap_or_default() })
    }

    fn figures(&self, after: Option<VolumeId>, count: usize) -> BoxFuture<'_, FiguresPage> {
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Figures {
            after,
            count,
            answer,
        });
        Box::pin(async move { answered.await.unwrap_or_default() })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let server = self.server.lock().take();
            if let Some(server) = server {
                server.stop().await;
            }
            let (stopped, end) = oneshot::channel();
            self.inputs.send(Input::Stop {
                within: STOP_WITHIN,
                stopped,
            });
            // An error means that the loop has ended already.
            let _ = end.await;
            let living = self.living.lock().take();
            if let Some(living) = living
                && let Err(error) = living.await
            {
                tracing::error!(%error, "the host's loop ended badly");
            }
        })
    }
}

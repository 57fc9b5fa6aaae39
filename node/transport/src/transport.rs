//! [`Transport`]: start, send, call, stop.

use crate::accept;
use crate::certificates::CertificateFiles;
use crate::dial::{self, dial_forever};
use crate::handler::{CallError, Handler, Lane, PeerStats, SendError, SessionId};
use crate::listening::Ports;
use crate::peer::Peer;
use crate::refusals::Refusals;
use crate::session::CODE_DONE;
use crate::tunnel::Tunnel;
use bytes::Bytes;
use isthmus_engine::NodeId;
use parking_lot::Mutex;
use quinn::VarInt;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// At a stop, how long to wait for the peers to have heard of it.
const FAREWELL: Duration = Duration::from_millis(300);

/// Tunnels that are dialed at once: after a failover all of a node's clients come at the same time, and a peer takes so many handshakes only.
const TUNNELS_DIALED_MAX: usize = 16;

/// What carries mirrored writes and resync. Control is always QUIC. Decision 17 has the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// TLS over TCP, a connection for each of the two: the least work for a write.
    Tls,
    /// QUIC, a stream for each volume: a lost packet holds up its own volume only.
    Quic,
}

/// What a transport is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; its certificate must say the same.
    pub me: NodeId,
    /// The cluster's number, which is part of every node's certificate.
    pub cluster: u64,
    /// The random id of each generation of the cluster that was forced, the present one last; none in the first. At most
    /// [`crate::LINEAGE_MAX`].
    pub lineage: Vec<u64>,
    /// The address to listen on (UDP and TCP), and from which peers are dialed.
    pub listen: SocketAddr,
    /// What carries mirrored writes and resync of the sessions that this node dials; what is dialed takes either.
    pub bulk: Bulk,
    /// The other nodes, each with its `host:port`. Names are resolved at each try.
    pub peers: Vec<(NodeId, String)>,
    /// This node's certificate and what it trusts.
    pub certificates: CertificateFiles,
    /// A peer that was silent for so long is gone.
    pub idle_timeout: Duration,
    /// How often a connection without traffic is kept alive.
    pub keep_alive: Duration,
    /// Bytes that wait for one peer, at most; each frame counts for some 70 more than it has.
    pub queue_bytes_max: usize,
}

impl Config {
    /// A configuration without peers, with bulk over TLS, an idle time-out of 2 s, a keep-alive of 300 ms, and 64 MiB for each queue.
    #[must_use]
    pub fn new(
        me: NodeId,
        cluster: u64,
        listen: SocketAddr,
        certificates: CertificateFiles,
    ) -> Config {
        Config {
            me,
            cluster,
            lineage: Vec::new(),
            listen,
            bulk: Bulk::Tls,
            peers: Vec::new(),
            certificates,
            idle_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_millis(300),
            queue_bytes_max: 64 << 20,
        }
    }
}

/// What the tasks of a transport have in common.
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    pub(crate) cluster: u64,
    pub(crate) lineage: Vec<u64>,
    pub(crate) ports: Ports,
    pub(crate) bulk: Bulk,
    /// A TCP peer that leaves bytes unacknowledged for so long is gone.
    pub(crate) idle_timeout: Duration,
    pub(crate) peers: BTreeMap<NodeId, Arc<Peer>>,
    /// Random; names this process to its peers.
    pub(crate) process: u64,
    pub(crate) queue_bytes_max: usize,
    pub(crate) refusals: Refusals,
    pub(crate) runtime: Handle,
    /// Turns of those who dial a tunnel.
    pub(crate) tunnels_dialed: Semaphore,
    sessions: AtomicU64,
    jitter: AtomicU64,
}

impl Shared {
    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The pause, shortened by up to half: nodes that lost each other at once should not all come back at once.
    pub(crate) fn shortened(&self, pause: Duration) -> Duration {
        let step = self
            .jitter
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let part = (step ^ (step >> 31)) % 1024;
        pause.mul_f64(1.0 - part as f64 / 2048.0)
    }
}

/// Sessions with the other nodes, until dropped.
pub struct Transport {
    shared: Arc<Shared>,
    stop: Mutex<Option<Stop>>,
}

/// How to end it, and to know that it has ended.
struct Stop {
    stop: oneshot::Sender<()>,
    stopped: mpsc::Receiver<()>,
    /// The thread that was made for it, if there was one.
    thread: Option<JoinHandle<()>>,
}

impl Transport {
    /// Listens, and starts to look for the peers, on a thread of its own.
    ///
    /// # Errors
    /// Those of [`Transport::start_on`], or that no thread could be started.
    pub fn start(config: Config, handler: Arc<dyn Handler>) -> io::Result<Transport> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new()
            .name("transport".to_owned())
            .spawn(move || {
                // The sender lives in the transport's task: it ends with it.
                let _ = runtime.block_on(ended);
            })?;
        let transport = Transport::start_with(config, handler, &handle, end)?;
        if let Some(stop) = &mut *transport.stop.lock() {
            stop.thread = Some(thread);
        }
        Ok(transport)
    }

    /// Listens, and starts to look for the peers, as tasks of `runtime`, on whose threads the handler is called.
    ///
    /// # Errors
    /// With a sentence that names the file or address: a certificate that can't be loaded or is another node's, an
    /// address that can't be listened on; `InvalidInput` for a peer that is this node or is named twice.
    pub fn start_on(
        config: Config,
        handler: Arc<dyn Handler>,
        runtime: &Handle,
    ) -> io::Result<Transport> {
        Transport::start_with(config, handler, runtime, ())
    }

    /// As [`Transport::start_on`]; `until_end` is dropped when all is over.
    fn start_with(
        config: Config,
        handler: Arc<dyn Handler>,
        runtime: &Handle,
        until_end: impl Send + 'static,
    ) -> io::Result<Transport> {
        let shared = {
            let _inside = runtime.enter();
            Arc::new(share(&config, &handler)?)
        };
        let (stop, stopping) = oneshot::channel();
        let (end, stopped) = mpsc::sync_channel(1);
        let served = Arc::clone(&shared);
        runtime.spawn(async move {
            serve(served, stopping).await;
            // Fails when nobody waits.
            let _ = end.try_send(());
            drop(until_end);
        });
        let stop = Stop {
            stop,
            stopped,
            thread: None,
        };
        Ok(Transport {
            shared,
            stop: Mutex::new(Some(stop)),
        })
    }

    /// The address that is listened on, with the port that the kernel chose when none was named.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.shared.ports.endpoint.local_addr()
    }

    /// Queues a frame, given in parts that are put one behind the other, on a lane of a session. Never blocks; from any thread.
    ///
    /// # Errors
    /// See [`SendError`]; nothing of the frame was taken then.
    pub fn send(
        &self,
        peer: NodeId,
        session: SessionId,
        lane: Lane,
        parts: Vec<Bytes>,
    ) -> Result<(), SendError> {
        let present = self.shared.peers.get(&peer).and_then(|peer| peer.session());
        match present {
            Some(present) if present.id == session => present.send(lane, parts),
            _ => Err(SendError::SessionOver),
        }
    }

    /// Asks a peer and waits for its answer. Must be awaited on a tokio runtime (any one that has time enabled). Calls
    /// beyond 64 at once to one peer wait for their turn, within `limit`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        peer: NodeId,
        service: u8,
        request: Bytes,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let session = self.shared.peers.get(&peer).and_then(|peer| peer.session());
        let session = session.ok_or(CallError::NotConnected)?;
        match timeout(limit, session.call(service, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::TimedOut),
        }
    }

    /// Opens a tunnel to a peer with which there is a session: a stream of bytes, at whose other end [`Handler::tunnel`] is called. Must be
    /// awaited, and used, on a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// When there is no session, or the peer can't be reached over TCP within 1.5 s.
    pub async fn tunnel(&self, peer: NodeId) -> io::Result<Tunnel> {
        let known = self.shared.peers.get(&peer);
        let known = known.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotConnected, format!("{peer} is no peer"))
        })?;
        dial::tunnel(&self.shared, known).await
    }

    /// The present session with a peer.
    #[must_use]
    pub fn connected(&self, peer: NodeId) -> Option<SessionId> {
        self.stats(peer)?.session
    }

    /// The round trip to a peer as QUIC estimates it, while there is a session.
    #[must_use]
    pub fn round_trip(&self, peer: NodeId) -> Option<Duration> {
        self.stats(peer)?.round_trip
    }

    /// What is known of the way to a peer; nothing for a node that is none.
    #[must_use]
    pub fn stats(&self, peer: NodeId) -> Option<PeerStats> {
        self.shared.peers.get(&peer).map(|peer| peer.stats())
    }

    /// How many connections, streams and greetings were refused since the start.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.shared.refusals.count()
    }

    /// Ends all sessions at once, tells the peers, and waits (under half a second) until no callback can come any more.
    /// A second call does nothing. Must not be called from a callback, nor on a thread of the transport's runtime.
    pub fn stop(&self) {
        let Some(stop) = self.stop.lock().take() else {
            return;
        };
        // Fails when the transport's task has ended already.
        let _ = stop.stop.send(());
        // An error means the same, or that its runtime is gone.
        let _ = stop.stopped.recv();
        if let Some(thread) = stop.thread {
            // A panic of that thread has been reported on its own.
            let _ = thread.join();
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.stop();
    }
}

fn share(config: &Config, handler: &Arc<dyn Handler>) -> io::Result<Shared> {
    let mut peers = BTreeMap::new();
    for (node, address) in &config.peers {
        let peer = Arc::new(Peer::new(*node, address.clone(), Arc::clone(handler)));
        if *node == config.me || peers.insert(*node, peer).is_some() {
            let why = format!(
                "{node} can't be a peer of {}: it is this node, or named twice",
                config.me
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    }
    let mut random = [0; 8];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let process = u64::from_le_bytes(random);
    let ports = Ports::open(config)?;
    Ok(Shared {
        me: config.me,
        cluster: config.cluster,
        lineage: config.lineage.clone(),
        ports,
        bulk: config.bulk,
        idle_timeout: config.idle_timeout,
        peers,
        process,
        queue_bytes_max: config.queue_bytes_max,
        refusals: Refusals::new(),
        runtime: Handle::current(),
        tunnels_dialed: Semaphore::new(TUNNELS_DIALED_MAX),
        sessions: AtomicU64::new(0),
        jitter: AtomicU64::new(process),
    })
}

/// Accepts and dials until told to stop; then ends all sessions.
async fn serve(shared: Arc<Shared>, stopping: oneshot::Receiver<()>) {
    let mut tasks = JoinSet::new();
    tasks.spawn(accept::quic(Arc::clone(&shared)));
    tasks.spawn(accept::tls(Arc::clone(&shared)));
    for peer in shared.peers.values() {
        if shared.me < peer.node {
            tasks.spawn(dial_forever(Arc::clone(&shared), Arc::clone(peer)));
        }
    }
    // An error means that the transport was dropped, which is a stop, too.
    let _ = stopping.await;
    tasks.shutdown().await;
    for peer in shared.peers.values() {
        if let Some(session) = peer.session() {
            session.close("the node stops");
            peer.retire(&session);
        }
    }
    let endpoint = &shared.ports.endpoint;
    endpoint.close(VarInt::from(CODE_DONE), b"the node stops");
    // When it runs out, the peers notice by their idle time-out.
    let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
}

#[cfg(test)]
mod tests;

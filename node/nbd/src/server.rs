//! The server: listens, bounds how many clients there are, and stops.

use crate::connection::{self, Connection};
use crate::export::{Agreement, BoxFuture, Export, Exports, Stream};
use rustix::net::sockopt;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// After an accept failed (for want of file descriptors, say) the next is not tried at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// What a connection may take to end besides [`Limits::drain`] before it is cut off.
const STOP_MARGIN: Duration = Duration::from_secs(2);

/// A dead client is found by TCP itself, since an idle one may be silent for ever: after this silence the kernel probes,
/// this often, so many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket's path. A socket file that nobody listens on any more is replaced.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(out, "{address}"),
            Address::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// What clients may take of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients at a time; more are turned away.
    pub connections: usize,
    /// Requests of one connection at a time; at least 1. At the limit, no more are read.
    pub requests_in_flight: usize,
    /// Payload bytes of one connection's requests and replies at a time; a single larger one is let through.
    pub payload_bytes_in_flight: usize,
    /// How long a client may take for each step of the handshake.
    pub handshake: Duration,
    /// How long a connection that ends waits for replies still missing.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 256,
            requests_in_flight: 256,
            payload_bytes_in_flight: 64 << 20,
            handshake: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}

/// A running server. Dropped, it ends all its connections as [`Server::stop`] does, without waiting for them.
pub struct Server {
    adopter: Adopter,
    addresses: Vec<Address>,
    connections: Arc<AtomicUsize>,
    stops: watch::Sender<bool>,
    listening: Vec<JoinHandle<()>>,
}

/// A client whose handshake another server has made, and what they agreed on.
pub struct Adopted<S> {
    /// What carries its requests and the replies.
    pub stream: S,
    /// What it has opened here.
    pub export: Arc<dyn Export>,
    /// What is agreed besides.
    pub agreement: Agreement,
}

/// The way into a server for clients that another server hands on. Clones are the same one.
#[derive(Clone)]
pub struct Adopter {
    shared: Shared,
    adopted: UnboundedSender<BoxFuture<'static, ()>>,
}

impl Adopter {
    /// Takes a client that comes from `peer`, as one that came by itself: it counts as a connection from now on, and is ended with the others.
    /// `open` gives the client once its export is open, or nothing; it is dropped when the connection is closed meanwhile. Where there are too
    /// many connections already, or the server has stopped, it is dropped at once.
    pub fn adopt<S, F>(&self, peer: String, open: impl FnOnce(Connection) -> F)
    where
        S: Stream + 'static,
        F: Future<Output = Option<Adopted<S>>> + Send + 'static,
    {
        let shared = &self.shared;
        let Some(counted) = shared.count() else {
            return;
        };
        let connection = shared.connection(peer);
        let opening = open(connection.clone());
        let limits = shared.limits;
        let served = Box::pin(async move {
            connection::adopt(opening, limits, connection).await;
            drop(counted);
        });
        // Fails when the server has stopped: then the client is dropped.
        let _ = self.adopted.send(served);
    }
}

/// What the tasks that accept connections share.
#[derive(Clone)]
struct Shared {
    exports: Arc<dyn Exports>,
    limits: Limits,
    connections: Arc<AtomicUsize>,
    numbers: Arc<AtomicU64>,
    stops: watch::Receiver<bool>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

enum Socket {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Server {
    /// Serves one client over any stream of bytes, from the greeting to the end. Must be called inside a tokio runtime.
    pub async fn serve_stream<R, W>(read: R, write: W, exports: Arc<dyn Exports>, limits: Limits)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (_server, stops) = watch::channel(false);
        let connection = Connection::new(0, "a stream".to_owned(), stops);
        connection::serve(read, write, exports, limits, connection).await;
    }

    /// Listens at all the addresses and serves until stopped. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When an address can't be listened at: then nothing is served at the others, either.
    pub async fn start(
        addresses: &[Address],
        exports: Arc<dyn Exports>,
        limits: Limits,
    ) -> io::Result<Server> {
        assert!(
            limits.requests_in_flight > 0,
            "a connection needs a request in flight"
        );
        let backlog = u32::try_from(limits.connections).unwrap_or(u32::MAX);
        let mut listeners = Vec::new();
        for address in addresses {
            listeners.push(listen(address, backlog).await?);
        }
        let bound = listeners
            .iter()
            .map(Listener::address)
            .collect::<io::Result<Vec<Address>>>()?;
        let (stops, stopped) = watch::channel(false);
        let connections = Arc::new(AtomicUsize::new(0));
        let shared = Shared {
            exports,
            limits,
            connections: connections.clone(),
            numbers: Arc::default(),
            stops: stopped,
        };
        let mut listening: Vec<JoinHandle<()>> = listeners
            .into_iter()
            .map(|listener| tokio::spawn(accept_all(listener, shared.clone())))
            .collect();
        let (adopted, adopting) = mpsc::unbounded_channel();
        listening.push(tokio::spawn(adopt_all(adopting, shared.clone())));
        Ok(Server {
            adopter: Adopter { shared, adopted },
            addresses: bound,
            connections,
            stops,
            listening,
        })
    }

    /// Where it listens, in the order given to [`Server::start`], with the ports taken.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The way in for clients that another server hands on.
    #[must_use]
    pub fn adopter(&self) -> Adopter {
        self.adopter.clone()
    }

    /// How many clients are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Stops listening at once, ends every connection after the replies to what it has in flight, and returns when all
    /// are over: within [`Limits::drain`] and 2 s.
    pub async fn stop(mut self) {
        self.stops.send_replace(true);
        for listening in std::mem::take(&mut self.listening) {
            if let Err(error) = listening.await {
                tracing::error!(%error, "an NBD listener's task failed");
            }
        }
    }
}

impl Listener {
    fn address(&self) -> io::Result<Address> {
        match self {
            Listener::Tcp(listener) => Ok(Address::Tcp(listener.local_addr()?)),
            Listener::Unix(_, path) => Ok(Address::Unix(path.clone())),
        }
    }

    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Listener::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, peer)| Socket::Tcp(stream, peer)),
            Listener::Unix(listener, _) => listener
                .accept()
                .await
                .map(|(stream, _)| Socket::Unix(stream)),
        }
    }
}

/// `backlog` clients may be on their way in: after a failover all come at once, and whom the kernel has no place for waits for a greeting
/// that never comes.
async fn listen(address: &Address, backlog: u32) -> io::Result<Listener> {
    match address {
        Address::Tcp(address) => {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // Or a restarted server would have to wait for connections of the one before to be forgotten.
            socket.set_reuseaddr(true)?;
            socket.bind(*address)?;
            Ok(Listener::Tcp(socket.listen(backlog)?))
        }
        Address::Unix(path) => {
            let bound = UnixListener::bind(path);
            let listener = match bound {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && abandoned(path).await => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                bound => bound?,
            };
            Ok(Listener::Unix(listener, path.clone()))
        }
    }
}

/// Whether a socket's file is all that is left of its listener.
async fn abandoned(path: &Path) -> bool {
    matches!(UnixStream::connect(path).await, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

async fn accept_all(listener: Listener, shared: Shared) {
    let mut clients = JoinSet::new();
    let mut stops = shared.stops.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stops.wait_for(|stops| *stops) => break,
            // Reaps ended connections as they end.
            Some(ended) = clients.join_next() => {
                report(ended);
                continue;
            }
        };
        match accepted {
            Ok(socket) => admit(socket, &shared, &mut clients),
            Err(error) => {
                tracing::warn!(%error, "NBD connection not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    let socket_file = match &listener {
        Listener::Tcp(_) => None,
        Listener::Unix(_, path) => Some(path.clone()),
    };
    drop(listener);
    if let Some(Err(error)) = socket_file.map(std::fs::remove_file) {
        tracing::warn!(%error, "NBD socket file not removed");
    }
    until_over(&shared, clients).await;
}

/// Serves the clients that another server hands on.
async fn adopt_all(mut adopted: UnboundedReceiver<BoxFuture<'static, ()>>, shared: Shared) {
    let mut clients = JoinSet::new();
    let mut stops = shared.stops.clone();
    loop {
        tokio::select! {
            Some(client) = adopted.recv() => {
                clients.spawn(client);
            }
            _ = stops.wait_for(|stops| *stops) => break,
            // Reaps ended connections as they end.
            Some(ended) = clients.join_next() => report(ended),
        }
    }
    drop(adopted);
    until_over(&shared, clients).await;
}

/// Waits for clients that were told to end, and cuts off who takes too long.
async fn until_over(shared: &Shared, mut clients: JoinSet<()>) {
    let all_over = async {
        while let Some(ended) = clients.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(shared.limits.drain + STOP_MARGIN, all_over)
        .await
        .is_err()
    {
        tracing::warn!(connections = clients.len(), "NBD connections cut off");
        clients.shutdown().await;
    }
}

/// Counts a client as long as it is connected.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// One more, unless there are `max`.
    fn new(connections: &Arc<AtomicUsize>, max: usize) -> Option<Counted> {
        let more = |count: usize| (count < max).then_some(count + 1);
        let counted = connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.is_ok().then(|| Counted(connections.clone()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Counts one more connection, if there is room.
    fn count(&self) -> Option<Counted> {
        let counted = Counted::new(&self.connections, self.limits.connections);
        if counted.is_none() {
            tracing::warn!(
                connections = self.limits.connections,
                "NBD client turned away: too many connections"
            );
        }
        counted
    }

    fn connection(&self, peer: String) -> Connection {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        Connection::new(number, peer, self.stops.clone())
    }
}

fn admit(socket: Socket, shared: &Shared, clients: &mut JoinSet<()>) {
    let Some(counted) = shared.count() else {
        return;
    };
    let (exports, limits) = (shared.exports.clone(), shared.limits);
    match socket {
        Socket::Tcp(stream, peer) => {
            if let Err(error) = prepare(&stream) {
                tracing::debug!(%error, %peer, "NBD socket options not set");
            }
            let connection = shared.connection(peer.to_string());
            let (read, write) = stream.into_split();
            clients.spawn(async move {
                connection::serve(read, write, exports, limits, connection).await;
                drop(counted);
            });
        }
        Socket::Unix(stream) => {
            let connection = shared.connection("unix".to_owned());
            let (read, write) = stream.into_split();
            clients.spawn(async move {
                connection::serve(read, write, exports, limits, connection).await;
                drop(counted);
            });
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "an NBD connection's task failed");
    }
}

//! Being dialed: handshakes, bounded in number and time; who is it; to which session does the connection belong.

use crate::generation::{self, LINEAGE_PROTOCOL};
use crate::peer::{Greeted, Link, Peer};
use crate::quic::peer_certificates;
use crate::session::{CODE_VIOLATION, Session};
use crate::tls::TlsSocket;
use crate::transport::Shared;
use crate::trust::is_node;
use crate::tunnel::Tunnel;
use crate::wire::{Class, Greeting, HELLO_BYTES, Hello, Violation, encode_welcome};
use bytes::Buf;
use quinn::{Connection, Incoming, VarInt};
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Handshakes and greetings under way at once; more are not answered, and their senders try again.
const HANDSHAKES_MAX: usize = 64;

/// With so many under way, a sender first has to show that its address is its own.
const HANDSHAKES_TRUSTED: usize = 16;

const TOO_MANY: &str = "too many handshakes at once";

/// A connection that has not said by then to which session it belongs is closed.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);

/// After the system refused to take a TCP connection (too many open files, say), how long to leave it alone.
const PAUSE: Duration = Duration::from_millis(100);

/// What a connection turned out to be.
enum Found {
    /// One more of a session's three; others are missing.
    Part,
    /// The last one of a session in the making.
    Session(Arc<Peer>, [Greeted; 3]),
    Tunnel(Arc<Peer>, Tunnel),
}

/// Takes QUIC connections until the endpoint is closed.
pub(crate) async fn quic(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut tasks = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = shared.ports.endpoint.accept() => incoming,
            Some(_) = tasks.join_next() => continue,
        };
        let Some(incoming) = incoming else { return };
        let from = incoming.remote_address();
        let crowded = handshakes.available_permits() < HANDSHAKES_MAX - HANDSHAKES_TRUSTED;
        if crowded && !incoming.remote_address_validated() {
            // Fails only for a validated address.
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            shared.refusals.refuse(&from, &TOO_MANY);
            incoming.ignore();
            continue;
        };
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            let greeted = greeted_quic(&shared, incoming);
            establish(&shared, from, permit, greeted).await;
        });
    }
}

/// Takes TLS connections until the task is dropped.
pub(crate) async fn tls(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = shared.ports.listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                shared.refusals.refuse(&"a TCP connection", &error);
                sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            shared.refusals.refuse(&from, &TOO_MANY);
            continue;
        };
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            let greeted = greeted_tls(&shared, stream);
            establish(&shared, from, permit, greeted).await;
        });
    }
}

/// Waits for the greeting, and serves the session whose last connection this was.
async fn establish(
    shared: &Arc<Shared>,
    from: SocketAddr,
    permit: OwnedSemaphorePermit,
    greeted: impl Future<Output = Result<Found, String>>,
) {
    let greeted = timeout(GREETING_TIMEOUT, greeted).await;
    drop(permit);
    match greeted {
        Ok(Ok(Found::Session(peer, connections))) => serve(shared, &peer, connections).await,
        Ok(Ok(Found::Tunnel(peer, tunnel))) => peer.handler.tunnel(peer.node, tunnel),
        Ok(Ok(Found::Part)) => {}
        Ok(Err(why)) => shared.refusals.refuse(&from, &why),
        Err(_) => shared.refusals.refuse(&from, &"no greeting in time"),
    }
}

/// Shakes hands, and puts the connection to its session.
async fn greeted_quic(shared: &Shared, incoming: Incoming) -> Result<Found, String> {
    let handshake = async { incoming.accept()?.await };
    let connection: Connection = handshake.await.map_err(|error| error.to_string())?;
    let greeting = greeting_quic(shared, &connection).await;
    greeting.inspect_err(|why| connection.close(VarInt::from(CODE_VIOLATION), why.as_bytes()))
}

async fn greeting_quic(shared: &Shared, connection: &Connection) -> Result<Found, String> {
    let peer = peer_with(shared, &peer_certificates(connection))?;
    check_dialing(shared, peer)?;
    if generation::is_other(connection) {
        let heard = generation::answer(connection, &shared.lineage).await;
        peer.met(heard.map_err(|error| error.to_string())?);
        return Ok(Found::Part);
    }
    let (stream, mut receive) = connection
        .accept_bi()
        .await
        .map_err(|error| error.to_string())?;
    let mut bytes = [0; HELLO_BYTES];
    receive
        .read_exact(&mut bytes)
        .await
        .map_err(|error| error.to_string())?;
    let hello = Hello::decode(&bytes).map_err(|violation| refusal(peer, violation))?;
    gather(peer, hello, |_| {
        Ok(Greeted {
            link: Link::Quic(connection.clone()),
            stream: Some(stream),
        })
    })
}

async fn greeted_tls(shared: &Shared, stream: TcpStream) -> Result<Found, String> {
    let config = &shared.ports.tls_server;
    let mut socket = TlsSocket::accept(stream, config, shared.idle_timeout)
        .await
        .map_err(|error| error.to_string())?;
    let peer = Arc::clone(peer_with(shared, socket.peer_certificates())?);
    if socket.protocol() == Some(LINEAGE_PROTOCOL) {
        return Ok(Found::Part);
    }
    socket
        .fill(HELLO_BYTES)
        .await
        .map_err(|error| error.to_string())?;
    let mut bytes = [0; HELLO_BYTES];
    socket.plain.copy_to_slice(&mut bytes);
    let hello = match Greeting::decode(&bytes).map_err(|violation| refusal(&peer, violation))? {
        Greeting::Session(hello) => hello,
        Greeting::Tunnel => {
            let tunnel = Tunnel::new(&peer, socket);
            let tunnel =
                tunnel.ok_or_else(|| format!("{}: a tunnel without a session", peer.node))?;
            return Ok(Found::Tunnel(peer, tunnel));
        }
    };
    check_dialing(shared, &peer)?;
    gather(&peer, hello, |class| match class {
        Class::Control => Err(Violation::WrongConnection),
        Class::Write | Class::Resync => Ok(Greeted {
            link: Link::Tls(Box::new(socket)),
            stream: None,
        }),
    })
}

fn refusal(peer: &Peer, violation: Violation) -> String {
    format!("{}: {violation}", peer.node)
}

/// The peer with this certificate.
fn peer_with<'a>(
    shared: &'a Shared,
    chain: &[CertificateDer<'_>],
) -> Result<&'a Arc<Peer>, String> {
    let mut peers = shared.peers.values();
    let peer = peers.find(|peer| is_node(chain, shared.cluster, peer.node));
    peer.ok_or_else(|| "a certificate of no peer of this node".to_owned())
}

/// Refuses sessions that this node has to dial.
fn check_dialing(shared: &Shared, peer: &Peer) -> Result<(), String> {
    if peer.node >= shared.me {
        return Err(format!("{} is for this node to dial", peer.node));
    }
    Ok(())
}

/// Puts a connection that greeted so to its session; gives the session's connections when this was the last.
fn gather(
    peer: &Arc<Peer>,
    hello: Hello,
    greeted: impl FnOnce(Class) -> Result<Greeted, Violation>,
) -> Result<Found, String> {
    let gathered = greeted(hello.class)
        .and_then(|greeted| peer.gather(hello, greeted))
        .map_err(|violation| refusal(peer, violation))?;
    Ok(gathered.map_or(Found::Part, |connections| {
        Found::Session(Arc::clone(peer), connections)
    }))
}

/// All three are there: the session is up, and the peer is told.
async fn serve(shared: &Arc<Shared>, peer: &Arc<Peer>, greeted: [Greeted; 3]) {
    let mut welcomes = Vec::new();
    let connections = greeted.map(|one| {
        welcomes.extend(one.stream);
        match one.link {
            Link::Tls(mut socket) => {
                // What can't be sealed or sent is noticed as the session begins: then it ends.
                let _ = socket.seal(&encode_welcome());
                Link::Tls(socket)
            }
            link @ Link::Quic(_) => link,
        }
    });
    let session = Session::new(shared, peer, connections);
    peer.install(&session);
    for mut stream in welcomes {
        // An error is the end of the connection, at which the session ends at once.
        let _ = stream.write_all(&encode_welcome()).await;
    }
    session.run().await;
}

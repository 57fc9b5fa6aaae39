//! Being dialed: handshakes, bounded in number and time; who is it; to which session does the connection belong.

use crate::generation::{self, LINEAGE_PROTOCOL};
use crate::peer::{Greeted, Link, Peer};
use crate::quic::peer_certificates;
use crate::session::{CODE_VIOLATION, Session};
use crate::tls::TlsSocket;
use crate::transport::Shared;
use crate::trust::is_node;
use crate::wire::{Class, HELLO_BYTES, Hello, Violation, encode_welcome};
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

/// What a connection turned out to be: the last one of a session in the making, or one more of its three.
type Found = Option<(Arc<Peer>, [Greeted; 3])>;

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
        Ok(Ok(Some((peer, connections)))) => serve(shared, &peer, connections).await,
        Ok(Ok(None)) => {}
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
    let peer = dialing_peer(shared, &peer_certificates(connection))?;
    if generation::is_other(connection) {
        let heard = generation::answer(connection, &shared.lineage).await;
        peer.met(heard.map_err(|error| error.to_string())?);
        return Ok(None);
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
    gather(peer, &bytes, |_| {
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
    let peer = dialing_peer(shared, socket.peer_certificates())?;
    let peer = Arc::clone(peer);
    if socket.protocol() == Some(LINEAGE_PROTOCOL) {
        return Ok(None);
    }
    socket
        .fill(HELLO_BYTES)
        .await
        .map_err(|error| error.to_string())?;
    let mut bytes = [0; HELLO_BYTES];
    socket.plain.copy_to_slice(&mut bytes);
    gather(&peer, &bytes, |class| match class {
        Class::Control => Err(Violation::WrongConnection),
        Class::Write | Class::Resync => Ok(Greeted {
            link: Link::Tls(Box::new(socket)),
            stream: None,
        }),
    })
}

/// The peer with this certificate, if it is one that dials this node.
fn dialing_peer<'a>(
    shared: &'a Shared,
    chain: &[CertificateDer<'_>],
) -> Result<&'a Arc<Peer>, String> {
    let peer = shared
        .peers
        .values()
        .find(|peer| is_node(chain, shared.cluster, peer.node))
        .ok_or("a certificate of no peer of this node")?;
    if peer.node >= shared.me {
        return Err(format!("{} is for this node to dial", peer.node));
    }
    Ok(peer)
}

/// Puts a connection that greeted with these bytes to its session; gives the session's connections when this was the last.
fn gather(
    peer: &Arc<Peer>,
    hello: &[u8; HELLO_BYTES],
    greeted: impl FnOnce(Class) -> Result<Greeted, Violation>,
) -> Result<Found, String> {
    let gathered = Hello::decode(hello)
        .and_then(|hello| peer.gather(hello, greeted(hello.class)?))
        .map_err(|violation| format!("{}: {violation}", peer.node))?;
    Ok(gathered.map(|connections| (Arc::clone(peer), connections)))
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

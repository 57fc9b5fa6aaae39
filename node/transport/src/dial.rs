//! Dialing: three connections to a peer with a higher number, again and again.

use crate::certificates::node_name;
use crate::generation::{self, LINEAGE_PROTOCOL};
use crate::peer::{Connections, Link, Peer};
use crate::quic::peer_certificates;
use crate::session::Session;
use crate::tls::TlsSocket;
use crate::transport::{Bulk, Shared};
use crate::trust::is_node;
use crate::tunnel::Tunnel;
use crate::wire::{Class, Greeting, Hello, WELCOME_BYTES, decode_welcome};
use bytes::Buf;
use quinn::{Connection, RecvStream, SendStream};
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// A try that has no session by then is given up. The handshake takes three round trips.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);

/// Pauses between tries: doubled from the first to the last, each shortened at random by up to half.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A session that lasted so long was a good one: after it the pauses start anew.
const GOOD_SESSION: Duration = Duration::from_secs(2);

type Failure = Box<dyn Error + Send + Sync>;

/// Keeps a session with the peer, until the transport stops.
pub(crate) async fn dial_forever(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut pause = PAUSE_MIN;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let since = Instant::now();
        match timeout(ATTEMPT_TIMEOUT, dial(&shared, &peer, attempt)).await {
            Ok(Ok(connections)) => {
                let session = Session::new(&shared, &peer, connections);
                peer.install(&session);
                session.run().await;
            }
            Ok(Err(error)) => tracing::debug!(peer = %peer.node, %error, "can't connect"),
            Err(_) => {
                tracing::debug!(peer = %peer.node, address = peer.address, "no session in time")
            }
        }
        if since.elapsed() > GOOD_SESSION {
            pause = PAUSE_MIN;
        }
        sleep(shared.shortened(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The address from which peers are dialed, and one at which the peer can be reached from there.
async fn way(shared: &Shared, peer: &Peer) -> Result<(SocketAddr, SocketAddr), Failure> {
    let local = shared.ports.endpoint.local_addr()?;
    let addresses = tokio::net::lookup_host(&peer.address).await?;
    let address = addresses
        .into_iter()
        .find(|address| address.is_ipv4() || local.is_ipv6())
        .ok_or_else(|| {
            format!(
                "{} has no address that can be reached from {local}",
                peer.address
            )
        })?;
    Ok((local, address))
}

/// Opens a tunnel to a peer with which there is a session.
pub(crate) async fn tunnel(shared: &Shared, peer: &Peer) -> io::Result<Tunnel> {
    let no_session = || {
        let why = format!("there is no session with {}", peer.node);
        io::Error::new(io::ErrorKind::NotConnected, why)
    };
    if peer.session().is_none() {
        return Err(no_session());
    }
    let opening = async {
        let _turn = shared.tunnels_dialed.acquire().await?;
        let (local, address) = way(shared, peer).await?;
        let greeting = Greeting::Tunnel.encode();
        connect_tls(shared, peer, local.ip(), address, &greeting).await
    };
    let socket = match timeout(ATTEMPT_TIMEOUT, opening).await {
        Ok(opened) => opened.map_err(io::Error::other)?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    Tunnel::new(peer, socket).ok_or_else(no_session)
}

async fn dial(shared: &Shared, peer: &Peer, attempt: u64) -> Result<Connections, Failure> {
    let (local, address) = way(shared, peer).await?;
    let [control, write, resync] = Class::ALL.map(|class| {
        let hello = Hello {
            class,
            process: shared.process,
            attempt,
        };
        async move {
            match (class, shared.bulk) {
                (Class::Control, _) | (_, Bulk::Quic) => greet_quic(shared, peer, address, hello)
                    .await
                    .map(Link::Quic),
                (_, Bulk::Tls) => greet_tls(shared, peer, local.ip(), address, hello)
                    .await
                    .map(|socket| Link::Tls(Box::new(socket))),
            }
        }
    });
    let (control, write, resync) = tokio::try_join!(control, write, resync)?;
    Ok([control, write, resync])
}

/// Connects, checks that the right node is there, greets, and waits for the welcome.
async fn greet_quic(
    shared: &Shared,
    peer: &Peer,
    address: SocketAddr,
    hello: Hello,
) -> Result<Connection, Failure> {
    let name = node_name(shared.cluster, peer.node);
    let ports = &shared.ports;
    let connecting = ports
        .endpoint
        .connect_with(ports.quic_client.clone(), address, &name)?;
    let connection = connecting.await.inspect_err(|error| {
        // A certificate of another cluster or node is worth a warning; silence at the other end is not.
        if matches!(error, quinn::ConnectionError::TransportError(_)) {
            shared
                .refusals
                .refuse(&format_args!("{} at {address}", peer.node), error);
        }
    })?;
    assert!(
        is_node(&peer_certificates(&connection), shared.cluster, peer.node),
        "TLS has verified the name {name}"
    );
    if generation::is_other(&connection) {
        peer.met(generation::ask(&connection, &shared.lineage).await?);
        return Err("it belongs to another generation of the cluster".into());
    }
    let (mut send, mut receive): (SendStream, RecvStream) = connection.open_bi().await?;
    send.write_all(&hello.encode()).await?;
    let mut welcome = [0; WELCOME_BYTES];
    receive.read_exact(&mut welcome).await?;
    decode_welcome(&welcome)?;
    Ok(connection)
}

/// The same over TLS.
async fn greet_tls(
    shared: &Shared,
    peer: &Peer,
    from: IpAddr,
    address: SocketAddr,
    hello: Hello,
) -> Result<TlsSocket, Failure> {
    let mut socket = connect_tls(shared, peer, from, address, &hello.encode()).await?;
    socket.fill(WELCOME_BYTES).await?;
    let mut welcome = [0; WELCOME_BYTES];
    socket.plain.copy_to_slice(&mut welcome);
    decode_welcome(&welcome)?;
    Ok(socket)
}

/// Connects, checks that the right node is there, and greets.
async fn connect_tls(
    shared: &Shared,
    peer: &Peer,
    from: IpAddr,
    address: SocketAddr,
    greeting: &[u8],
) -> Result<TlsSocket, Failure> {
    let name = node_name(shared.cluster, peer.node);
    let config = &shared.ports.tls_client;
    let connecting = TlsSocket::connect(from, address, &name, config, shared.idle_timeout);
    let mut socket = connecting.await.inspect_err(|error| {
        if error.kind() == io::ErrorKind::InvalidData {
            shared
                .refusals
                .refuse(&format_args!("{} at {address}", peer.node), error);
        }
    })?;
    assert!(
        is_node(socket.peer_certificates(), shared.cluster, peer.node),
        "TLS has verified the name {name}"
    );
    if socket.protocol() == Some(LINEAGE_PROTOCOL) {
        // The connection for control, made at the same time, hears which generation it is.
        return std::future::pending().await;
    }
    socket.seal(greeting)?;
    socket.flush().await?;
    Ok(socket)
}

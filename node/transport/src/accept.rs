//! Being dialed: handshakes, bounded in number and time; who is it; to which session does the connection belong.

use crate::peer::{Greeted, Peer};
use crate::quic::is_node;
use crate::session::{CODE_VIOLATION, Session};
use crate::transport::Shared;
use crate::wire::{HELLO_BYTES, Hello, Violation, encode_welcome};
use quinn::{Connection, Incoming, VarInt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Handshakes and greetings under way at once; more are not answered, and their senders try again.
const HANDSHAKES_MAX: usize = 64;

/// With so many under way, a sender first has to show that its address is its own.
const HANDSHAKES_TRUSTED: usize = 16;

/// A connection that has not said by then to which session it belongs is closed.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);

/// Takes connections until the endpoint is closed.
pub(crate) async fn accept_forever(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut tasks = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = shared.endpoint.accept() => incoming,
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
            shared
                .refusals
                .refuse(&from, &"too many handshakes at once");
            incoming.ignore();
            continue;
        };
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            let greeted = timeout(GREETING_TIMEOUT, greeted(&shared, incoming)).await;
            drop(permit);
            match greeted {
                Ok(Ok(Some((peer, connections)))) => establish(&shared, &peer, connections).await,
                Ok(Ok(None)) => {}
                Ok(Err(why)) => shared.refusals.refuse(&from, &why),
                Err(_) => shared.refusals.refuse(&from, &"no greeting in time"),
            }
        });
    }
}

/// Shakes hands, and puts the connection to its session; gives the session's connections when this was the last.
async fn greeted(
    shared: &Shared,
    incoming: Incoming,
) -> Result<Option<(Arc<Peer>, [Greeted; 3])>, String> {
    let handshake = async { incoming.accept()?.await };
    let connection: Connection = handshake.await.map_err(|error| error.to_string())?;
    let greeting = greeting(shared, &connection).await;
    greeting.inspect_err(|why| connection.close(VarInt::from(CODE_VIOLATION), why.as_bytes()))
}

async fn greeting(
    shared: &Shared,
    connection: &Connection,
) -> Result<Option<(Arc<Peer>, [Greeted; 3])>, String> {
    let peer = shared
        .peers
        .values()
        .find(|peer| is_node(connection, shared.cluster, peer.node))
        .ok_or("a certificate of no peer of this node")?;
    if peer.node >= shared.me {
        return Err(format!("{} is for this node to dial", peer.node));
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
    let name = |violation: Violation| format!("{}: {violation}", peer.node);
    let hello = Hello::decode(&bytes).map_err(name)?;
    let greeted = Greeted {
        connection: connection.clone(),
        stream,
    };
    let gathered = peer.gather(hello, greeted).map_err(name)?;
    Ok(gathered.map(|connections| (Arc::clone(peer), connections)))
}

/// All three are there: the session is up, and the peer is told.
async fn establish(shared: &Arc<Shared>, peer: &Arc<Peer>, greeted: [Greeted; 3]) {
    let connections = greeted.each_ref().map(|one| one.connection.clone());
    let session = Session::new(shared, peer, connections);
    peer.install(&session);
    for mut one in greeted {
        // An error is the end of the connection, at which the session ends at once.
        let _ = one.stream.write_all(&encode_welcome()).await;
    }
    session.run().await;
}

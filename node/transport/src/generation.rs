//! Nodes of different generations of a cluster have no session: their epochs and votes can't be compared. They only tell each other where
//! they come from, so that the one that was left behind learns of it.
//!
//! The generation's id is part of the protocol that is asked for in the TLS handshake: so no message is ever exchanged by mistake. Who
//! dials asks for its own protocol, and then for this one:
//!
//! ```text
//! each side: number of ids u32 | the random id of each forced generation, the first one first u64
//! ```

use crate::wire::{PROTOCOL, Violation};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, RecvStream, SendStream};
use std::error::Error;

/// What is spoken with a node of another generation.
pub(crate) const LINEAGE_PROTOCOL: &[u8] = b"isthmus-lineage/1";

/// Ids in a lineage at most.
pub const LINEAGE_MAX: usize = 64;

type Failure = Box<dyn Error + Send + Sync>;

/// What nodes of this generation speak with each other.
pub(crate) fn protocol(lineage: &[u64]) -> Vec<u8> {
    let mut protocol = PROTOCOL.to_vec();
    if let Some(id) = lineage.last() {
        protocol.extend(format!("/{id:016x}").bytes());
    }
    protocol
}

/// Whether the other end is of another generation.
pub(crate) fn is_other(connection: &Connection) -> bool {
    let data = connection.handshake_data();
    let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
    data.is_some_and(|data| data.protocol.as_deref() == Some(LINEAGE_PROTOCOL))
}

/// Tells the node that was dialed where this one comes from, and hears the same.
pub(crate) async fn ask(connection: &Connection, ours: &[u64]) -> Result<Vec<u64>, Failure> {
    let (mut send, mut receive) = connection.open_bi().await?;
    tell(&mut send, ours).await?;
    hear(&mut receive).await
}

/// The same, as the one that was dialed. Returns when the other side has heard it.
pub(crate) async fn answer(connection: &Connection, ours: &[u64]) -> Result<Vec<u64>, Failure> {
    let (mut send, mut receive) = connection.accept_bi().await?;
    let theirs = hear(&mut receive).await?;
    tell(&mut send, ours).await?;
    connection.closed().await;
    Ok(theirs)
}

async fn tell(send: &mut SendStream, ours: &[u64]) -> Result<(), Failure> {
    let mut bytes = u32::try_from(ours.len())?.to_le_bytes().to_vec();
    for id in ours {
        bytes.extend(id.to_le_bytes());
    }
    send.write_all(&bytes).await?;
    Ok(send.finish()?)
}

async fn hear(receive: &mut RecvStream) -> Result<Vec<u64>, Failure> {
    let mut count = [0; 4];
    receive.read_exact(&mut count).await?;
    let count = u32::from_le_bytes(count) as usize;
    if count > LINEAGE_MAX {
        return Err(Violation::Greeting.into());
    }
    let mut bytes = vec![0; count * 8];
    receive.read_exact(&mut bytes).await?;
    let ids = bytes.chunks_exact(8).map(|id| {
        let mut all = [0; 8];
        all.copy_from_slice(id);
        u64::from_le_bytes(all)
    });
    Ok(ids.collect())
}

//! The primary's side: clients that diskless nodes forward become clients of this node's NBD server.

use crate::replicas::exports::{VolumeExport, info};
use crate::replicas::inputs::{AttachError, Forwarded, Input, Inputs, Served};
use isthmus_engine::{Epoch, NodeId, VolumeId};
use isthmus_host::ClientError;
use isthmus_kvdb::Kvdb;
use isthmus_nbd::{Adopted, Adopter, Agreement, Connection, Export, ExportInfo};
use isthmus_transport::Tunnel;
use isthmus_transport::forwarding::{Message, RefusedKind};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long the peer may take for each thing that it has to say before its client's requests.
const SAID_WITHIN: Duration = Duration::from_secs(10);

/// Takes clients that other nodes forward.
pub struct Taker {
    kvdb: Kvdb,
    inputs: Inputs,
    adopter: Adopter,
}

/// What is refused, and how.
type Refused = (RefusedKind, String);

impl Taker {
    /// Takes them for the host behind `inputs` and the server of `adopter`.
    pub fn new(kvdb: Kvdb, inputs: Inputs, adopter: Adopter) -> Taker {
        Taker {
            kvdb,
            inputs,
            adopter,
        }
    }

    /// A tunnel came, whose first bytes say what for. Does not block.
    pub fn take(&self, peer: NodeId, tunnel: Tunnel) {
        let (kvdb, inputs) = (self.kvdb.clone(), self.inputs.clone());
        self.adopter
            .adopt(format!("{peer}, which forwards it"), |client| async move {
                match adopted(&kvdb, inputs, peer, client, tunnel).await {
                    Ok(adopted) => adopted,
                    Err(error) => {
                        tracing::debug!(%peer, %error, "a forwarded client did not come to be one");
                        None
                    }
                }
            });
    }
}

/// Opens what the peer asks for on behalf of its client, and hears what the two have agreed on; none when it was refused.
async fn adopted(
    kvdb: &Kvdb,
    inputs: Inputs,
    peer: NodeId,
    client: Connection,
    mut tunnel: Tunnel,
) -> io::Result<Option<Adopted<Tunnel>>> {
    let Message::Attach { volume, epoch } = said(&mut tunnel).await? else {
        return Err(out_of_turn());
    };
    let forwarded = Forwarded { by: peer, epoch };
    let attached = tokio::select! {
        attached = attach(kvdb, inputs, volume, forwarded, client) => attached,
        // Nothing is to be said now: this is the end, or as bad.
        _ = tunnel.read_u8() => return Ok(None),
    };
    let (export, served) = match attached {
        Ok(attached) => attached,
        Err((kind, reason)) => {
            tracing::info!(%peer, %volume, reason, "a forwarded client was refused");
            Message::Refused { kind, reason }.write(&mut tunnel).await?;
            tunnel.shutdown().await?;
            return Ok(None);
        }
    };
    let answer = Message::Attached {
        epoch: served,
        bytes: export.info().bytes,
        block_bytes: export.info().block_bytes_min,
    };
    answer.write(&mut tunnel).await?;
    let Message::Begin {
        structured,
        allocation,
    } = said(&mut tunnel).await?
    else {
        return Err(out_of_turn());
    };
    Ok(Some(Adopted {
        stream: tunnel,
        export: Arc::new(export),
        agreement: Agreement {
            structured,
            allocation,
        },
    }))
}

async fn said(tunnel: &mut Tunnel) -> io::Result<Message> {
    match timeout(SAID_WITHIN, Message::read(tunnel)).await {
        Ok(said) => said,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn out_of_turn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message out of turn")
}

/// Attaches the client, and gives the epoch under which it is served.
async fn attach(
    kvdb: &Kvdb,
    inputs: Inputs,
    volume: VolumeId,
    forwarded: Forwarded,
    client: Connection,
) -> Result<(VolumeExport, Epoch), Refused> {
    let (answer, answered) = oneshot::channel();
    inputs.send(Input::Attach {
        volume,
        connection: client.clone(),
        forwarded: Some(forwarded),
        answer,
    });
    let served = match answered.await {
        Ok(Ok(served)) => served,
        Ok(Err(error)) => {
            let kind = match &error {
                AttachError::OtherEpoch { .. } | AttachError::Client(ClientError::NoReplica) => {
                    RefusedKind::OtherEpoch
                }
                AttachError::Client(_) => RefusedKind::Told,
            };
            return Err((kind, error.to_string()));
        }
        Err(_) => return Err((RefusedKind::Stopping, "the node is stopping".to_owned())),
    };
    let Served {
        bytes,
        epoch,
        attached,
    } = served;
    let catalog = kvdb.catalog();
    let known = catalog.volumes.get(&volume).map(info);
    let info = ExportInfo {
        bytes,
        ..known.unwrap_or_else(|| unknown(bytes))
    };
    Ok((VolumeExport::forwarded(info, attached, client), epoch))
}

/// A volume that kvdb does not know here: it has just been deleted, or the host heard of it by another way.
fn unknown(bytes: u64) -> ExportInfo {
    ExportInfo {
        bytes,
        block_bytes_min: 4096,
        block_bytes_preferred: 4096,
        read_only: false,
        description: String::new(),
    }
}

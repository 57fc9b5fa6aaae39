//! Volumes as NBD exports: the export's name is the volume's.

use super::inputs::{Attached, Input, Inputs, Served, Ticket};
use isthmus_catalog::{Catalog, VolumeRecord};
use isthmus_engine::{BLOCK_BYTES, NodeId, VolumeId};
use isthmus_host::ClientRequest;
use isthmus_kvdb::Kvdb;
use isthmus_nbd::{
    BoxFuture, Command, Connection, Errno, Export, ExportEntry, ExportInfo, Exports, Refusal,
    RefusalKind, Reply, Request,
};
use std::sync::Arc;
use tokio::sync::oneshot;

/// The volumes of this node.
pub struct NodeExports {
    kvdb: Kvdb,
    node: NodeId,
    inputs: Inputs,
}

impl NodeExports {
    /// The volumes that have a replica on `node`.
    pub fn new(kvdb: Kvdb, node: NodeId, inputs: Inputs) -> NodeExports {
        NodeExports { kvdb, node, inputs }
    }

    fn find(&self, name: &str) -> Result<(VolumeId, ExportInfo), Refusal> {
        let catalog = self.kvdb.catalog();
        let found = catalog
            .volumes
            .iter()
            .find(|(_, record)| record.name == name);
        let Some((volume, record)) = found else {
            let message = format!(
                "there is no volume {name} (as far as this node knows); `domain-ctl get volumes` lists them"
            );
            return Err(Refusal {
                kind: RefusalKind::Unknown,
                message,
            });
        };
        if !record.replicas.contains(&self.node) {
            let holders = names(&catalog, record);
            let message =
                format!("this node holds no replica of volume {name}: connect to {holders}");
            return Err(Refusal {
                kind: RefusalKind::Policy,
                message,
            });
        }
        Ok((*volume, info(record)))
    }
}

fn names(catalog: &Catalog, record: &VolumeRecord) -> String {
    let name = |node: &NodeId| {
        catalog
            .nodes
            .get(node)
            .map_or_else(|| node.to_string(), |node| node.name.clone())
    };
    record
        .replicas
        .iter()
        .map(name)
        .collect::<Vec<_>>()
        .join(" or ")
}

/// A volume's size and manner, as the catalog has them.
pub fn info(record: &VolumeRecord) -> ExportInfo {
    ExportInfo {
        bytes: record.bytes,
        block_bytes_min: record.block_bytes,
        block_bytes_preferred: BLOCK_BYTES as u32,
        read_only: false,
        description: format!("Isthmus volume {}", record.name),
    }
}

impl Exports for NodeExports {
    fn list(&self) -> Vec<ExportEntry> {
        let catalog = self.kvdb.catalog();
        let mine = catalog
            .volumes
            .values()
            .filter(|record| record.replicas.contains(&self.node));
        mine.map(|record| ExportEntry {
            name: record.name.clone(),
            description: info(record).description,
        })
        .collect()
    }

    fn info<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ExportInfo, Refusal>> {
        Box::pin(async move { self.find(name).map(|(_, info)| info) })
    }

    fn open<'a>(
        &'a self,
        name: &'a str,
        client: Connection,
    ) -> BoxFuture<'a, Result<Arc<dyn Export>, Refusal>> {
        Box::pin(async move {
            let (volume, info) = self.find(name)?;
            let (answer, answered) = oneshot::channel();
            self.inputs.send(Input::Attach {
                volume,
                connection: client,
                forwarded: None,
                answer,
            });
            match answered.await {
                Ok(Ok(Served {
                    bytes, attached, ..
                })) => {
                    // It may have grown while the client waited, and kvdb's news come to the host by other ways, too.
                    let info = ExportInfo { bytes, ..info };
                    let export: Arc<dyn Export> = Arc::new(VolumeExport {
                        info,
                        attached,
                        forwarded: None,
                    });
                    Ok(export)
                }
                Ok(Err(error)) => Err(Refusal {
                    kind: RefusalKind::Policy,
                    message: error.to_string(),
                }),
                Err(_) => Err(Refusal {
                    kind: RefusalKind::Shutdown,
                    message: "this node is stopping".into(),
                }),
            }
        })
    }
}

/// A volume as one connection sees it.
pub struct VolumeExport {
    info: ExportInfo,
    attached: Attached,
    /// Of a client that another node forwards: its connection.
    forwarded: Option<Connection>,
}

impl VolumeExport {
    /// A volume as it is served to the client of this connection that another node forwards.
    pub fn forwarded(info: ExportInfo, attached: Attached, client: Connection) -> VolumeExport {
        VolumeExport {
            info,
            attached,
            forwarded: Some(client),
        }
    }
}

impl Export for VolumeExport {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn submit(&self, request: Request, reply: Reply) {
        // The attachment, and with it the epoch under which the client came, is over: what was on its way is not taken any more.
        if self.forwarded.as_ref().is_some_and(Connection::is_closing) {
            return reply.error(Errno::Shutdown, "the attachment is over");
        }
        let Request {
            command,
            offset,
            length,
            fua,
        } = request;
        let (request, ticket) = match command {
            Command::Read => (ClientRequest::Read { offset, length }, Ticket::Plain(reply)),
            Command::Write { payload } => (
                ClientRequest::Write {
                    offset,
                    data: payload,
                },
                Ticket::Plain(reply),
            ),
            Command::Flush => (ClientRequest::Flush, Ticket::Plain(reply)),
            Command::Trim => (ClientRequest::Trim { offset, length }, Ticket::Plain(reply)),
            Command::WriteZeroes { .. } => {
                (ClientRequest::Zero { offset, length }, Ticket::Plain(reply))
            }
            Command::BlockStatus { one } => {
                let ticket = Ticket::Status {
                    reply,
                    skip: offset % BLOCK_BYTES,
                    one,
                };
                (ClientRequest::Status { offset, length }, ticket)
            }
            // A hint, and the page cache knows better.
            Command::Cache => return reply.done(),
        };
        // Where every acknowledged write is durable at every member of the set, it asks for nothing more.
        let request = match request {
            write @ (ClientRequest::Write { .. }
            | ClientRequest::Trim { .. }
            | ClientRequest::Zero { .. })
                if fua =>
            {
                ClientRequest::Durably(Box::new(write))
            }
            request => request,
        };
        if length > u64::from(u32::MAX) {
            return ticket_error(ticket);
        }
        self.attached.submit(request, ticket);
    }
}

fn ticket_error(ticket: Ticket) {
    if let Ticket::Plain(reply) | Ticket::Status { reply, .. } = ticket {
        reply.error(Errno::Overflow, "a request is about less than 4 GiB");
    }
}

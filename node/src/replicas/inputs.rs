//! Everything that reaches the host's loop.

use crate::serve::{DataPathState, FiguresPage};
use bytes::Bytes;
use isthmus_catalog::Catalog;
use isthmus_engine::{Epoch, NodeId, Time, VolumeId};
use isthmus_host::{ClientError, ClientRequest, Outcome};
use isthmus_nbd::{Connection, Errno, Extent, Reply};
use isthmus_transport::{Lane, SessionId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// A fact, or a client's request.
pub enum Input {
    SessionUp {
        peer: NodeId,
        session: SessionId,
    },
    SessionDown {
        peer: NodeId,
        session: SessionId,
    },
    Frame {
        peer: NodeId,
        session: SessionId,
        lane: Lane,
        frame: Bytes,
    },
    /// The peers whose links are too slow for replicas behind them.
    SlowPeers(BTreeSet<NodeId>),
    /// The disk has completed something.
    Disk,
    /// kvdb has committed something.
    Catalog(Arc<Catalog>),
    /// kvdb has answered a proposal.
    Answer {
        volume: VolumeId,
        done: bool,
    },
    /// The catalog as a linearizable read found it that was begun then.
    Confirmed {
        begun: Time,
        catalog: Option<Arc<Catalog>>,
    },
    /// A client opens a volume.
    Attach {
        volume: VolumeId,
        connection: Connection,
        /// Where it came, if not here.
        forwarded: Option<Forwarded>,
        answer: oneshot::Sender<Attachment>,
    },
    /// A client that was attached is gone.
    Detach {
        volume: VolumeId,
        connection: u64,
    },
    /// An attached client asks for something.
    Submit {
        volume: VolumeId,
        request: ClientRequest,
        ticket: Ticket,
    },
    /// What is known of the volumes?
    Report(oneshot::Sender<DataPathState>),
    /// Some volumes in figures.
    Figures {
        after: Option<VolumeId>,
        count: usize,
        answer: oneshot::Sender<FiguresPage>,
    },
    /// The node stops.
    Stop {
        within: Duration,
        stopped: oneshot::Sender<()>,
    },
}

/// Where a client came that another node forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// That node, which has no store.
    pub by: NodeId,
    /// The volume's epoch, as that node knows it.
    pub epoch: Epoch,
}

/// A client that is attached, or wants to be.
pub struct Client {
    pub connection: Connection,
    /// The node that it came to: this one, or one that forwards it.
    pub came_to: NodeId,
}

/// What comes of a client that opens a volume.
pub type Attachment = Result<Served, AttachError>;

/// A volume as it is served to a client.
pub struct Served {
    /// Its size in bytes.
    pub bytes: u64,
    /// Under which epoch.
    pub epoch: Epoch,
    /// The client's place at it.
    pub attached: Attached,
}

/// A client that is attached, for as long as this is kept: dropped, wherever that happens on its way to the client's connection, it detaches
/// the client.
pub struct Attached {
    volume: VolumeId,
    connection: u64,
    inputs: Inputs,
}

impl Attached {
    /// Of the client with this connection.
    pub fn new(volume: VolumeId, connection: u64, inputs: Inputs) -> Attached {
        Attached {
            volume,
            connection,
            inputs,
        }
    }

    /// Asks for something.
    pub fn submit(&self, request: ClientRequest, ticket: Ticket) {
        self.inputs.send(Input::Submit {
            volume: self.volume,
            request,
            ticket,
        });
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.inputs.send(Input::Detach {
            volume: self.volume,
            connection: self.connection,
        });
    }
}

/// Why a client can't open a volume here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    #[error("{0}")]
    Client(ClientError),
    /// Who forwards it knows another epoch than this node: one of the two is behind.
    #[error("the volume is at epoch {ours} here, the client was forwarded for epoch {theirs}")]
    OtherEpoch { ours: Epoch, theirs: Epoch },
}

/// The way in; clones are the same.
#[derive(Clone)]
pub struct Inputs(mpsc::UnboundedSender<Input>);

impl Inputs {
    /// Hands something to the host's loop. Once that has ended, nobody is there to want it.
    pub fn send(&self, input: Input) {
        // The loop ends only when the node does; then clients' replies answer EIO as they are dropped.
        let _ = self.0.send(input);
    }
}

/// A way in, and its end. Not bounded itself: clients are bounded by their connections' windows, peers by what they have to send, and
/// the catalog by kvdb's pace.
pub fn channel() -> (Inputs, mpsc::UnboundedReceiver<Input>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Inputs(sender), receiver)
}

/// Who is answered when the host is done with a request.
pub enum Ticket {
    Attach {
        volume: VolumeId,
        client: Client,
        answer: oneshot::Sender<Attachment>,
    },
    Plain(Reply),
    /// A block status: the host's runs begin at a block, so many bytes before what the client asked for.
    Status {
        reply: Reply,
        skip: u64,
        one: bool,
    },
}

/// Answers an NBD client.
pub fn answer(ticket: Ticket, outcome: Outcome) {
    match (ticket, outcome) {
        (Ticket::Plain(reply), Outcome::Done) => reply.done(),
        (Ticket::Plain(reply), Outcome::Data(parts)) => reply.data_parts(parts),
        (Ticket::Plain(reply) | Ticket::Status { reply, .. }, Outcome::Failed(error)) => {
            let errno = match error {
                ClientError::NotServed(_) | ClientError::NoReplica => Errno::Shutdown,
                ClientError::Unreadable(_) => Errno::Io,
                ClientError::NoSpace(_) => Errno::NoSpace,
                ClientError::OutOfRange => Errno::Invalid,
            };
            reply.error(errno, error.to_string());
        }
        (Ticket::Status { reply, skip, one }, Outcome::Status(runs)) => {
            let mut skip = skip;
            let mut extents: Vec<Extent> = Vec::with_capacity(runs.len());
            for run in runs {
                let passed = skip.min(run.length);
                skip -= passed;
                if run.length > passed {
                    extents.push(Extent {
                        bytes: run.length - passed,
                        hole: !run.allocated,
                        zero: !run.allocated,
                    });
                }
            }
            if one {
                extents.truncate(1);
            }
            if extents.is_empty() {
                reply.error(Errno::Io, "the allocation could not be read");
            } else {
                reply.status(extents);
            }
        }
        (Ticket::Plain(reply) | Ticket::Status { reply, .. }, outcome) => {
            reply.error(
                Errno::Io,
                format!("the host answered something else: {outcome:?}"),
            );
        }
        (Ticket::Attach { .. }, _) => {
            unreachable!("attachments are answered by the host's loop itself")
        }
    }
}

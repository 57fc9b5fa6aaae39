//! What goes in and out of a host besides the disk: client requests and their outcomes, frames, questions to kvdb.

use bytes::Bytes;
use isthmus_engine::{NodeId, Proposal, VolumeId};

/// Which of a volume's ordered streams between two nodes a frame travels on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Records and everything that must stay in order with them.
    Write,
    /// Copying.
    Resync,
}

/// A frame for another node. The body is not copied on its way.
#[derive(Clone, Debug)]
pub struct OutgoingFrame {
    /// To whom.
    pub to: NodeId,
    /// About which volume.
    pub volume: VolumeId,
    /// On which lane.
    pub lane: Lane,
    /// The first part.
    pub head: Bytes,
    /// The second part; may be empty.
    pub body: Bytes,
}

/// What a client asks of a volume, in bytes.
#[derive(Clone, Debug)]
pub enum ClientRequest {
    /// Bytes of the volume.
    Read {
        /// Where.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// New bytes for the volume.
    Write {
        /// Where.
        offset: u64,
        /// Which.
        data: Bytes,
    },
    /// Make them read as zeroes.
    Zero {
        /// Where.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// The client needs them no more. Only whole blocks are given back.
    Trim {
        /// Where.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// Everything acknowledged is durable when this is answered.
    Flush,
    /// As the request within, and what that has changed is durable when it is answered (FUA).
    Durably(Box<ClientRequest>),
    /// Which parts hold data.
    Status {
        /// Where.
        offset: u64,
        /// How many.
        length: u64,
    },
}

/// A run of bytes for a block status answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many bytes.
    pub length: u64,
    /// Whether they are kept (else they are a hole and read as zeroes).
    pub allocated: bool,
}

/// How a client's request ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A write, zero, trim or flush is done.
    Done,
    /// The bytes, in order; together as many as asked for.
    Data(Vec<Bytes>),
    /// The runs, in order; together as many bytes as asked for.
    Status(Vec<Run>),
    /// The volume is served here now: its clients may come.
    Attached,
    /// It failed.
    Failed(ClientError),
}

/// Why a client's request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The volume is not here.
    #[error("this node holds no replica of the volume")]
    NoReplica,
    /// Not served here, with the reason and what to do.
    #[error("{0}")]
    NotServed(String),
    /// Blocks could not be read, here.
    #[error("{0}")]
    Unreadable(String),
    /// There is no space for more data.
    #[error("{0}")]
    NoSpace(String),
    /// The request is outside the volume.
    #[error("the request reaches past the end of the volume")]
    OutOfRange,
}

/// What a host wants done outside.
#[derive(Debug)]
pub struct Outputs<R> {
    /// Frames to send, in order for each lane.
    pub frames: Vec<OutgoingFrame>,
    /// Answers for clients.
    pub replies: Vec<(R, Outcome)>,
    /// Compare-and-sets for kvdb. Each is answered by `Host::on_answer`.
    pub proposals: Vec<(VolumeId, Proposal)>,
    /// Whether some volume needs kvdb to confirm the catalog (one linearizable read serves all). Answered by `Host::on_confirmed`.
    pub confirm: bool,
    /// Volumes that stopped serving clients here: their connections are to be closed.
    pub demoted: Vec<VolumeId>,
    /// State changes, for the log.
    pub events: Vec<(VolumeId, String)>,
}

impl<R> Default for Outputs<R> {
    fn default() -> Outputs<R> {
        Outputs {
            frames: Vec::new(),
            replies: Vec::new(),
            proposals: Vec::new(),
            confirm: false,
            demoted: Vec::new(),
            events: Vec::new(),
        }
    }
}

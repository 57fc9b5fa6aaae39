//! What kvdb's nodes say to each other.

use bytes::Bytes;
use isthmus_catalog::codec::{self, CodecError};
use isthmus_catalog::{Answer, Request};
use isthmus_engine::NodeId;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use crate::group::{MemberId, SnapshotMeta, Types, Vote, kind};
use crate::peers::CALL_BYTES_MAX;
use crate::runtime::{Runtime, Tokio};

/// Bytes of a snapshot in one message.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of log entries in one message, unless one alone is larger.
pub(crate) const ENTRIES_BYTES_MAX: usize = 512 << 10;

const _: () = assert!(
    codec::REQUEST_BYTES_MAX + ENTRIES_BYTES_MAX < CALL_BYTES_MAX,
    "any entry fits into a call"
);
const _: () = assert!(CHUNK_BYTES * 2 < CALL_BYTES_MAX, "a chunk fits into a call");

/// Of one member for another: not for an earlier or later incarnation of its store (I12).
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum Protocol<R: Runtime> {
    Append(AppendEntriesRequest<Types<R>>),
    Vote(VoteRequest<Types<R>>),
    PreVote(VoteRequest<Types<R>>),
    TransferLeader(TransferLeaderRequest<Types<R>>),
    Snapshot(SnapshotChunk),
}

/// A piece of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotChunk {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    pub total_bytes: u64,
    pub offset: u64,
    pub data: Vec<u8>,
}

/// For the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Commit this.
    Propose(Request),
    /// Up to where must be applied what is read now?
    ReadIndex,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum Message<R: Runtime> {
    Protocol {
        to: MemberId,
        protocol: Protocol<R>,
    },
    /// `may_forward`: whoever does not lead passes it on, once. `generation` is the id of the asker's: one question is never answered in
    /// another one.
    Question {
        generation: u64,
        question: Question,
        may_forward: bool,
        within_ms: u64,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum Reply<R: Runtime> {
    Append(AppendEntriesResponse<Types<R>>),
    Vote(VoteResponse<Types<R>>),
    TransferLeader(TransferLeaderResponse<Types<R>>),
    /// The chunk has come; the next one may.
    NextChunk,
    Snapshot(SnapshotResponse<Types<R>>),
    Answer(Answer),
    /// The log index that must be applied; none of an empty log.
    ReadIndex(Option<u64>),
    NotLeader {
        leader: Option<NodeId>,
    },
    Failed(String),
}

pub(crate) fn encode_message<R: Runtime>(message: &Message<R>) -> Result<Bytes, CodecError> {
    codec::seal(kind::MESSAGE, message).map(Bytes::from)
}

pub(crate) fn decode_message<R: Runtime>(bytes: &[u8]) -> Result<Message<R>, CodecError> {
    check_length(bytes)?;
    codec::unseal(kind::MESSAGE, bytes)
}

pub(crate) fn encode_reply<R: Runtime>(reply: &Reply<R>) -> Bytes {
    let failed = |error: CodecError| {
        let reply = Reply::<R>::Failed(error.to_string());
        codec::seal(kind::REPLY, &reply).unwrap_or_default()
    };
    Bytes::from(codec::seal(kind::REPLY, reply).unwrap_or_else(failed))
}

pub(crate) fn decode_reply<R: Runtime>(bytes: &[u8]) -> Result<Reply<R>, CodecError> {
    check_length(bytes)?;
    codec::unseal(kind::REPLY, bytes)
}

/// A vote that a member has given: Raft's term, and who may lead in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GivenVote {
    /// The term.
    pub term: u64,
    /// The member that may lead.
    pub leader: MemberId,
}

/// The vote that an answer to a request ([`crate::Kvdb::serve`]) gives, if it gives one: for whoever watches the wire. It is given
/// for good: the member must have it on disk. (That it would give one, before an election, is no vote.)
pub fn given_vote(request: &[u8], answer: &[u8]) -> Option<GivenVote> {
    let Ok(Reply::Vote(response)) = decode_reply::<Tokio>(answer) else {
        return None;
    };
    let is_asked = matches!(
        decode_message::<Tokio>(request),
        Ok(Message::Protocol {
            protocol: Protocol::Vote(_),
            ..
        })
    );
    (is_asked && response.vote_granted).then_some(GivenVote {
        term: response.vote.leader_id.term,
        leader: response.vote.leader_id.node_id,
    })
}

fn check_length(bytes: &[u8]) -> Result<(), CodecError> {
    if bytes.len() > CALL_BYTES_MAX {
        Err(CodecError::Length(bytes.len()))
    } else {
        Ok(())
    }
}

//! Every form of bytes that kvdb takes from outside, each by itself, for whoever wants to feed it anything: what peers say, what
//! the log's records hold, what a snapshot file holds. Nothing of openraft shows: what was decoded is given back as bytes.

use bytes::Bytes;
use isthmus_catalog::codec::{self, Kind};
use isthmus_catalog::{Answer, Catalog, CodecError, Request};
use isthmus_engine::{Incarnation, NodeId};
use isthmus_journal::Disk;
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::raft::{AppendEntriesRequest, SnapshotResponse, VoteRequest, VoteResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::KvdbError;
use crate::group::{Entry, LogId, MemberId, Proposal, SnapshotMeta, Vote, kind};
use crate::runtime::Tokio;
use crate::storage::{self, Record, StoredSnapshot};
use crate::wire::{self, Protocol, Question, SnapshotChunk};

type Message = wire::Message<Tokio>;
type Reply = wire::Reply<Tokio>;

/// A form of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A call of another node.
    Message,
    /// The answer to one.
    Reply,
    /// A record of the log's journal, whatever its payload is.
    LogRecord,
    /// A log entry: the payload of one kind of record.
    Entry,
    /// A vote: of another.
    Vote,
    /// A log id: of a third.
    LogId,
    /// A snapshot file.
    SnapshotFile,
}

/// A call that a node of the first generation understands, and may pass on; answered within so many ms.
///
/// # Panics
/// When it can't be encoded, which would be a bug of ours.
#[must_use]
pub fn question(within_ms: u64) -> Bytes {
    let message = Message::Question {
        generation: 0,
        question: Question::ReadIndex,
        may_forward: true,
        within_ms,
    };
    wire::encode_message(&message).expect("a question of a few bytes")
}

impl Form {
    /// All of them.
    pub const ALL: [Form; 7] = [
        Form::Message,
        Form::Reply,
        Form::LogRecord,
        Form::Entry,
        Form::Vote,
        Form::LogId,
        Form::SnapshotFile,
    ];

    /// Decodes the bytes, and encodes what they came to again; none where they are refused.
    #[must_use]
    pub fn again(self, bytes: &[u8]) -> Option<Bytes> {
        match self {
            Form::Message => {
                let message: Message = wire::decode_message(bytes).ok()?;
                wire::encode_message(&message).ok()
            }
            Form::Reply => {
                let reply: Reply = wire::decode_reply(bytes).ok()?;
                Some(wire::encode_reply(&reply))
            }
            Form::LogRecord => {
                let (record, is_rewritten) = Record::decode(bytes)?;
                Some(record.encode(is_rewritten).concat().into())
            }
            Form::Entry => sealed_again::<Entry>(kind::ENTRY, bytes),
            Form::Vote => sealed_again::<Vote>(kind::VOTE, bytes),
            Form::LogId => sealed_again::<LogId>(kind::LOG_ID, bytes),
            Form::SnapshotFile => {
                let (number, snapshot) = storage::parse_snapshot(bytes)?;
                storage::snapshot_bytes(number, &snapshot)
                    .ok()
                    .map(Bytes::from)
            }
        }
    }

    /// Bytes that are whole and sound; `number` chooses among them.
    ///
    /// # Errors
    /// When what is to be put in is too large.
    pub fn example(
        self,
        catalog: &Catalog,
        request: &Request,
        number: u64,
    ) -> Result<Bytes, CodecError> {
        match self {
            Form::Message => wire::encode_message(&message(catalog, request, number)?),
            Form::Reply => Ok(wire::encode_reply(&reply(number))),
            Form::LogRecord => Ok(record(request, number)?
                .encode(number.is_multiple_of(7))
                .concat()
                .into()),
            Form::Entry => sealed(kind::ENTRY, &entry(request, number)),
            Form::Vote => sealed(kind::VOTE, &vote(number)),
            Form::LogId => sealed(kind::LOG_ID, &log_id(number)),
            Form::SnapshotFile => {
                let snapshot = StoredSnapshot {
                    meta: snapshot_meta(number),
                    catalog: catalog.encode()?.into(),
                };
                storage::snapshot_bytes(number, &snapshot).map(Bytes::from)
            }
        }
    }
}

/// The record of log entry `index`, as the journal keeps it.
///
/// # Errors
/// When the request is too large.
pub fn entry_record(request: &Request, index: u64) -> Result<Bytes, CodecError> {
    let entry = sealed(kind::ENTRY, &entry(request, index))?;
    Ok(Record::Entry { index, entry }.encode(false).concat().into())
}

/// Opens the store in `folder` as a start does, and gives the indexes of the entries that it found.
///
/// # Errors
/// As a start has them: what is missing or damaged, or what the disk says.
pub fn recover<D: Disk>(disk: D, folder: &str) -> Result<Vec<u64>, KvdbError> {
    let recovered = storage::recover(disk, folder)?;
    Ok(recovered
        .entries
        .iter()
        .map(|(entry, _)| entry.index())
        .collect())
}

fn sealed<T: Serialize>(kind: Kind, value: &T) -> Result<Bytes, CodecError> {
    codec::seal(kind, value).map(Bytes::from)
}

fn sealed_again<T: Serialize + DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Option<Bytes> {
    sealed(kind, &codec::unseal::<T>(kind, bytes).ok()?).ok()
}

fn member(number: u64) -> MemberId {
    MemberId {
        node: NodeId(number as u32 % 5 + 1),
        incarnation: Incarnation(number),
    }
}

fn log_id(number: u64) -> LogId {
    let leader = LeaderId {
        term: number % 9,
        node_id: member(number),
    };
    LogId::new(leader, number)
}

fn vote(number: u64) -> Vote {
    if number.is_multiple_of(2) {
        Vote::new(number % 9, member(number))
    } else {
        Vote::new_committed(number % 9, member(number))
    }
}

fn entry(request: &Request, index: u64) -> Entry {
    if index.is_multiple_of(5) {
        Entry::new_blank(log_id(index))
    } else {
        Entry::new_normal(log_id(index), Proposal(request.clone()))
    }
}

fn snapshot_meta(number: u64) -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: Some(log_id(number)),
        ..SnapshotMeta::default()
    }
}

fn record(request: &Request, number: u64) -> Result<Record, CodecError> {
    Ok(match number % 6 {
        0 => Record::Vote(sealed(kind::VOTE, &vote(number))?),
        1 => Record::Entry {
            index: number,
            entry: sealed(kind::ENTRY, &entry(request, number))?,
        },
        2 => Record::TruncateFrom(number),
        3 => Record::Purge {
            index: number,
            log_id: sealed(kind::LOG_ID, &log_id(number))?,
        },
        4 => Record::Committed(sealed(kind::LOG_ID, &log_id(number))?),
        _ => Record::RewriteBegin,
    })
}

fn message(catalog: &Catalog, request: &Request, number: u64) -> Result<Message, CodecError> {
    let question = |question| Message::Question {
        generation: 0,
        question,
        may_forward: number.is_multiple_of(2),
        within_ms: number,
    };
    let protocol = match number % 6 {
        0 => return Ok(question(Question::Propose(request.clone()))),
        1 => return Ok(question(Question::ReadIndex)),
        2 => Protocol::Append(AppendEntriesRequest {
            vote: vote(number),
            prev_log_id: Some(log_id(number)),
            entries: (number..number + number % 4)
                .map(|index| entry(request, index))
                .collect(),
            leader_commit: None,
        }),
        3 => Protocol::Vote(VoteRequest::new(vote(number), Some(log_id(number)))),
        4 => Protocol::PreVote(VoteRequest::new(vote(number), None)),
        _ => {
            let data = catalog.encode()?;
            Protocol::Snapshot(SnapshotChunk {
                vote: vote(number),
                meta: snapshot_meta(number),
                total_bytes: data.len() as u64,
                offset: 0,
                data,
            })
        }
    };
    Ok(Message::Protocol {
        to: member(number),
        protocol,
    })
}

fn reply(number: u64) -> Reply {
    match number % 7 {
        0 => Reply::NextChunk,
        1 => Reply::Answer(Answer::Update(format!("update-{number}"))),
        2 => Reply::ReadIndex((!number.is_multiple_of(3)).then_some(number)),
        3 => Reply::NotLeader {
            leader: number.is_multiple_of(2).then_some(NodeId(3)),
        },
        4 => Reply::Failed(format!("failed {number}")),
        5 => Reply::Snapshot(SnapshotResponse::new(vote(number))),
        _ => Reply::Vote(VoteResponse::new(vote(number), Some(log_id(number)), true)),
    }
}

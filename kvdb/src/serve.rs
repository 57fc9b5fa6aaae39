//! What this node answers to its peers.

use bytes::Bytes;
use isthmus_catalog::Catalog;
use isthmus_catalog::codec::{ENVELOPE_BYTES, PAYLOAD_BYTES_MAX};
use isthmus_engine::NodeId;
use std::time::Duration;

use crate::group::{MemberId, Snapshot, SnapshotMeta, Vote};
use crate::handle::{Kvdb, Shared};
use crate::runtime::{Runtime, WatchReceiver as _};
use crate::wire::{self, Message, Protocol, Reply, SnapshotChunk};

/// Bytes of a snapshot at most.
const SNAPSHOT_BYTES_MAX: u64 = (ENVELOPE_BYTES + PAYLOAD_BYTES_MAX) as u64;

/// A snapshot on its way. At most one: a node follows one leader.
pub(crate) struct Assembly {
    from: NodeId,
    vote: Vote,
    meta: SnapshotMeta,
    total_bytes: u64,
    data: Vec<u8>,
}

impl<R: Runtime> Kvdb<R> {
    /// Answers what node `from` has asked by [`crate::Peers::call`]. Any bytes get an answer, in bounded time.
    pub async fn serve(&self, from: NodeId, request: Bytes) -> Bytes {
        let reply = match wire::decode_message(&request) {
            Ok(Message::Protocol { to, protocol }) => self.shared.take(from, to, protocol).await,
            Ok(Message::Question { generation, .. })
                if generation != self.shared.config.lineage.id() =>
            {
                let ours = &self.shared.config.lineage;
                Reply::Failed(format!(
                    "this node belongs to generation {ours}, the question does not"
                ))
            }
            Ok(Message::Question {
                generation: _,
                question,
                may_forward,
                within_ms,
            }) => {
                self.shared
                    .answer(&question, may_forward, Duration::from_millis(within_ms))
                    .await
            }
            Err(error) => Reply::Failed(error.to_string()),
        };
        wire::encode_reply(&reply)
    }
}

impl<R: Runtime> Shared<R> {
    async fn take(&self, from: NodeId, to: MemberId, protocol: Protocol<R>) -> Reply<R> {
        if to != self.member() {
            return Reply::Failed(format!(
                "this is member {}, the message was for {to}",
                self.member()
            ));
        }
        let speaker = match &protocol {
            Protocol::Append(request) => request.vote.leader_id.node_id,
            Protocol::Vote(request) | Protocol::PreVote(request) => request.vote.leader_id.node_id,
            Protocol::TransferLeader(request) => request.from_leader().leader_id.node_id,
            Protocol::Snapshot(chunk) => chunk.vote.leader_id.node_id,
        };
        if speaker.node != from {
            return Reply::Failed(format!("node {from} can't speak for member {speaker}"));
        }
        let failed = |error: &dyn std::fmt::Display| Reply::Failed(error.to_string());
        match protocol {
            Protocol::Append(request) => self
                .raft
                .append_entries(request)
                .await
                .map_or_else(|error| failed(&error), Reply::Append),
            Protocol::Vote(request) => self
                .raft
                .vote(request)
                .await
                .map_or_else(|error| failed(&error), Reply::Vote),
            Protocol::PreVote(request) => self
                .raft
                .pre_vote(request)
                .await
                .map_or_else(|error| failed(&error), Reply::Vote),
            Protocol::TransferLeader(request) => self
                .raft
                .handle_transfer_leader(request)
                .await
                .map_or_else(|error| failed(&error), Reply::TransferLeader),
            Protocol::Snapshot(chunk) => self.take_chunk(from, chunk).await,
        }
    }

    async fn take_chunk(&self, from: NodeId, chunk: SnapshotChunk) -> Reply<R> {
        let assembled = match self.assemble(from, chunk) {
            Ok(None) => return Reply::NextChunk,
            Ok(Some(assembled)) => assembled,
            Err(reason) => return Reply::Failed(reason.to_owned()),
        };
        if let Err(error) = Catalog::decode(&assembled.data) {
            return Reply::Failed(format!("the snapshot is no catalog: {error}"));
        }
        let last = assembled.meta.last_log_id;
        let is_beyond_vote = last.is_some_and(|last| last.leader_id > assembled.vote.leader_id);
        let committed = self.raft.metrics().borrow_and_update().local_committed;
        let is_contradiction = last > committed
            && last.map(|last| last.index) <= committed.map(|committed| committed.index);
        if is_beyond_vote || is_contradiction {
            return Reply::Failed("the snapshot contradicts the log of this node".to_owned());
        }
        let snapshot = Snapshot {
            meta: assembled.meta,
            snapshot: Bytes::from(assembled.data),
        };
        let installed = self
            .raft
            .install_full_snapshot(assembled.vote, snapshot)
            .await;
        installed.map_or_else(|error| Reply::Failed(error.to_string()), Reply::Snapshot)
    }

    /// Adds a chunk; returns the whole when this was the last one.
    fn assemble(
        &self,
        from: NodeId,
        chunk: SnapshotChunk,
    ) -> Result<Option<Assembly>, &'static str> {
        let mut assembly = self.assembly.lock();
        if chunk.total_bytes > SNAPSHOT_BYTES_MAX {
            return Err("the snapshot is too large");
        }
        if chunk.offset == 0 {
            let SnapshotChunk {
                vote,
                meta,
                total_bytes,
                ..
            } = &chunk;
            *assembly = Some(Assembly {
                from,
                vote: *vote,
                meta: meta.clone(),
                total_bytes: *total_bytes,
                data: Vec::new(),
            });
        }
        let begun = assembly.as_mut().filter(|begun| {
            begun.from == from
                && begun.vote == chunk.vote
                && begun.meta == chunk.meta
                && begun.total_bytes == chunk.total_bytes
        });
        let begun = begun.ok_or("another snapshot is on its way")?;
        let is_next = begun.data.len() as u64 == chunk.offset;
        let fits = begun.data.len() as u64 + chunk.data.len() as u64 <= begun.total_bytes;
        if !is_next || !fits || chunk.data.is_empty() {
            *assembly = None;
            return Err("a piece of the snapshot is missing");
        }
        begun.data.extend_from_slice(&chunk.data);
        if (begun.data.len() as u64) < begun.total_bytes {
            Ok(None)
        } else {
            Ok(assembly.take())
        }
    }
}

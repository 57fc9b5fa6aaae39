//! openraft's network over [`Peers`].

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::group::{MemberId, Snapshot, Types, Vote};
use crate::peers::Peers;
use crate::runtime::Runtime;
use crate::wire::{self, CHUNK_BYTES, Message, Protocol, Reply, SnapshotChunk};

/// How long one piece of a snapshot may take.
const CHUNK_WITHIN: Duration = Duration::from_secs(5);

/// Makes the way to each member.
pub(crate) struct Network {
    pub peers: Arc<dyn Peers>,
}

/// The way to one member.
pub(crate) struct Way {
    to: MemberId,
    peers: Arc<dyn Peers>,
}

impl<R: Runtime> RaftNetworkFactory<Types<R>> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: MemberId, _node: &EmptyNode) -> Way {
        Way {
            to: target,
            peers: self.peers.clone(),
        }
    }
}

impl Way {
    async fn call<R: Runtime>(
        &self,
        protocol: Protocol<R>,
        within: Duration,
    ) -> Result<Reply<R>, RPCError<Types<R>>> {
        let message = Message::Protocol {
            to: self.to,
            protocol,
        };
        let request = wire::encode_message(&message)
            .map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let called = self.peers.call(self.to.node, request, within).await;
        let answer = called.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
        match wire::decode_reply(&answer) {
            // The node is there, but not as this member, or it has stopped: do not ask again at once.
            Ok(Reply::Failed(reason)) => {
                Err(RPCError::Unreachable(Unreachable::from_string(reason)))
            }
            Ok(reply) => Ok(reply),
            Err(error) => Err(RPCError::Network(NetworkError::new(&error))),
        }
    }

    fn unexpected<R: Runtime>(&self) -> RPCError<Types<R>> {
        RPCError::Network(NetworkError::from_string(format!(
            "{} answered another question",
            self.to
        )))
    }

    async fn send_snapshot<R: Runtime>(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<Types<R>>, RPCError<Types<R>>> {
        let bytes: Bytes = snapshot.snapshot;
        let mut offset = 0;
        loop {
            let end = bytes.len().min(offset + CHUNK_BYTES);
            let chunk = SnapshotChunk {
                vote,
                meta: snapshot.meta.clone(),
                total_bytes: bytes.len() as u64,
                offset: offset as u64,
                data: bytes[offset..end].to_vec(),
            };
            match self.call(Protocol::Snapshot(chunk), CHUNK_WITHIN).await? {
                Reply::Snapshot(response) => return Ok(response),
                Reply::NextChunk if end < bytes.len() => offset = end,
                _ => return Err(self.unexpected()),
            }
        }
    }
}

impl<R: Runtime> RaftNetworkV2<Types<R>> for Way {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<R>>, RPCError<Types<R>>> {
        match self.call(Protocol::Append(rpc), option.hard_ttl()).await? {
            Reply::Append(response) => Ok(response),
            _ => Err(self.unexpected()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        match self.call(Protocol::Vote(rpc), option.hard_ttl()).await? {
            Reply::Vote(response) => Ok(response),
            _ => Err(self.unexpected()),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        match self.call(Protocol::PreVote(rpc), option.hard_ttl()).await? {
            Reply::Vote(response) => Ok(response),
            _ => Err(self.unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let sending = std::pin::pin!(self.send_snapshot(vote, snapshot));
        let cancel = std::pin::pin!(cancel);
        match futures_util::future::select(sending, cancel).await {
            futures_util::future::Either::Left((sent, _)) => Ok(sent?),
            futures_util::future::Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<R>>, RPCError<Types<R>>> {
        match self
            .call(Protocol::TransferLeader(req), option.hard_ttl())
            .await?
        {
            Reply::TransferLeader(response) => Ok(response),
            _ => Err(self.unexpected()),
        }
    }
}

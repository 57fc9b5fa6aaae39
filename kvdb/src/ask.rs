//! How a question reaches the leader: here, if this node leads; else by asking it; else over any node that reaches it.

use isthmus_catalog::{Answer, Catalog, Command, Request};
use isthmus_engine::NodeId;
use openraft::ReadPolicy;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardToLeader, LinearizableReadError, RaftError,
};
use std::sync::Arc;
use std::time::Duration;

use crate::error::KvdbError;
use crate::group::{Proposal, Types};
use crate::handle::{Kvdb, Shared};
use crate::metrics::members;
use crate::runtime::{self, Instant as _, InstantOf, Runtime, WatchReceiver as _};
use crate::wire::{self, Message, Question, Reply};

/// Between two attempts, unless something changes before.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);
/// One attempt takes at most so long: longer than a slow commit, shorter than what anybody waits for.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(1);

impl<R: Runtime> Kvdb<R> {
    /// Commits a request whose id was made by [`Kvdb::next_request`]: a repeat of it, after an error, is applied once.
    ///
    /// # Errors
    /// Those of [`Kvdb::propose`].
    pub async fn propose_request(
        &self,
        request: Request,
        within: Duration,
    ) -> Result<Answer, KvdbError> {
        request
            .encode()
            .map_err(|error| KvdbError::TooLarge(error.to_string()))?;
        match self.shared.ask(Question::Propose(request), within).await? {
            Reply::Answer(answer) => Ok(answer),
            other => Err(unexpected(within, &other)),
        }
    }

    /// The catalog with everything in it that was committed before the call: proves that a majority answers.
    ///
    /// # Errors
    /// `Unavailable`, when none does within [`crate::KvdbConfig::within`], or this node has not caught up by then.
    pub async fn confirm(&self) -> Result<Arc<Catalog>, KvdbError> {
        self.confirm_within(self.shared.config.within).await
    }

    /// The same, with a time of the caller's choice.
    ///
    /// # Errors
    /// As [`Kvdb::confirm`].
    pub async fn confirm_within(&self, within: Duration) -> Result<Arc<Catalog>, KvdbError> {
        let deadline = runtime::now::<R>() + within;
        let index = match self.shared.ask(Question::ReadIndex, within).await? {
            Reply::ReadIndex(index) => index,
            other => return Err(unexpected(within, &other)),
        };
        let left = deadline.saturating_duration_since(runtime::now::<R>());
        let applied = self
            .shared
            .raft
            .wait(Some(left))
            .applied_index_at_least(index, "a confirmed read")
            .await;
        applied.map_err(|error| KvdbError::Unavailable {
            within,
            last: error.to_string(),
        })?;
        Ok(self.catalog())
    }
}

fn unexpected<R: Runtime>(within: Duration, reply: &Reply<R>) -> KvdbError {
    KvdbError::Unavailable {
        within,
        last: format!("another question was answered: {reply:?}"),
    }
}

impl<R: Runtime> Shared<R> {
    async fn ask(&self, question: Question, within: Duration) -> Result<Reply<R>, KvdbError> {
        let deadline = runtime::now::<R>() + within;
        let mut changes = self.raft.metrics();
        loop {
            let stopped = changes.borrow_and_update().running_state.clone().err();
            if let Some(fatal) = stopped {
                let answered = match fatal {
                    Fatal::Stopped => None,
                    _ => self.ask_others(&question, deadline).await,
                };
                return answered.ok_or(KvdbError::Stopped(fatal.to_string()));
            }
            let last = match self.attempt(&question, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(reason) => reason,
            };
            let left = deadline.saturating_duration_since(runtime::now::<R>());
            if left.is_zero() {
                return Err(KvdbError::Unavailable { within, last });
            }
            // Either way it is time to try again; a closed channel shows in `running_state`.
            drop(runtime::timeout::<R, _>(left.min(ATTEMPT_PAUSE), changes.changed()).await);
        }
    }

    /// kvdb has failed on this node, mostly because its disk failed. What the node gives up then (its primary's rights) is to be
    /// noted all the same, also when the others first have to elect a leader in its place; a read would wait for this node's own copy,
    /// which stays where it is.
    async fn ask_others(&self, question: &Question, deadline: InstantOf<R>) -> Option<Reply<R>> {
        if !matches!(question, Question::Propose(_)) {
            return None;
        }
        loop {
            if let Ok(reply) = self.attempt(question, deadline).await {
                return Some(reply);
            }
            let left = deadline.saturating_duration_since(runtime::now::<R>());
            if left.is_zero() {
                return None;
            }
            runtime::sleep::<R>(left.min(ATTEMPT_PAUSE)).await;
        }
    }

    /// Tries this node, then the leader that it knows, then one other node after the other.
    async fn attempt(
        &self,
        question: &Question,
        deadline: InstantOf<R>,
    ) -> Result<Reply<R>, String> {
        let mut leader = None;
        let mut last = match self.answer_as_leader(question, deadline).await {
            Reply::NotLeader { leader: known } => {
                leader = known;
                "this node does not lead".to_owned()
            }
            Reply::Failed(reason) => reason,
            reply => return Ok(reply),
        };
        let mut asked = vec![self.config.node];
        let others: Vec<NodeId> = self.others();
        for (node, may_forward) in leader
            .into_iter()
            .map(|leader| (leader, false))
            .chain(others.into_iter().map(|node| (node, true)))
        {
            if asked.contains(&node) || runtime::now::<R>() >= deadline {
                continue;
            }
            asked.push(node);
            match self.ask_node(node, question, may_forward, deadline).await {
                Ok(Reply::NotLeader { leader }) => {
                    last = format!("{node} does not lead, and knows {leader:?}")
                }
                Ok(Reply::Failed(reason)) => last = format!("{node}: {reason}"),
                Ok(reply) => return Ok(reply),
                Err(reason) => last = format!("{node}: {reason}"),
            }
        }
        Err(last)
    }

    /// Voters first, then all other nodes.
    fn others(&self) -> Vec<NodeId> {
        let (voters, learners) = members(&self.raft.metrics().borrow_and_update());
        let known = voters.into_iter().chain(learners).map(|member| member.node);
        known.chain(self.config.nodes.iter().copied()).collect()
    }

    async fn ask_node(
        &self,
        node: NodeId,
        question: &Question,
        may_forward: bool,
        deadline: InstantOf<R>,
    ) -> Result<Reply<R>, String> {
        let within = deadline
            .saturating_duration_since(runtime::now::<R>())
            .min(ATTEMPT_WITHIN);
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let message = Message::<R>::Question {
            generation: self.config.lineage.id(),
            question: question.clone(),
            may_forward,
            within_ms,
        };
        let request = wire::encode_message(&message).map_err(|error| error.to_string())?;
        let answer = self
            .peers
            .call(node, request, within)
            .await
            .map_err(|error| error.to_string())?;
        wire::decode_reply(&answer).map_err(|error| error.to_string())
    }

    /// Answers if this node leads; a peer may ask once removed.
    pub(crate) async fn answer(
        &self,
        question: &Question,
        may_forward: bool,
        within: Duration,
    ) -> Reply<R> {
        let deadline = runtime::now::<R>() + within.min(ATTEMPT_WITHIN);
        match self.answer_as_leader(question, deadline).await {
            Reply::NotLeader {
                leader: Some(leader),
            } if may_forward && leader != self.config.node => {
                let asked = self.ask_node(leader, question, false, deadline).await;
                asked.unwrap_or_else(|reason| Reply::Failed(format!("{leader}: {reason}")))
            }
            reply => reply,
        }
    }

    async fn answer_as_leader(&self, question: &Question, deadline: InstantOf<R>) -> Reply<R> {
        let within = deadline
            .saturating_duration_since(runtime::now::<R>())
            .min(ATTEMPT_WITHIN);
        let answering = async {
            match question {
                Question::Propose(request) => self.commit(request).await,
                Question::ReadIndex => self.read_index().await,
            }
        };
        let late = |_| Reply::Failed("no majority answered the leader in time".to_owned());
        runtime::timeout::<R, _>(within, answering)
            .await
            .unwrap_or_else(late)
    }

    async fn commit(&self, request: &Request) -> Reply<R> {
        // A generation begins with it, and nobody asks for it in one.
        if matches!(request.command, Command::ForceGeneration { .. }) {
            return Reply::Failed("a generation is not forced by a majority".to_owned());
        }
        match self.raft.client_write(Proposal(request.clone())).await {
            Ok(written) => Reply::Answer(written.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => not_leader(&to),
            Err(error) => Reply::Failed(error.to_string()),
        }
    }

    async fn read_index(&self) -> Reply<R> {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Reply::ReadIndex(Some(read.index())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => not_leader(&to),
            Err(error) => Reply::Failed(error.to_string()),
        }
    }
}

fn not_leader<R: Runtime>(to: &ForwardToLeader<Types<R>>) -> Reply<R> {
    Reply::NotLeader {
        leader: to.leader_id.map(|leader| leader.node),
    }
}

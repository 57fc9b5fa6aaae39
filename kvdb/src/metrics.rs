//! How kvdb is, as this node sees it.

use isthmus_engine::NodeId;
use openraft::Instant as _;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::group::{MemberId, Types};
use crate::runtime::Runtime;

/// How kvdb is, as this node sees it. Only the leader knows of contacts; a leader that is cut off still believes to lead
/// for a while: only [`crate::Kvdb::confirm`] proves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvdbMetrics {
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// Whether this node believes to lead.
    pub is_leader: bool,
    /// Raft's term.
    pub term: u64,
    /// The last log index that is applied here.
    pub last_applied: Option<u64>,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Whether a change of members is on its way: until it is committed, majorities of the old and of the new voters count.
    pub is_changing: bool,
    /// Who gets the log without a vote.
    pub learners: BTreeSet<NodeId>,
    /// How long ago each member last answered this leader; none if it never did. Empty on others.
    pub contact: BTreeMap<NodeId, Option<Duration>>,
    /// How long ago a majority last acknowledged this leader.
    pub quorum_contact: Option<Duration>,
    /// Why kvdb has stopped on this node, if it has.
    pub stopped: Option<String>,
}

pub(crate) type RaftMetrics<R> = openraft::RaftMetrics<Types<R>>;

/// The members that may vote, and those that may not.
pub(crate) fn members<R: Runtime>(
    metrics: &RaftMetrics<R>,
) -> (BTreeSet<MemberId>, BTreeSet<MemberId>) {
    let membership = metrics.membership_config.membership();
    (
        membership.voter_ids().collect(),
        membership.learner_ids().collect(),
    )
}

/// How long ago each member last answered, at the leader.
pub(crate) fn contacts<R: Runtime>(
    metrics: &RaftMetrics<R>,
) -> BTreeMap<MemberId, Option<Duration>> {
    let mut contacts = BTreeMap::new();
    for (member, answered) in metrics.heartbeat.iter().flatten() {
        contacts.insert(*member, answered.map(|answered| answered.elapsed()));
    }
    contacts
}

impl KvdbMetrics {
    pub(crate) fn of<R: Runtime>(metrics: &RaftMetrics<R>) -> KvdbMetrics {
        let (voters, learners) = members(metrics);
        let nodes =
            |members: BTreeSet<MemberId>| members.into_iter().map(|member| member.node).collect();
        let is_leader = metrics.current_leader == Some(metrics.id) && metrics.state.is_leader();
        KvdbMetrics {
            leader: metrics.current_leader.map(|leader| leader.node),
            is_leader,
            term: metrics.current_term,
            last_applied: metrics.last_applied.map(|applied| applied.index),
            voters: nodes(voters),
            is_changing: metrics
                .membership_config
                .membership()
                .get_joint_config()
                .len()
                > 1
                || metrics.membership_config.log_id()
                    != metrics.committed_membership_config.log_id(),
            learners: nodes(learners),
            contact: contacts(metrics)
                .into_iter()
                .map(|(member, contact)| (member.node, contact))
                .collect(),
            quorum_contact: metrics
                .last_quorum_acked
                .filter(|_| is_leader)
                .map(|acknowledged| acknowledged.elapsed()),
            stopped: metrics
                .running_state
                .as_ref()
                .err()
                .map(ToString::to_string),
        }
    }
}

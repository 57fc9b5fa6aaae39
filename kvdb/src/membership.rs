//! The leader makes Raft's membership follow the catalog: every registered node gets the log, and those vote that
//! [`isthmus_catalog::Catalog::voters`] names. One step at a time, each from what is true now, so that it goes on after any
//! interruption, on whichever node leads then.

use isthmus_catalog::{Catalog, DomainRole};
use isthmus_engine::NodeId;
use openraft::{ChangeMembers, EmptyNode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;

use crate::group::MemberId;
use crate::handle::Shared;
use crate::metrics::{RaftMetrics, contacts, members};
use crate::runtime::{self, Instant as _, InstantOf, Runtime, WatchReceiver as _};

/// How often it is looked at without a reason.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A step takes at most so long; then it is looked at again.
const STEP_WITHIN: Duration = Duration::from_secs(5);
/// A learner that lacks no more entries has caught up.
const ENTRIES_BEHIND_MAX: u64 = 16;
/// Bytes of log after which a snapshot is made, however few its entries are.
const LOG_BYTES_MAX: usize = 8 << 20;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The member gets the log.
    AddLearner(MemberId),
    /// Another voter should lead.
    HandOver(MemberId),
    /// Exactly these vote; who voted before becomes a learner.
    SetVoters(BTreeSet<MemberId>),
    /// These stores are gone for good.
    Forget(BTreeSet<MemberId>),
}

/// What the leader knows of the members.
#[derive(Clone, Debug, Default)]
struct Group {
    voters: BTreeSet<MemberId>,
    learners: BTreeSet<MemberId>,
    /// Members that hold (almost) the whole log, and answer.
    caught_up: BTreeSet<MemberId>,
    /// Members that answered lately.
    reachable: BTreeSet<NodeId>,
}

/// Runs until kvdb is dropped.
pub(crate) async fn converge<R: Runtime>(shared: Weak<Shared<R>>) {
    let mut leads_since: Option<InstantOf<R>> = None;
    let Some(mut published) = shared.upgrade().map(|kvdb| kvdb.published()) else {
        return;
    };
    loop {
        let Some(kvdb) = shared.upgrade() else { return };
        let catalog = published.borrow_and_update().clone();
        let metrics = kvdb.raft.metrics().borrow_and_update().clone();
        if metrics.running_state.is_err() {
            return;
        }
        if kvdb.log.bytes() > LOG_BYTES_MAX {
            report("make a snapshot", kvdb.raft.trigger().snapshot().await);
        }
        if metrics.state.is_leader() && metrics.current_leader == Some(metrics.id) {
            let since = *leads_since.get_or_insert_with(runtime::now::<R>);
            let group = kvdb.group(&metrics, since);
            if let Some(step) = next_step(kvdb.member(), &catalog, &group) {
                tracing::info!(?step, "kvdb's membership follows the catalog");
                if runtime::timeout::<R, _>(STEP_WITHIN, kvdb.take_step(step))
                    .await
                    .is_err()
                {
                    tracing::warn!("a change of kvdb's members takes long; it is tried again");
                }
            }
        } else {
            leads_since = None;
        }
        drop(kvdb);
        // A change of the catalog is a reason to look earlier; its end is the end of Raft here.
        if let Ok(Err(_)) = runtime::timeout::<R, _>(LOOK_EVERY, published.changed()).await {
            return;
        }
    }
}

fn report<E: std::fmt::Display>(what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        tracing::warn!(%error, "kvdb could not {what}; it is tried again");
    }
}

impl<R: Runtime> Shared<R> {
    fn group(&self, metrics: &RaftMetrics<R>, leads_since: InstantOf<R>) -> Group {
        let (voters, learners) = members(metrics);
        let last_index = metrics.last_log_index.unwrap_or(0);
        // A new leader has not heard of anybody yet: it takes nobody for unreachable before it had the time to.
        let is_new = leads_since.elapsed() < self.config.reachable_within;
        let contacts = contacts(metrics);
        let mut group = Group {
            voters,
            learners,
            ..Group::default()
        };
        for member in group.voters.iter().chain(&group.learners) {
            let answered = contacts.get(member).copied().flatten();
            let is_self = *member == self.member();
            let answers = is_self || answered.is_some_and(|ago| ago < self.config.reachable_within);
            if answers || is_new {
                group.reachable.insert(member.node);
            }
            let matched = metrics
                .replication
                .as_ref()
                .and_then(|all| all.get(member))
                .and_then(|log_id| *log_id);
            let holds_log =
                matched.is_some_and(|matched| matched.index + ENTRIES_BEHIND_MAX >= last_index);
            if is_self || (answers && holds_log) {
                group.caught_up.insert(*member);
            }
        }
        group
    }

    async fn take_step(&self, step: Step) {
        match step {
            Step::AddLearner(member) => {
                let added = self.raft.add_learner(member, EmptyNode::new(), false).await;
                report("add a learner", added.map(drop));
            }
            Step::HandOver(to) => self.hand_over(to).await,
            Step::SetVoters(voters) => {
                let changed = self.raft.change_membership(voters, true).await;
                report("change the voters", changed.map(drop));
            }
            Step::Forget(gone) => {
                let changed = self
                    .raft
                    .change_membership(ChangeMembers::RemoveNodes(gone), true)
                    .await;
                report("forget members", changed.map(drop));
            }
        }
    }

    async fn hand_over(&self, to: MemberId) {
        let mut changes = self.raft.metrics();
        report(
            "hand the leadership over",
            self.raft.trigger().transfer_leader(to).await,
        );
        let me = self.member();
        while changes.borrow_and_update().current_leader == Some(me) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The members that the catalog wants: registered nodes with the incarnation of their store, in its generation.
fn registered(catalog: &Catalog) -> BTreeMap<NodeId, MemberId> {
    let member = |node, incarnation| (node, MemberId::of(node, incarnation, &catalog.lineage));
    catalog
        .nodes
        .iter()
        .filter_map(|(node, record)| Some(member(*node, record.incarnation?)))
        .collect()
}

/// One step from the group as it is towards the one that the catalog wants; none when it is so.
fn next_step(me: MemberId, catalog: &Catalog, group: &Group) -> Option<Step> {
    let registered = registered(catalog);
    if registered.is_empty() {
        return None;
    }
    let known =
        |member: &MemberId| group.voters.contains(member) || group.learners.contains(member);
    if let Some(member) = registered.values().find(|member| !known(member)) {
        return Some(Step::AddLearner(*member));
    }
    let is_registered = |member: &MemberId| registered.get(&member.node) == Some(member);
    let current: BTreeSet<NodeId> = group
        .voters
        .iter()
        .filter(|member| is_registered(member))
        .map(|member| member.node)
        .collect();
    let desired = catalog.voters(&group.reachable, &current);
    let desired: BTreeSet<MemberId> = desired
        .iter()
        .filter_map(|node| registered.get(node).copied())
        .collect();
    if let Some(to) = successor(me, catalog, group, &desired) {
        return Some(Step::HandOver(to));
    }
    let voters = voters_for_now(catalog, group, &desired, is_registered);
    if !voters.is_empty() && voters != group.voters {
        return Some(Step::SetVoters(voters));
    }
    let gone: BTreeSet<MemberId> = group
        .learners
        .iter()
        .filter(|member| !is_registered(member))
        .copied()
        .collect();
    (!gone.is_empty()).then_some(Step::Forget(gone))
}

/// Who votes of the desired ones already, or could: and, while others are still missing, who votes in their place now and may.
fn voters_for_now(
    catalog: &Catalog,
    group: &Group,
    desired: &BTreeSet<MemberId>,
    is_registered: impl Fn(&MemberId) -> bool,
) -> BTreeSet<MemberId> {
    let is_ready =
        |member: &MemberId| group.voters.contains(member) || group.caught_up.contains(member);
    let (ready, missing): (BTreeSet<MemberId>, BTreeSet<MemberId>) =
        desired.iter().copied().partition(is_ready);
    // Who answers will have caught up soon: better one change than two, of which the first may need everybody.
    let may_vote =
        |member: &MemberId| is_registered(member) && catalog.in_active_domain(member.node);
    if missing
        .iter()
        .any(|member| group.reachable.contains(&member.node))
        && group.voters.iter().all(may_vote)
    {
        return group.voters.clone();
    }
    let domain = |member: &MemberId| catalog.nodes.get(&member.node).map(|node| node.domain);
    let stands_in = |member: &&MemberId| {
        let for_missing = missing
            .iter()
            .any(|missing| domain(missing) == domain(member));
        for_missing && may_vote(member)
    };
    ready
        .iter()
        .chain(group.voters.iter().filter(stands_in))
        .copied()
        .collect()
}

/// Who should lead instead of this node: when it is a witness, or is not to vote any more, a desired voter that votes already
/// and holds the log; a data node before a witness.
fn successor(
    me: MemberId,
    catalog: &Catalog,
    group: &Group,
    desired: &BTreeSet<MemberId>,
) -> Option<MemberId> {
    let is_witness = |member: &MemberId| {
        let domain = catalog
            .nodes
            .get(&member.node)
            .and_then(|node| catalog.domains.get(&node.domain));
        domain.is_none_or(|domain| domain.role == DomainRole::Witness)
    };
    let may_lead = |member: &&MemberId| {
        **member != me && group.voters.contains(member) && group.caught_up.contains(member)
    };
    let data = desired
        .iter()
        .filter(|member| !is_witness(member))
        .find(may_lead);
    if desired.contains(&me) && !is_witness(&me) {
        return None;
    }
    let witness = desired
        .iter()
        .find(may_lead)
        .filter(|_| !desired.contains(&me));
    data.or(witness).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_catalog::{DomainRecord, DomainState, NodeRecord};
    use isthmus_engine::{DomainId, Incarnation};

    fn member(node: u32) -> MemberId {
        MemberId {
            node: NodeId(node),
            incarnation: Incarnation(u64::from(node)),
        }
    }

    fn all(nodes: &[u32]) -> BTreeSet<MemberId> {
        nodes.iter().map(|node| member(*node)).collect()
    }

    /// Nodes 1 and 2 in data domains, 3 in the witness's; all registered.
    fn catalog() -> Catalog {
        let mut catalog = Catalog {
            cluster_id: 1,
            ..Catalog::default()
        };
        for id in 1..=3 {
            let role = if id == 3 {
                DomainRole::Witness
            } else {
                DomainRole::Data
            };
            let name = format!("d{id}");
            let domain = DomainRecord {
                name,
                role,
                state: DomainState::Active,
                since_ms: 0,
                created_ms: 0,
            };
            catalog.domains.insert(DomainId(id), domain);
            let node = NodeRecord {
                name: format!("n{id}"),
                domain: DomainId(id),
                peer_address: String::new(),
                api_address: String::new(),
                nbd_address: None,
                incarnation: Some(member(id).incarnation),
                starts: 1,
            };
            catalog.nodes.insert(NodeId(id), node);
        }
        catalog
    }

    fn group(voters: &[u32], learners: &[u32], caught_up: &[u32], reachable: &[u32]) -> Group {
        Group {
            voters: all(voters),
            learners: all(learners),
            caught_up: all(caught_up),
            reachable: reachable.iter().map(|node| NodeId(*node)).collect(),
        }
    }

    #[test]
    fn registered_nodes_get_the_log_before_they_vote() {
        let alone = group(&[1], &[], &[1], &[1]);
        assert_eq!(
            next_step(member(1), &catalog(), &alone),
            Some(Step::AddLearner(member(2)))
        );
        let behind = group(&[1], &[2, 3], &[1, 2], &[1, 2, 3]);
        assert_eq!(
            next_step(member(1), &catalog(), &behind),
            None,
            "3 is about to catch up: one change, not two"
        );
        let ready = group(&[1], &[2, 3], &[1, 2, 3], &[1, 2, 3]);
        assert_eq!(
            next_step(member(1), &catalog(), &ready),
            Some(Step::SetVoters(all(&[1, 2, 3])))
        );
    }

    #[test]
    fn a_voter_that_does_not_answer_keeps_its_vote_while_its_domain_is_active() {
        let lost = group(&[1, 2, 3], &[], &[1, 2], &[1, 2]);
        assert_eq!(next_step(member(1), &catalog(), &lost), None);
    }

    #[test]
    fn a_leader_whose_domain_is_deactivated_hands_over_first() {
        let mut catalog = catalog();
        catalog.domains.get_mut(&DomainId(1)).unwrap().state = DomainState::Deactivating;
        let whole = group(&[1, 2, 3], &[], &[1, 2, 3], &[1, 2, 3]);
        assert_eq!(
            next_step(member(1), &catalog, &whole),
            Some(Step::HandOver(member(2)))
        );
        assert_eq!(
            next_step(member(2), &catalog, &whole),
            Some(Step::SetVoters(all(&[2])))
        );
    }

    #[test]
    fn a_witness_hands_over_only_to_who_holds_the_log() {
        let behind = group(&[1, 2, 3], &[], &[3], &[3]);
        assert_eq!(next_step(member(3), &catalog(), &behind), None);
        let ready = group(&[1, 2, 3], &[], &[2, 3], &[2, 3]);
        assert_eq!(
            next_step(member(3), &catalog(), &ready),
            Some(Step::HandOver(member(2)))
        );
    }

    #[test]
    fn a_lost_store_loses_its_vote_and_is_forgotten() {
        let mut catalog = catalog();
        let new = MemberId {
            node: NodeId(2),
            incarnation: Incarnation(22),
        };
        catalog.nodes.get_mut(&NodeId(2)).unwrap().incarnation = Some(new.incarnation);
        let mut group = group(&[1, 2, 3], &[], &[1, 3], &[1, 3]);
        assert_eq!(
            next_step(member(1), &catalog, &group),
            Some(Step::AddLearner(new))
        );
        group.learners.insert(new);
        group.caught_up.insert(new);
        let voters: BTreeSet<MemberId> = [member(1), new, member(3)].into();
        assert_eq!(
            next_step(member(1), &catalog, &group),
            Some(Step::SetVoters(voters.clone()))
        );
        group.voters = voters;
        group.learners = all(&[2]);
        assert_eq!(
            next_step(member(1), &catalog, &group),
            Some(Step::Forget(all(&[2])))
        );
    }
}

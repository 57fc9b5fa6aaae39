//! Losing and gaining members while primary: I2 and I6.

use super::{JOIN_BACKOFF, Joiner, Member, Phase, Replica, Role, Stage};
use crate::configuration::View;
use crate::effect::{Effects, ProposalKind};
use crate::ids::{Epoch, NodeId, ReplicaId};
use crate::message::Message;
use crate::time::Time;
use isthmus_mutation::Mutation;
use std::collections::BTreeSet;

impl Replica {
    /// A newer epoch keeps this replica primary: the members are now those of its set, and joiners as long as they may join.
    pub(super) fn reform_members(&mut self, now: Time, effects: &mut Effects) {
        let in_sync = self.configuration.in_sync.clone();
        let eligible = self.eligible();
        let configuration = self.configuration.clone();
        let adopted = self.adopted;
        let me = self.me;
        let Some(primary) = self.primary_mut() else {
            return;
        };
        // Whoever had taken this epoch already has passed over what was asked for under the one before.
        primary.syncing = None;
        // This epoch either took an asked-for joiner in, or leaves it out: the older question is void (I6).
        primary.members.retain(|_, member| {
            in_sync.contains(&member.replica)
                || (member.joiner.is_some() && eligible.contains(&member.replica))
        });
        for member in primary.members.values_mut() {
            member.durable = crate::ids::Seq::ZERO;
            member.held = crate::ids::Seq::ZERO;
            match &mut member.joiner {
                Some(_) if in_sync.contains(&member.replica) => member.joiner = None,
                Some(joiner) => joiner.asked = false,
                None => {}
            }
        }
        for replica in in_sync.iter().filter(|replica| **replica != me) {
            primary
                .members
                .entry(replica.node)
                .or_insert_with(|| Member::new(*replica, now));
        }
        let stages: Vec<(NodeId, Stage)> = primary
            .members
            .iter()
            .map(|(node, member)| (*node, member.stage))
            .collect();
        for (node, stage) in stages {
            match stage {
                Stage::Aligned => self.send(
                    node,
                    Message::Configure {
                        configuration: configuration.clone(),
                    },
                    Some(adopted),
                    effects,
                ),
                Stage::Prepared | Stage::Unreached => self.prepare_member(now, node, effects),
            }
        }
        self.renew_soon(now, effects);
        self.step(now, effects);
    }

    /// A member's session is gone.
    pub(super) fn member_lost(&mut self, now: Time, node: NodeId, effects: &mut Effects) {
        let Some(primary) = self.primary_mut() else {
            return;
        };
        let Some(member) = primary.members.get_mut(&node) else {
            return;
        };
        member.stage = Stage::Unreached;
        member.durable = crate::ids::Seq::ZERO;
        member.held = crate::ids::Seq::ZERO;
        member.lost.get_or_insert(now);
        // Never asked for: kvdb can't have added it, so it need not be waited for.
        if !member.is_member_perhaps() {
            primary.members.remove(&node);
            primary.join_tried.insert(node, now);
        }
        self.step(now, effects);
    }

    /// A member knows a newer epoch than what was sent to it, from kvdb, and has refused that (I4). If the newer epoch keeps this
    /// replica primary, what was refused is missing there: the logs are compared again under it. The epoch itself comes from kvdb;
    /// a peer's word alone ends nothing.
    pub(super) fn on_stale(
        &mut self,
        now: Time,
        from: NodeId,
        epoch: Epoch,
        effects: &mut Effects,
    ) {
        let current = self.configuration.epoch;
        let Some(member) = self
            .primary_mut()
            .and_then(|primary| primary.members.get_mut(&from))
            .filter(|member| member.stage == Stage::Aligned && epoch >= current)
        else {
            return;
        };
        member.durable = crate::ids::Seq::ZERO;
        member.held = crate::ids::Seq::ZERO;
        member.stage = Stage::Unreached;
        // Not at that epoch yet: `reform_members` greets it then.
        if epoch == current {
            self.prepare_member(now, from, effects);
        }
    }

    /// A member or joiner says that its disk does not let it take part: it is asked out of the set at once (I2 holds as ever:
    /// nothing is acknowledged without it before that is committed), or greeted again, in case it can after all.
    pub(super) fn on_unable(&mut self, now: Time, from: NodeId, effects: &mut Effects) {
        let Some(member) = self
            .primary_mut()
            .and_then(|primary| primary.members.get_mut(&from))
        else {
            return;
        };
        member.unable = true;
        member.heard = now;
        member.durable = crate::ids::Seq::ZERO;
        member.held = crate::ids::Seq::ZERO;
        member.stage = Stage::Prepared;
        member.prepared = now;
        self.shrink(now, effects);
        // One that has lost its records waits for that, too: until then an accepted loss could put it into service.
        self.note_copy_first(now, from, effects);
        self.drop_joiners(now, effects);
    }

    /// A joiner has answered, so it will be copied over: from the first copied block on it must not serve, not even where the operator
    /// accepts a loss. If it is complete yet, kvdb is asked to note that it is not (and the joiner is greeted again later): returns
    /// whether that is so.
    pub(super) fn note_copy_first(
        &mut self,
        now: Time,
        joiner: NodeId,
        effects: &mut Effects,
    ) -> bool {
        let (Some(view), Role::Primary(primary)) = (&self.view, &self.role) else {
            return false;
        };
        let member = primary.members.get(&joiner);
        let Some(replica) = member
            .filter(|member| !member.is_member_perhaps())
            .map(|member| member.replica)
            .filter(|replica| view.complete.contains(replica))
        else {
            return false;
        };
        let replicas = BTreeSet::from([replica]);
        self.propose(now, ProposalKind::BeginCopy, replicas, effects);
        true
    }

    /// A joiner says that it has copied everything.
    pub(super) fn on_copied_by(
        &mut self,
        now: Time,
        from: NodeId,
        epoch: Epoch,
        effects: &mut Effects,
    ) {
        let current = self.configuration.epoch;
        let Some(primary) = self.primary_mut() else {
            return;
        };
        let Some(member) = primary.members.get_mut(&from) else {
            return;
        };
        if epoch != current || member.stage != Stage::Aligned {
            return;
        }
        member.heard = now;
        if let Some(joiner) = &mut member.joiner {
            joiner.copied = true;
        }
        self.grow(now, effects);
    }

    /// Looks after lost members and waiting joiners.
    pub(super) fn watch_members(&mut self, now: Time, effects: &mut Effects) {
        self.remind_members(now, effects);
        self.shrink(now, effects);
        self.drop_joiners(now, effects);
        self.grow(now, effects);
        self.invite(now, effects);
        self.tell_who_caught_up(now, effects);
    }

    /// `Prepare` may have met a member that could not take the epoch yet.
    fn remind_members(&mut self, now: Time, effects: &mut Effects) {
        let patience = self.settings.reconnect_grace();
        let Some(primary) = self.primary_mut() else {
            return;
        };
        let waiting: Vec<NodeId> = primary
            .members
            .iter()
            .filter(|(_, member)| {
                member.stage == Stage::Prepared && now.since(member.prepared) >= patience
            })
            .map(|(node, _)| *node)
            .collect();
        for node in waiting {
            self.prepare_member(now, node, effects);
        }
    }

    /// Members that don't answer, or not fast enough, are asked out of the set, where the policy allows it (I2): nothing is acknowledged without
    /// them before the commit has been seen.
    fn shrink(&mut self, now: Time, effects: &mut Effects) {
        let Role::Primary(primary) = &self.role else {
            return;
        };
        let Some(view) = &self.view else { return };
        if primary.phase == Phase::Releasing || view.configuration.epoch != self.configuration.epoch
        {
            return;
        }
        let lost: BTreeSet<ReplicaId> = primary
            .members
            .values()
            .filter(|member| {
                member.joiner.is_none()
                    && (self.is_lost(now, view, member)
                        || self.leaves_for_its_link(view, primary.phase, member.replica.node))
            })
            .map(|member| member.replica)
            .collect();
        let leaving: BTreeSet<ReplicaId> = lost
            .iter()
            .filter(|replica| {
                let domain = view.domains.get(&replica.node);
                let stays = |other: &&ReplicaId| {
                    view.domains.get(&other.node) == domain && !lost.contains(other)
                };
                view.may_degrade || self.configuration.in_sync.iter().any(|other| stays(&other))
            })
            .copied()
            .collect();
        if Mutation::ShrinkWithoutCommit.is_on()
            && let Some(primary) = self.primary_mut()
        {
            primary
                .members
                .retain(|_, member| !leaving.contains(&member.replica));
        }
        if !leaving.is_empty() {
            self.propose(now, ProposalKind::Shrink, leaving, effects);
        }
    }

    fn is_lost(&self, now: Time, view: &View, member: &Member) -> bool {
        let Role::Primary(primary) = &self.role else {
            return false;
        };
        // It says so itself: there is nothing to wait for.
        if member.unable {
            return true;
        }
        let timeout = self.settings.replica_timeout;
        // Where only the link is cut, the preferred site asks first.
        let preferred = view
            .preferred_domain
            .is_none_or(|domain| view.domains.get(&self.me.node) == Some(&domain));
        let is_mate = view.domains.get(&self.me.node) == view.domains.get(&member.replica.node);
        let extra = if preferred || is_mate {
            std::time::Duration::ZERO
        } else {
            timeout
        };
        if member
            .lost
            .is_some_and(|since| now.since(since) >= self.settings.reconnect_grace() + extra)
        {
            return true;
        }
        let silent = now.since(member.heard) >= timeout + extra;
        silent || self.is_overdue(now, primary, member, timeout + extra)
    }

    /// Whether a member has had `patience` for a write, or for a sync, that this replica's own journal has done. What that has not done
    /// either says nothing about the member.
    fn is_overdue(
        &self,
        now: Time,
        primary: &super::Primary,
        member: &Member,
        patience: std::time::Duration,
    ) -> bool {
        let write = primary.pending.front().is_some_and(|(seq, _, came)| {
            member.held < *seq && self.log.held() >= *seq && now.since(*came) >= patience
        });
        let sync = primary.syncing.is_some_and(|asked| {
            member.durable < asked.first
                && self.log.durable() >= asked.first
                && now.since(asked.since) >= patience
        });
        write || sync
    }

    fn drop_joiners(&mut self, now: Time, effects: &mut Effects) {
        let timeout = self.settings.replica_timeout;
        let may_join = self.may_join();
        let Some(primary) = self.primary_mut() else {
            return;
        };
        let gone: Vec<(NodeId, bool)> = primary
            .members
            .iter()
            .filter_map(|(node, member)| {
                let joiner = member.joiner?;
                let overdue = primary.pending.front().is_some_and(|(seq, _, came)| {
                    member.held < *seq && now.since(*came) >= timeout
                }) || primary.syncing.is_some_and(|asked| {
                    member.durable < asked.first && now.since(asked.since) >= timeout
                });
                let lost = member.lost.is_some()
                    || member.unable
                    || now.since(member.heard) >= timeout
                    || overdue
                    || !may_join.contains(&member.replica);
                lost.then_some((*node, joiner.asked))
            })
            .collect();
        for (node, asked) in gone {
            if asked {
                // kvdb may have added it: only a newer epoch says that it did not (I6).
                self.propose(now, ProposalKind::Renew, BTreeSet::new(), effects);
            } else if let Some(primary) = self.primary_mut() {
                primary.members.remove(&node);
                primary.join_tried.insert(node, now);
                self.step(now, effects);
            }
        }
    }

    /// Asks kvdb to take a joiner into the set that holds everything and has promised (I6).
    fn grow(&mut self, now: Time, effects: &mut Effects) {
        let committed = self.log.committed();
        let Role::Primary(primary) = &self.role else {
            return;
        };
        if primary.phase != Phase::Serving || !self.configuration.opened {
            return;
        }
        let ready = primary.members.values().find(|member| {
            // Asked for already and no newer epoch seen: the question may have been lost. Asking again is harmless, since
            // kvdb compares the epoch.
            member
                .joiner
                .is_some_and(|joiner| joiner.copied || Mutation::GrowBeforeCopied.is_on())
                && member.stage == Stage::Aligned
                && member.durable >= committed
                && member.held >= primary.answered
                && member.grant_until > now
        });
        let Some(replica) = ready.map(|member| member.replica) else {
            return;
        };
        if self.propose(now, ProposalKind::Grow, BTreeSet::from([replica]), effects)
            && let Some(member) = self
                .primary_mut()
                .and_then(|primary| primary.members.get_mut(&replica.node))
            && let Some(joiner) = &mut member.joiner
        {
            joiner.asked = true;
        }
    }

    /// Greets replicas that may join and aren't in the set. What has to be noted before they are copied over:
    /// see `note_copy_first`.
    fn invite(&mut self, now: Time, effects: &mut Effects) {
        let Some(view) = &self.view else { return };
        if view.configuration.epoch != self.configuration.epoch {
            return;
        }
        let may_join = self.may_join();
        let in_sync = self.configuration.in_sync.clone();
        let sessions = self.sessions.clone();
        let me = self.me;
        let Some(primary) = self.primary_mut() else {
            return;
        };
        if primary.phase != Phase::Serving {
            return;
        }
        let mut invited = Vec::new();
        for replica in may_join
            .difference(&in_sync)
            .filter(|replica| replica.node != me.node && sessions.contains(&replica.node))
        {
            let tried = primary
                .join_tried
                .get(&replica.node)
                .is_some_and(|at| now.since(*at) < JOIN_BACKOFF);
            if tried || primary.members.contains_key(&replica.node) {
                continue;
            }
            let mut member = Member::new(*replica, now);
            member.joiner = Some(Joiner {
                copied: false,
                asked: false,
            });
            primary.members.insert(replica.node, member);
            primary.join_tried.insert(replica.node, now);
            invited.push(replica.node);
        }
        for node in invited {
            self.prepare_member(now, node, effects);
        }
    }
}

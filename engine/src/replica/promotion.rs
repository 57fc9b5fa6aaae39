//! Becoming primary: I3 and I5.
//!
//! The new primary's log is the truth beyond the committed position. Each member says where its log ends, drops what differs
//! (`Rewind`) and takes the new primary's entries. When all logs end alike, durably, kvdb commits `Opened`; only that makes
//! everything in them committed. Until then no committed position moves, so that another promotion may decide otherwise.

use super::{Member, Phase, Primary, Replica, Role, Stage, TICK};
use crate::effect::{Effect, Effects, ProposalKind};
use crate::history::History;
use crate::ids::{Epoch, NodeId, ReplicaId, Seq};
use crate::message::Message;
use crate::time::Time;
use isthmus_mutation::Mutation;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

impl Member {
    pub(super) fn new(replica: ReplicaId, now: Time) -> Member {
        Member {
            replica,
            stage: Stage::Unreached,
            durable: Seq::ZERO,
            held: Seq::ZERO,
            grant_until: Time::default(),
            heard: now,
            lost: None,
            prepared: now,
            unable: false,
            joiner: None,
        }
    }

    /// Whether writes and grants wait for it: members of the set always, joiners from when records go to them, and from when
    /// kvdb was asked to add them also while they are away, until a newer epoch says what came of it (I6).
    pub(super) fn counts(&self) -> bool {
        if Mutation::JoinerDoesNotCount.is_on() {
            return self.joiner.is_none();
        }
        self.is_member_perhaps() || self.stage == Stage::Aligned
    }

    /// Whether it is in the set, for all that is known here: kvdb may have added a joiner that it was asked to.
    pub(super) fn is_member_perhaps(&self) -> bool {
        self.joiner.is_none_or(|joiner| joiner.asked)
    }
}

impl Replica {
    /// Clients want this replica to serve (or no more).
    pub fn want(&mut self, now: Time, wanted: bool, effects: &mut Effects) {
        self.wanted = wanted;
        self.next_tick = self.next_tick.min(now);
        if self.damaged.is_none() {
            self.step(now, effects);
        }
    }

    /// Whether clients want this replica to serve.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Asks kvdb for the primary's role, where clients want it and nobody else has it.
    pub(super) fn seek_promotion(&mut self, now: Time, effects: &mut Effects) {
        let Some(view) = &self.view else { return };
        let may_have_it = match view.configuration.primary {
            None => self.wanted,
            Some(_) => self.may_take_over(now),
        };
        let Some(view) = self.view.as_ref().filter(|_| may_have_it && self.whole) else {
            return;
        };
        // kvdb would refuse it.
        if view.eligible.is_empty() {
            return;
        }
        // It may lack what another member has kept (kvdb would refuse it, too): that one brings it back first.
        if view.rebooted.contains(&self.me) {
            return;
        }
        // Before `opened`, kvdb may go back to the set of the last opened epoch: it decides whether this replica is in it.
        if view.configuration.in_sync.contains(&self.me) || !view.configuration.opened {
            self.propose(now, ProposalKind::Promote, BTreeSet::new(), effects);
        }
    }

    /// Whether kvdb names a primary in this replica's domain that this replica has no session with, while it is in the set: then it may take
    /// over without anybody's word.
    #[must_use]
    pub fn misses_its_primary(&self) -> bool {
        let Some(view) = &self.view else { return false };
        let Some(primary) = view.configuration.primary else {
            return false;
        };
        let domain = |node: NodeId| view.domains.get(&node);
        primary.node != self.me.node
            && domain(primary.node).is_some()
            && domain(primary.node) == domain(self.me.node)
            && view.configuration.in_sync.contains(&self.me)
            && !self.sessions.contains(&primary.node)
            && self.damaged.is_none()
            && self.unable.is_none()
    }

    /// Whether the primary in this domain has been gone for long enough. What this replica has promised to it is over by then, so that it serves
    /// nothing any more; had it found this one missing, it would have asked it out of the set by now.
    fn may_take_over(&self, now: Time) -> bool {
        let promise_is_over = self.given.is_none_or(|given| given.until < now);
        let opened = (self.view.as_ref()).is_some_and(|view| view.configuration.opened);
        // Who has only just been promoted gets the time to ask this one out.
        let timeout = self.settings.replica_timeout * if opened { 1 } else { 2 };
        self.misses_its_primary()
            && promise_is_over
            && self
                .primary_gone_since
                .is_some_and(|since| now.since(since) >= timeout)
    }

    /// A session or the view has changed: since when is the primary missed?
    pub(super) fn look_for_primary(&mut self, now: Time) {
        if self.misses_its_primary() {
            self.primary_gone_since.get_or_insert(now);
            self.next_tick = self.next_tick.min(now + TICK);
        } else {
            self.primary_gone_since = None;
        }
    }

    /// kvdb has made this replica primary, and the epoch is on its way to the journal.
    pub(super) fn begin_promotion(&mut self, now: Time, effects: &mut Effects) {
        let Some(view) = &self.view else { return };
        // Every primary before needed a grant of every member of its set. If this replica was one, its own promise was seen out
        // when it took the epoch. If not, the only grant that could be out is kvdb's, and none was given after this view.
        let fenced = view.released || view.granted_set.contains(&self.me);
        let wait_until = if fenced {
            now
        } else {
            now + self.settings.lease_of_giver()
        };
        let members: BTreeMap<NodeId, Member> = self
            .configuration
            .in_sync
            .iter()
            .filter(|replica| **replica != self.me)
            .map(|replica| {
                let mut member = Member::new(*replica, now);
                // One in the same site that is not reached takes over soon, unless it is asked out before.
                let is_mate = view.domains.get(&replica.node) == view.domains.get(&self.me.node);
                if is_mate && !self.sessions.contains(&replica.node) {
                    member.lost = Some(now);
                }
                (replica.node, member)
            })
            .collect();
        let nodes: Vec<NodeId> = members.keys().copied().collect();
        self.role = Role::Primary(Box::new(Primary {
            phase: Phase::Promoting,
            members,
            pending: VecDeque::new(),
            flushes: Vec::new(),
            answered: Seq::ZERO,
            syncing: None,
            reads: BTreeMap::new(),
            kvdb_until: Time::default(),
            kvdb_asked: None,
            wait_until,
            next_renewal: now,
            join_tried: BTreeMap::new(),
        }));
        for node in nodes {
            self.prepare_member(now, node, effects);
        }
        self.next_tick = self.next_tick.min(now);
    }

    /// Says `Prepare` to a member that has a session.
    pub(super) fn prepare_member(&mut self, now: Time, node: NodeId, effects: &mut Effects) {
        if !self.sessions.contains(&node) {
            return;
        }
        let configuration = self.configuration.clone();
        let adopted = self.adopted;
        let Some(primary) = self.primary_mut() else {
            return;
        };
        let Some(member) = primary.members.get_mut(&node) else {
            return;
        };
        member.stage = Stage::Prepared;
        member.lost = None;
        member.prepared = now;
        self.send(
            node,
            Message::Prepare { configuration },
            Some(adopted),
            effects,
        );
    }

    /// A member or joiner says where its log ends.
    pub(super) fn on_report(
        &mut self,
        now: Time,
        from: NodeId,
        epoch: Epoch,
        theirs: (History, Seq, Seq),
        effects: &mut Effects,
    ) {
        let (history, end, committed) = theirs;
        let ours = self.log.committed();
        if epoch != self.configuration.epoch || !history.is_sound() || committed > end {
            return;
        }
        let common = self.log.history().common(self.log.end(), &history, end);
        let Some(primary) = self.primary_mut() else {
            return;
        };
        let Some(member) = primary.members.get_mut(&from) else {
            return;
        };
        if member.stage != Stage::Prepared {
            return;
        }
        member.heard = now;
        member.unable = false;
        if self.note_copy_first(now, from, effects) {
            return;
        }
        let Some(member) = self
            .primary_mut()
            .and_then(|primary| primary.members.get_mut(&from))
        else {
            return;
        };
        member.stage = Stage::Aligned;
        member.durable = Seq::ZERO;
        member.held = Seq::ZERO;
        if !member.is_member_perhaps() {
            if let Some(joiner) = &mut member.joiner {
                joiner.copied = false;
            }
            let mut history = self.log.history().clone();
            history.cut(ours);
            // The host adds its dirty map of the joiner, if that reaches back to `common`.
            self.send(
                from,
                Message::Join {
                    epoch,
                    common,
                    start: ours,
                    history,
                    dirty: None,
                },
                None,
                effects,
            );
            self.send_entries_after(from, ours, effects);
        } else {
            let Some(common) = common.filter(|common| *common >= ours && *common >= committed)
            else {
                if member.joiner.is_some() {
                    // Not what was asked for any more: a newer epoch is to leave it out.
                    member.stage = Stage::Unreached;
                    member.lost = Some(now);
                    return;
                }
                let reason = format!(
                    "{from} is in the in-sync set of epoch {epoch}, but its log (end {end}, committed {committed}) and ours (end {}, committed {ours}) have only {common:?} in common",
                    self.log.end()
                );
                self.damage(reason, effects);
                return;
            };
            self.send(from, Message::Rewind { epoch, to: common }, None, effects);
            self.send_entries_after(from, common, effects);
        }
        if self.answers_held() && self.log.end() > self.log.committed() {
            // Nobody opens, and no flush ends, before these are durable there.
            self.send(from, Message::Sync { epoch }, None, effects);
        }
        self.renew_soon(now, effects);
        self.step(now, effects);
    }

    fn send_entries_after(&self, to: NodeId, after: Seq, effects: &mut Effects) {
        let (epoch, committed) = (self.configuration.epoch, self.log.committed());
        for entry in self.log.tail().filter(|entry| entry.position.seq > after) {
            self.send(
                to,
                Message::Append {
                    epoch,
                    entry: *entry,
                    committed,
                },
                None,
                effects,
            );
        }
    }

    /// Asks kvdb to open once nothing is in doubt any more.
    pub(super) fn promote(&mut self, now: Time, effects: &mut Effects) {
        if !self.wanted {
            self.give_back(now, effects);
            return;
        }
        let Role::Primary(primary) = &self.role else {
            return;
        };
        let level = primary
            .members
            .values()
            .all(|member| member.stage == Stage::Aligned && member.durable >= self.log.end())
            || Mutation::OpenWithoutReconciling.is_on();
        if level
            && now >= primary.wait_until
            && self.persisted >= self.adopted
            && self.log.durable() == self.log.end()
        {
            self.propose(now, ProposalKind::Opened, BTreeSet::new(), effects);
        }
    }

    /// kvdb has committed `Opened`: what all members hold is committed, and clients are served.
    pub(super) fn open(&mut self, now: Time, effects: &mut Effects) {
        let end = self.log.end();
        let durable = self.log.durable();
        let Some(primary) = self.primary_mut() else {
            return;
        };
        if durable < end || now < primary.wait_until {
            self.damage(
                "kvdb opened an epoch whose primary had not asked for it".into(),
                effects,
            );
            return;
        }
        primary.phase = Phase::Serving;
        primary.answered = end;
        if self.log.commit(end) > 0 {
            effects.push(Effect::Apply { through: end });
        }
        effects.push(Effect::Serving);
        self.renew_soon(now, effects);
        self.step(now, effects);
    }

    pub(super) fn promotion_waits_for(&self, now: Time, primary: &Primary) -> String {
        if now < primary.wait_until {
            return format!(
                "the grants of the primary before, {} ms more",
                primary.wait_until.since(now).as_millis()
            );
        }
        let missing: Vec<String> = primary
            .members
            .values()
            .filter(|member| member.stage != Stage::Aligned || member.durable < self.log.end())
            .map(|member| member.replica.node.to_string())
            .collect();
        if missing.is_empty() {
            "kvdb to commit that it serves".into()
        } else {
            format!("replicas on {} to agree", missing.join(", "))
        }
    }
}

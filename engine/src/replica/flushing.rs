//! Volumes that answer what is held (durability `flush`): making it durable, and members that lost power.
//!
//! `committed` means the same for them: durable at every counted member. A write is answered when every counted member's kernel has
//! it; a flush makes all members sync what they hold, and is answered when what was answered before it is committed. So that little
//! is in doubt, the primary asks for that by itself, too: at each tick, and when its host finds that much is.
//!
//! A member that lost power may lack what it held. kvdb keeps who did (`View::rebooted`) and does not promote it; it follows, is sent
//! what it lacks, and then kvdb is told (`CaughtUp`, or `Opened`). Why that is enough: `docs/decisions/0016-durability-flush.md`.

use super::{Phase, Primary, Replica, Role, Stage, Syncing};
use crate::effect::{Effect, Effects, ProposalKind};
use crate::ids::{Epoch, NodeId, ReplicaId, Seq};
use crate::log::Token;
use crate::message::Message;
use crate::time::Time;
use isthmus_mutation::Mutation;
use std::collections::BTreeSet;

impl Primary {
    /// Everything up to `committed` is durable everywhere.
    pub(super) fn note_synced(syncing: &mut Option<Syncing>, now: Time, committed: Seq) {
        let Some(asked) = syncing else { return };
        if committed >= asked.last {
            *syncing = None;
        } else if committed >= asked.first {
            // What was asked for later has its time from now.
            asked.first = asked.last;
            asked.since = now;
        }
    }
}

impl Replica {
    /// Whether a write of this volume is answered when every member holds it.
    #[must_use]
    pub fn answers_held(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.answers_held)
    }

    /// Whether a write may be answered now as soon as every member holds it. Not while a member that lost power has not caught up: were
    /// another one to lose power then, kvdb would take it that nobody has kept anything, and what this member holds could be given up.
    pub(super) fn held_is_enough(&self) -> bool {
        self.view
            .as_ref()
            .is_some_and(|view| view.answers_held && view.rebooted.is_empty())
    }

    /// The last write that is answered, and seen by reads; the committed position of one that does not serve.
    #[must_use]
    pub fn answered(&self) -> Seq {
        match &self.role {
            Role::Primary(primary) => primary.answered.max(self.log.committed()),
            Role::Idle | Role::Following(_) => self.log.committed(),
        }
    }

    /// The host finds that much is in doubt: all members are asked to make what they hold durable, unless they are about to.
    pub fn doubt_less(&mut self, now: Time, effects: &mut Effects) {
        if matches!(&self.role, Role::Primary(primary) if primary.syncing.is_none()) {
            self.want_durable(now, effects);
        }
    }

    /// Somebody will wait for what was ordered just now to be durable: all members are asked to make it so.
    pub fn want_durable(&mut self, now: Time, effects: &mut Effects) {
        if self.is_serving() {
            self.make_durable(now, self.log.end(), effects);
        }
    }

    /// Asks all members to make what they hold durable, unless everything up to `through` is, or was asked for.
    pub(super) fn make_durable(&mut self, now: Time, through: Seq, effects: &mut Effects) {
        if !self.answers_held() || through <= self.log.committed() {
            return;
        }
        let end = self.log.end();
        let Some(primary) = self.primary_mut() else {
            return;
        };
        match &mut primary.syncing {
            Some(asked) if asked.last >= through => return,
            Some(asked) => asked.last = end,
            none @ None => {
                let (first, since, last) = (end, now, end);
                *none = Some(Syncing { first, since, last });
            }
        }
        self.ask_to_sync(effects);
    }

    fn ask_to_sync(&mut self, effects: &mut Effects) {
        let (epoch, adopted) = (self.configuration.epoch, self.adopted);
        let Some(primary) = self.primary_mut() else {
            return;
        };
        let aligned = primary.members.iter();
        let aligned: Vec<NodeId> = aligned
            .filter(|(_, member)| member.stage == Stage::Aligned)
            .map(|(node, _)| *node)
            .collect();
        for node in aligned {
            self.send(node, Message::Sync { epoch }, Some(adopted), effects);
        }
        effects.push(Effect::Sync);
    }

    /// Once a tick: nothing that was answered stays long in doubt, nor what can be answered only when it is durable.
    pub(super) fn sync_what_is_answered(&mut self, now: Time, effects: &mut Effects) {
        if !self.is_serving() || !self.answers_held() {
            return;
        }
        let through = match self.held_is_enough() {
            true => self.answered(),
            false => self.log.end(),
        };
        if through <= self.log.committed() {
            return;
        }
        let asked = matches!(&self.role, Role::Primary(primary) if primary.syncing.is_some_and(|asked| asked.last >= through));
        if asked {
            // Again: who has been aligned only since then has not heard of it.
            self.ask_to_sync(effects);
        } else {
            self.make_durable(now, through, effects);
        }
    }

    /// The primary is gone, or about to be: this replica may soon be the only one that counts, and nobody else asks it to sync.
    pub(super) fn sync_what_is_held(&self, effects: &mut Effects) {
        if self.answers_held() && self.log.durable() < self.log.end() {
            effects.push(Effect::Sync);
        }
    }

    /// The primary wants everything that is held here to be durable.
    pub(super) fn on_sync(&mut self, from: NodeId, epoch: Epoch, effects: &mut Effects) {
        let follows = matches!(&self.role, Role::Following(following) if following.primary == from && following.aligned);
        if follows && epoch == self.configuration.epoch && self.log.durable() < self.log.end() {
            effects.push(Effect::Sync);
        }
    }

    /// The kernel has everything handed to the journal up to `token`.
    pub fn on_held(&mut self, now: Time, token: Token, effects: &mut Effects) {
        assert!(
            token <= self.next_token,
            "held {token:?}, handed over {:?}",
            self.next_token
        );
        let before = self.log.held();
        self.log.holds(token);
        if self.damaged.is_some() || self.log.held() == before {
            return;
        }
        match &self.role {
            // Under a durable epoch only: what is held back until then is made up for when it is.
            Role::Following(following) if following.aligned && self.persisted >= self.adopted => {
                let (epoch, held) = (self.configuration.epoch, self.log.held());
                self.send(
                    following.primary,
                    Message::Held { epoch, held },
                    None,
                    effects,
                );
            }
            Role::Following(_) | Role::Idle => {}
            Role::Primary(_) => self.step(now, effects),
        }
    }

    /// Members that lost power and hold everything answered again: from now on each of them may be promoted. They count for all that is
    /// answered from here on; and had one lost power once more, the epoch that this is said for would be over.
    pub(super) fn tell_who_caught_up(&mut self, now: Time, effects: &mut Effects) {
        let (Some(view), Role::Primary(primary)) = (&self.view, &self.role) else {
            return;
        };
        if primary.phase != Phase::Serving || view.configuration.epoch != self.configuration.epoch {
            return;
        }
        let holds_all = |replica: &&ReplicaId| {
            primary.members.get(&replica.node).is_some_and(|member| {
                member.replica == **replica
                    && member.stage == Stage::Aligned
                    && (member.held >= primary.answered && member.durable >= self.log.committed()
                        || Mutation::CaughtUpTooEarly.is_on())
            })
        };
        let caught_up: BTreeSet<ReplicaId> =
            view.rebooted.iter().filter(holds_all).copied().collect();
        if !caught_up.is_empty() {
            self.propose(now, ProposalKind::CaughtUp, caught_up, effects);
        }
    }
}

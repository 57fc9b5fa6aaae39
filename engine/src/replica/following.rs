//! Following a primary: the member's side of I5, the joiner's side of I6 and I7.

use super::{Replica, Role};
use crate::configuration::Configuration;
use crate::effect::{Change, Effect, Effects};
use crate::history::History;
use crate::ids::{Epoch, NodeId, Seq};
use crate::log::{Entry, Token};
use crate::message::Message;
use crate::time::Time;
use isthmus_mutation::Mutation;

impl Replica {
    /// A primary speaks for the first time on this session, or again under a newer epoch.
    pub(super) fn on_prepare(
        &mut self,
        now: Time,
        from: NodeId,
        configuration: Configuration,
        effects: &mut Effects,
    ) {
        if !self.take_from_primary(now, from, &configuration, effects)
            || matches!(self.role, Role::Primary(_))
        {
            return;
        }
        self.leave_primary(effects);
        self.become_following(from);
        let report = Message::Report {
            epoch: self.configuration.epoch,
            history: self.log.history().clone(),
            end: self.log.end(),
            committed: self.log.committed(),
        };
        let after = (!Mutation::SpeakBeforeEpochIsDurable.is_on()).then_some(self.adopted);
        self.send(from, report, after, effects);
    }

    /// The primary tells where the logs meet (I5).
    pub(super) fn on_rewind(
        &mut self,
        _now: Time,
        from: NodeId,
        epoch: Epoch,
        to: Seq,
        effects: &mut Effects,
    ) {
        if !self.follows(from, epoch) {
            return;
        }
        if to < self.log.committed() || to > self.log.end() {
            let reason = format!(
                "the primary on {from} rewinds to {to}, but this log is committed up to {} and ends at {}",
                self.log.committed(),
                self.log.end()
            );
            self.damage(reason, effects);
            return;
        }
        let mut after = self.adopted;
        if to < self.log.end() && !Mutation::KeepWhatWasRewound.is_on() {
            after = self.persist(Change::Rewind { to }, effects);
            self.log.cut(to);
            effects.push(Effect::Cut { to });
        }
        let told = self.log.committed();
        if let Role::Following(following) = &mut self.role {
            following.aligned = true;
            following.told_committed = told;
        }
        self.acknowledge_to(from, Some(after), effects);
    }

    /// The primary takes this replica back: what may differ is copied, and records follow from `start` (I6, I7).
    pub(super) fn on_join(
        &mut self,
        _now: Time,
        from: NodeId,
        epoch: Epoch,
        offer: (Option<Seq>, Seq, History, Option<Vec<u8>>),
        effects: &mut Effects,
    ) {
        let (common, start, history, dirty) = offer;
        if !self.follows(from, epoch) || !history.is_sound() {
            return;
        }
        if self.configuration.in_sync.contains(&self.me) {
            self.damage(format!("the primary on {from} lets this replica join, but it is in the in-sync set of epoch {epoch}"), effects);
            return;
        }
        let Some(primary) = self.configuration.primary else {
            return;
        };
        let change = Change::Rebase {
            primary,
            history: history.clone(),
            end: start,
            common,
            committed: self.log.committed(),
            doubtful: if Mutation::ForgetDivergence.is_on() {
                Vec::new()
            } else {
                self.log.tail().map(|entry| entry.range).collect()
            },
            dirty,
        };
        let token = self.persist(change, effects);
        effects.push(Effect::Cut { to: Seq::ZERO });
        self.log.rebase(history, start);
        self.whole = false;
        if let Role::Following(following) = &mut self.role {
            following.aligned = true;
            following.joining = true;
            following.told_committed = start;
        }
        effects.push(Effect::StartCopy { from });
        self.acknowledge_to(from, Some(token), effects);
    }

    /// A record of the primary. Its bytes are in the host's window under its seq.
    pub(super) fn on_append(
        &mut self,
        _now: Time,
        from: NodeId,
        epoch: Epoch,
        entry: Entry,
        committed: Seq,
        effects: &mut Effects,
    ) {
        if Mutation::AcceptOldEpoch.is_on() && epoch < self.configuration.epoch {
            // Says that it has it, as if it were still in that epoch.
            let durable = entry.position.seq;
            self.send(from, Message::Acked { epoch, durable }, None, effects);
            return;
        }
        if epoch < self.configuration.epoch {
            self.send(
                from,
                Message::Stale {
                    epoch: self.configuration.epoch,
                },
                None,
                effects,
            );
            return;
        }
        if !self.is_aligned_with(from, epoch) {
            return;
        }
        let position = entry.position;
        let newest = self
            .log
            .history()
            .epoch_of(self.log.end())
            .unwrap_or_default();
        if position.seq <= self.log.end() {
            if self.log.history().epoch_of(position.seq) != Some(position.epoch) {
                self.damage(
                    format!(
                        "the primary on {from} sends {position}, but another record is held there"
                    ),
                    effects,
                );
            }
            return;
        }
        if position.seq != self.log.end().next()
            || position.epoch < newest
            || position.epoch > epoch
        {
            // Not what an ordered stream can bring: take no more, so that the primary finds this replica lagging.
            if let Role::Following(following) = &mut self.role {
                following.aligned = false;
            }
            return;
        }
        let token = self.token();
        self.log.append(entry, token);
        effects.push(Effect::Append { token, entry });
        self.follow_committed(committed, effects);
    }

    /// The set has changed under the primary.
    pub(super) fn on_configure(
        &mut self,
        now: Time,
        from: NodeId,
        configuration: Configuration,
        effects: &mut Effects,
    ) {
        if !self.take_from_primary(now, from, &configuration, effects) {
            return;
        }
        let member = self.configuration.in_sync.contains(&self.me);
        let whole = self.whole;
        let Role::Following(following) = &mut self.role else {
            return;
        };
        if following.primary != from || !following.aligned {
            return;
        }
        if following.joining && member {
            following.joining = false;
            effects.push(Effect::StopCopy);
        }
        let tell_again = following.joining && whole;
        self.acknowledge_to(from, Some(self.adopted), effects);
        if tell_again {
            self.send(
                from,
                Message::Copied {
                    epoch: self.configuration.epoch,
                },
                Some(self.adopted),
                effects,
            );
        }
    }

    /// The host has copied everything on the to-do map, and made it durable.
    pub fn on_copied(&mut self, effects: &mut Effects) {
        let Role::Following(following) = &self.role else {
            return;
        };
        if !following.joining || self.whole || self.damaged.is_some() {
            return;
        }
        let primary = following.primary;
        self.whole = true;
        let token = self.persist(Change::Whole, effects);
        self.send(
            primary,
            Message::Copied {
                epoch: self.configuration.epoch,
            },
            Some(token),
            effects,
        );
    }

    /// Commits what the primary says is committed, as far as it is durable here.
    pub(super) fn follow_committed(&mut self, told: Seq, effects: &mut Effects) {
        let Role::Following(following) = &mut self.role else {
            return;
        };
        if !following.aligned {
            return;
        }
        following.told_committed = following.told_committed.max(told);
        let target = following.told_committed.min(self.log.durable());
        if target > self.log.committed() && self.log.commit(target) > 0 {
            effects.push(Effect::Apply { through: target });
        }
    }

    pub(super) fn acknowledge_to(
        &self,
        primary: NodeId,
        after: Option<Token>,
        effects: &mut Effects,
    ) {
        let epoch = self.configuration.epoch;
        let (durable, held) = (self.log.durable(), self.log.held());
        self.send(primary, Message::Acked { epoch, durable }, after, effects);
        if held > durable {
            self.send(primary, Message::Held { epoch, held }, after, effects);
        }
    }

    fn follows(&self, from: NodeId, epoch: Epoch) -> bool {
        epoch == self.configuration.epoch
            && matches!(&self.role, Role::Following(following) if following.primary == from)
    }

    fn is_aligned_with(&self, from: NodeId, epoch: Epoch) -> bool {
        epoch == self.configuration.epoch
            && matches!(&self.role, Role::Following(following) if following.primary == from && following.aligned)
    }
}

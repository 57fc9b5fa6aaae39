//! A replica whose disk is full or fails: it takes part in nothing, says so, and gives the primary's rights back (fault rows 12 to 14).
//!
//! It takes no epoch either: it could not make one durable. That is harmless, since it acknowledges and promises nothing; a promise
//! that is out already is kept by taking nothing. What it may be asked, it answers with `Unable`, so that its primary asks kvdb for
//! the set without it. It may be able again later, and then is what it was: a replica that was away.

use super::{Phase, Replica, Role};
use crate::effect::{Effect, Effects, NotServed, ProposalKind};
use crate::ids::NodeId;
use crate::message::Message;
use crate::time::Time;
use std::collections::BTreeSet;

impl Replica {
    /// The host found that the replica's disk does not let it take part.
    pub fn become_unable(&mut self, now: Time, reason: String, effects: &mut Effects) {
        if self.damaged.is_some() || self.unable.is_some() {
            return;
        }
        match &self.role {
            Role::Idle => {}
            Role::Following(following) => {
                let (primary, joining) = (following.primary, following.joining);
                if joining {
                    effects.push(Effect::StopCopy);
                }
                let unable = Message::Unable {
                    reason: reason.clone(),
                };
                self.send(primary, unable, None, effects);
                self.role = Role::Idle;
            }
            Role::Primary(primary) => {
                if primary.phase != Phase::Releasing {
                    self.fail_everything(NotServed::Unable(reason.clone()), effects);
                    self.give_back(now, effects);
                }
            }
        }
        self.unable = Some(reason);
        self.next_tick = self.next_tick.min(now);
        self.step(now, effects);
    }

    /// The disk lets the replica take part again: it holds all that it held before. Not while kvdb counts it as primary: the
    /// release that was asked for could be noted later than whatever this replica began under the same epoch. Returns whether it is so.
    pub fn become_able(&mut self, now: Time, effects: &mut Effects) -> bool {
        if self.damaged.is_some() || self.is_primary_by_view() {
            return false;
        }
        if self.unable.take().is_none() {
            return true;
        }
        assert!(
            matches!(self.role, Role::Idle),
            "an unable replica that is not primary has no role"
        );
        self.next_tick = self.next_tick.min(now);
        self.adopt_if_free(now, effects);
        self.same_epoch(now, effects);
        self.step(now, effects);
        true
    }

    /// Its records were lost: it begins anew outside of the set, with an empty log and everything to copy. What it promised and took
    /// before concerns nobody any more: the set that kvdb has committed is without it, so whoever serves has done without its promise.
    /// The caller makes [`Replica::durable`] durable before it calls [`Replica::become_able`].
    ///
    /// # Panics
    /// When it is able, or in the set.
    pub fn forget(&mut self) {
        assert!(
            self.unable.is_some() && self.is_outside(),
            "only an unable replica outside of the set may forget its records"
        );
        self.log = crate::log::Log::default();
        self.whole = false;
        if let Some(view) = &self.view
            && view.configuration.epoch > self.configuration.epoch
        {
            self.configuration = view.configuration.clone();
        }
    }

    /// Why the replica can't take part, if it can't.
    #[must_use]
    pub fn unable_because(&self) -> Option<&str> {
        self.unable.as_deref()
    }

    /// Whether kvdb's set is without this replica, for good: opened, so that kvdb does not go back to an earlier set (I3); and the
    /// replica is not complete any more, so that not even an accepted loss brings it in. Never while no set counts.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        self.view.as_ref().is_some_and(|view| {
            let configuration = &view.configuration;
            configuration.opened
                && !view.eligible.is_empty()
                && !configuration.in_sync.contains(&self.me)
                && !view.complete.contains(&self.me)
        })
    }

    pub(super) fn is_primary_by_view(&self) -> bool {
        self.view
            .as_ref()
            .is_some_and(|view| view.configuration.primary == Some(self.me))
    }

    /// kvdb is told, until it has noted it, that this replica serves nothing. It may even have been made primary just now.
    pub(super) fn give_up_primary(&mut self, now: Time, effects: &mut Effects) {
        if self.is_primary_by_view() {
            self.propose(now, ProposalKind::Release, BTreeSet::new(), effects);
        } else {
            self.role = Role::Idle;
        }
    }

    pub(super) fn on_message_while_unable(
        &mut self,
        from: NodeId,
        message: &Message,
        effects: &mut Effects,
    ) {
        match message {
            Message::Prepare { .. } => {
                let reason = self.unable.clone().unwrap_or_default();
                self.send(from, Message::Unable { reason }, None, effects);
            }
            Message::GiveUp { epoch } => {
                let void = |given: &super::Given| given.to == from && given.epoch <= *epoch;
                if self.given.as_ref().is_some_and(void) {
                    self.given = None;
                }
            }
            _ => {}
        }
    }
}

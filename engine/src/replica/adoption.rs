//! Taking a new epoch: I4, and the giver's side of the grants (I3).
//!
//! A view with a higher epoch is taken at once, unless this replica has a promise out to another primary than the new one; then
//! when the promise ends or is given back. Taking is journalled before anything is done under the epoch: whatever a message
//! under it says waits for that token (`after`).

use super::{Following, Phase, Primary, Replica, Role};
use crate::configuration::{Configuration, View};
use crate::effect::{Change, Effect, Effects, NotServed};
use crate::ids::{NodeId, ReplicaId};
use crate::message::Message;
use crate::time::Time;
use isthmus_mutation::Mutation;
use std::collections::BTreeSet;

impl Replica {
    /// kvdb has committed something about the volume. Views come in order.
    pub fn on_view(&mut self, now: Time, view: View, effects: &mut Effects) {
        let known = self.view.as_ref().map(|view| view.configuration.epoch);
        assert!(
            Some(view.configuration.epoch) >= known,
            "kvdb's epochs never go back: {known:?}, then {}",
            view.configuration.epoch
        );
        if self.view.as_ref().is_none_or(|old| {
            old.configuration != view.configuration
                || old.complete != view.complete
                || old.rebooted != view.rebooted
        }) {
            // Whatever was asked has shown, or has become pointless.
            self.asked = None;
        }
        let released = view.released;
        self.view = Some(view);
        self.look_for_primary(now);
        if self.damaged.is_some() {
            return;
        }
        if released && let Some(given) = self.given {
            // kvdb noted that the primary we promised to has given its rights up, or that its process is gone. A view of the
            // promise's own epoch says so only once it names no primary; before that, it speaks of an earlier one.
            let view = &self.view.as_ref().expect("just set").configuration;
            if view.epoch > given.epoch || (view.epoch == given.epoch && view.primary.is_none()) {
                self.given = None;
            }
        }
        self.next_tick = self.next_tick.min(now);
        if self.unable.is_some() {
            self.step(now, effects);
            return;
        }
        self.adopt_if_free(now, effects);
        self.same_epoch(now, effects);
        self.step(now, effects);
    }

    /// Whether kvdb has a newer configuration than this replica has taken.
    pub(super) fn must_adopt(&self) -> bool {
        self.view
            .as_ref()
            .is_some_and(|view| view.configuration.epoch > self.configuration.epoch)
    }

    /// Takes the newest view's epoch, if no promise forbids it.
    pub(super) fn adopt_if_free(&mut self, now: Time, effects: &mut Effects) {
        if !self.must_adopt() {
            return;
        }
        let view = self
            .view
            .clone()
            .expect("must_adopt says that there is a view");
        if !self.may_take(now, &view.configuration) {
            self.step_down_if_replaced(&view.configuration, effects);
            self.sync_what_is_held(effects);
            return;
        }
        self.adopt(now, view.configuration, effects);
        self.take_role(now, effects);
    }

    /// Whether no promise is out that forbids this configuration.
    pub(super) fn may_take(&self, now: Time, configuration: &Configuration) -> bool {
        match self.given {
            _ if Mutation::TakeEpochDespitePromise.is_on() => true,
            None => true,
            Some(given) => {
                given.until < now
                    || configuration
                        .primary
                        .is_some_and(|primary| primary.node == given.to)
            }
        }
    }

    /// Journals a configuration and makes it this replica's own.
    pub(super) fn adopt(&mut self, now: Time, configuration: Configuration, effects: &mut Effects) {
        assert!(
            configuration.epoch > self.configuration.epoch,
            "{configuration:?} over {:?}",
            self.configuration
        );
        if self.given.is_some_and(|given| given.until < now) {
            self.given = None;
        }
        self.step_down_if_replaced(&configuration, effects);
        let absent: BTreeSet<ReplicaId> = self
            .configuration
            .in_sync
            .difference(&configuration.in_sync)
            .copied()
            .filter(|replica| *replica != self.me)
            .collect();
        let change = Change::Adopt {
            configuration: configuration.clone(),
            absent,
            committed: self.log.committed(),
            doubtful: self.log.tail().map(|entry| entry.range).collect(),
        };
        // Where nobody is eligible, the set is only what was known last.
        let counts = self.view.as_ref().is_none_or(|view| {
            view.configuration.epoch != configuration.epoch || !view.eligible.is_empty()
        });
        if counts && configuration.in_sync.contains(&self.me) && !self.whole {
            self.damage(format!("kvdb counts this replica as in sync at epoch {}, but it has not copied everything", configuration.epoch), effects);
            return;
        }
        self.configuration = configuration;
        self.adopted = self.persist(change, effects);
    }

    /// After a new epoch was taken: what am I under it?
    pub(super) fn take_role(&mut self, now: Time, effects: &mut Effects) {
        if self.damaged.is_some() {
            return;
        }
        let mine = self.configuration.primary == Some(self.me);
        match &mut self.role {
            Role::Primary(_) if mine => {
                self.reform_members(now, effects);
                self.open_if_committed(now, effects);
            }
            Role::Idle | Role::Following(_) if mine && !self.configuration.opened => {
                self.leave_primary(effects);
                self.begin_promotion(now, effects);
            }
            // A set that a process before this one opened: kvdb will note our start, and that ends it.
            Role::Idle | Role::Following(_) if mine => self.leave_primary(effects),
            Role::Primary(_) => unreachable!("a replaced primary has stepped down"),
            Role::Following(following) => {
                if self
                    .configuration
                    .primary
                    .is_none_or(|primary| primary.node != following.primary)
                {
                    self.leave_primary(effects);
                }
            }
            Role::Idle => {}
        }
    }

    /// A view of the epoch that was taken already: `opened` or `primary` may have changed.
    pub(super) fn same_epoch(&mut self, now: Time, effects: &mut Effects) {
        let Some(view) = self.view.clone() else {
            return;
        };
        if view.configuration.epoch != self.configuration.epoch
            || view.configuration == self.configuration
        {
            return;
        }
        let ended = view.configuration.primary.is_none() && self.configuration.primary.is_some();
        self.configuration.opened = view.configuration.opened;
        if view.configuration.primary != self.configuration.primary {
            self.configuration.primary = view.configuration.primary;
        }
        if ended {
            self.step_down(NotServed::NotPrimary, effects);
            self.leave_primary(effects);
        }
        self.open_if_committed(now, effects);
    }

    /// kvdb has committed `Opened` for this primary, under this epoch or under one before, which a watch may leave out.
    fn open_if_committed(&mut self, now: Time, effects: &mut Effects) {
        if let Role::Primary(primary) = &self.role
            && primary.phase == Phase::Promoting
            && self.configuration.opened
        {
            self.open(now, effects);
        }
    }

    /// A primary that isn't primary any more stops, by itself and at once (I9).
    pub(super) fn step_down_if_replaced(
        &mut self,
        configuration: &Configuration,
        effects: &mut Effects,
    ) {
        if configuration.primary != Some(self.me) {
            self.step_down(NotServed::NotPrimary, effects);
        }
    }

    fn step_down(&mut self, why: NotServed, effects: &mut Effects) {
        let Role::Primary(primary) = &self.role else {
            return;
        };
        let members: Vec<NodeId> = primary.members.keys().copied().collect();
        self.fail_everything(why, effects);
        for node in members {
            self.send(
                node,
                Message::GiveUp {
                    epoch: self.configuration.epoch,
                },
                None,
                effects,
            );
        }
        self.role = Role::Idle;
        effects.push(Effect::Demoted);
    }

    /// Follows nobody any more.
    pub(super) fn leave_primary(&mut self, effects: &mut Effects) {
        if let Role::Following(following) = &self.role {
            if following.joining {
                effects.push(Effect::StopCopy);
            }
            self.role = Role::Idle;
        }
    }

    /// A primary speaks under this configuration: take it, if it is newer. Returns whether it is this replica's epoch now;
    /// if not, the sender has been told, or will ask again.
    pub(super) fn take_from_primary(
        &mut self,
        now: Time,
        from: NodeId,
        configuration: &Configuration,
        effects: &mut Effects,
    ) -> bool {
        // A replica that restarted may have known of a higher epoch that it had not taken yet: it follows and promises nothing before
        // kvdb has told it, in order, what was committed up to this start. The primary asks again.
        let known = self.view.as_ref().map(|view| view.configuration.epoch);
        let known = known.or(Mutation::FollowWithoutView.is_on().then(Default::default));
        let Some(known) = known else { return false };
        let newest = known.max(self.configuration.epoch);
        if configuration.epoch < newest {
            let stale = Message::Stale { epoch: newest };
            self.send(from, stale, None, effects);
            return false;
        }
        if configuration
            .primary
            .is_none_or(|primary| primary.node != from)
        {
            return false;
        }
        if configuration.epoch > self.configuration.epoch {
            if !self.may_take(now, configuration) {
                return false;
            }
            self.adopt(now, configuration.clone(), effects);
            self.take_role(now, effects);
        }
        self.damaged.is_none()
            && self.configuration.epoch == configuration.epoch
            && self.configuration.primary == configuration.primary
    }

    pub(super) fn become_following(&mut self, primary: NodeId) {
        assert!(
            matches!(self.role, Role::Idle | Role::Following(_)),
            "a primary follows nobody"
        );
        self.role = Role::Following(Following {
            primary,
            aligned: false,
            joining: false,
            told_committed: self.log.committed(),
        });
    }

    /// The view's side of the members: who may join.
    pub(super) fn eligible(&self) -> BTreeSet<ReplicaId> {
        self.view
            .as_ref()
            .map(|view| view.eligible.clone())
            .unwrap_or_default()
    }

    /// Those of them whose links are fast enough.
    pub(super) fn may_join(&self) -> BTreeSet<ReplicaId> {
        let Some(view) = &self.view else {
            return BTreeSet::new();
        };
        let eligible = view.eligible.iter().copied();
        eligible
            .filter(|replica| !self.is_too_slow(view, replica.node))
            .collect()
    }

    pub(super) fn primary_mut(&mut self) -> Option<&mut Primary> {
        match &mut self.role {
            Role::Primary(primary) => Some(primary),
            Role::Idle | Role::Following(_) => None,
        }
    }
}

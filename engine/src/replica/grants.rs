//! Grants: a replica's time-limited promise to its primary (I3, promise 3).
//!
//! The giver counts from when it answered, plus drift; the holder from when it asked. So the holder's right always ends first,
//! whatever the message took. A giver that knows of a higher epoch gives no more.

use super::{Given, Phase, Primary, Replica, Role, Stage};
use crate::effect::{Effect, Effects};
use crate::ids::{Epoch, NodeId, Seq};
use crate::message::Message;
use crate::time::Time;
use isthmus_mutation::Mutation;

/// A grant, for people: who waits for its end, or for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whose promise it is; kvdb's where it is no replica's.
    pub from: Option<NodeId>,
    /// To which primary.
    pub to: NodeId,
    /// Until when it holds, or held.
    pub until: Time,
}

impl Replica {
    /// The grants that something waits for: those that a frozen primary has, over or not; and the one that is out from a replica that hears
    /// its primary no more.
    #[must_use]
    pub fn grants_in_question(&self, now: Time) -> Vec<Grant> {
        match &self.role {
            Role::Primary(primary) if self.is_frozen(now) => {
                let members = primary.members.iter().filter(|(_, member)| member.counts());
                let grant = |from, until| Grant {
                    from,
                    to: self.me.node,
                    until,
                };
                let mut grants: Vec<Grant> = members
                    .map(|(node, member)| grant(Some(*node), member.grant_until))
                    .collect();
                if self.needs_kvdb() {
                    grants.push(grant(None, primary.kvdb_until));
                }
                grants
            }
            Role::Primary(_) | Role::Following(_) => Vec::new(),
            Role::Idle => {
                let out = self.given.filter(|given| given.until >= now);
                let from = Some(self.me.node);
                let grant = out.map(|Given { to, until, .. }| Grant { from, to, until });
                grant.into_iter().collect()
            }
        }
    }

    /// The primary asks for a grant.
    pub(super) fn on_grant_request(
        &mut self,
        now: Time,
        from: NodeId,
        epoch: Epoch,
        asked: Time,
        committed: Seq,
        effects: &mut Effects,
    ) {
        if epoch < self.configuration.epoch && Mutation::AcceptOldEpoch.is_on() {
            self.send(from, Message::Grant { epoch, asked }, None, effects);
        } else if epoch < self.configuration.epoch {
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
        let Role::Following(following) = &mut self.role else {
            return;
        };
        if epoch != self.configuration.epoch || following.primary != from || !following.aligned {
            return;
        }
        following.told_committed = following.told_committed.max(committed);
        self.follow_committed(committed, effects);
        // Knows of a higher epoch with another primary: promises nothing more (I3).
        if self.view.as_ref().is_some_and(|view| {
            view.configuration.epoch > self.configuration.epoch
                && view
                    .configuration
                    .primary
                    .is_none_or(|primary| primary.node != from)
        }) && !Mutation::PromiseDespiteNewEpoch.is_on()
        {
            return;
        }
        let until = now + self.settings.lease_of_giver();
        if self
            .given
            .is_some_and(|given| given.to != from && given.until >= now)
        {
            return;
        }
        self.given = Some(Given {
            to: from,
            epoch,
            until,
        });
        // The epoch must be durable before a promise under it goes out: a restart counts from the configuration it finds.
        self.send(
            from,
            Message::Grant { epoch, asked },
            Some(self.adopted),
            effects,
        );
    }

    /// The primary serves no more under an epoch.
    pub(super) fn on_give_up(
        &mut self,
        now: Time,
        from: NodeId,
        epoch: Epoch,
        effects: &mut Effects,
    ) {
        if self
            .given
            .is_some_and(|given| given.to == from && given.epoch <= epoch)
        {
            self.given = None;
            self.adopt_if_free(now, effects);
            self.step(now, effects);
        }
    }

    /// A member has promised.
    pub(super) fn on_grant(
        &mut self,
        now: Time,
        from: NodeId,
        epoch: Epoch,
        asked: Time,
        effects: &mut Effects,
    ) {
        let lease = self.settings.lease;
        let current = self.configuration.epoch;
        let Some(primary) = self.primary_mut() else {
            return;
        };
        if epoch != current || asked > now || primary.phase == Phase::Releasing {
            return;
        }
        let Some(member) = primary.members.get_mut(&from) else {
            return;
        };
        let counted_from = if Mutation::CountGrantFromItsAnswer.is_on() {
            now
        } else {
            asked
        };
        member.grant_until = member.grant_until.max(counted_from + lease);
        member.heard = now;
        self.step(now, effects);
    }

    /// kvdb answered that the view was still the newest after `begun`.
    pub fn on_confirmed(&mut self, now: Time, begun: Time, confirmed: bool, effects: &mut Effects) {
        if self.damaged.is_some() {
            return;
        }
        let lease = self.settings.lease;
        let Some(primary) = self.primary_mut() else {
            return;
        };
        primary.kvdb_asked = None;
        // A confirmation that was begun before the wait for older grants ended proves nothing wrong: it only tells the epoch.
        if confirmed && primary.phase != Phase::Releasing {
            primary.kvdb_until = primary.kvdb_until.max(begun + lease);
        }
        self.step(now, effects);
    }

    /// Whether this primary's set needs kvdb's grant: one site could serve alone, unknown to the other.
    pub(super) fn needs_kvdb(&self) -> bool {
        self.view
            .as_ref()
            .is_none_or(|view| view.in_one_domain(&self.configuration.in_sync))
    }

    /// The right to serve: every other member's grant, and kvdb's where the set lies in one domain, under a durable epoch.
    ///
    /// Reads need it (I11). A write that every member holds would be safe without: no other primary could lack it. It is asked for
    /// all the same, so that a primary that was stopped and goes on answers nothing at all until it is heard again.
    pub(super) fn may_serve(&self, now: Time, primary: &Primary) -> bool {
        primary.phase == Phase::Serving
            && self.persisted >= self.adopted
            && (!self.needs_kvdb()
                || primary.kvdb_until > now
                || Mutation::ServePastKvdbGrant.is_on())
            && primary
                .members
                .values()
                .filter(|member| self.waits_for(member))
                .all(|member| member.grant_until > now || Mutation::ServePastGrants.is_on())
    }

    /// Asks members, and kvdb where needed, for the next grants.
    pub(super) fn renew_grants(&mut self, now: Time, effects: &mut Effects) {
        let (renewal, epoch, committed) = (
            self.settings.renewal(),
            self.configuration.epoch,
            self.log.committed(),
        );
        let needs_kvdb = self.needs_kvdb();
        let patience = self.settings.lease;
        let Some(primary) = self.primary_mut() else {
            return;
        };
        if now < primary.next_renewal || primary.phase == Phase::Releasing {
            return;
        }
        primary.next_renewal = now + renewal;
        let ask: Vec<NodeId> = primary
            .members
            .iter()
            .filter(|(_, member)| member.stage == Stage::Aligned)
            .map(|(node, _)| *node)
            .collect();
        if needs_kvdb && primary.kvdb_asked.is_none_or(|at| now.since(at) > patience) {
            primary.kvdb_asked = Some(now);
            effects.push(Effect::Confirm);
        }
        for node in ask {
            self.send(
                node,
                Message::GrantRequest {
                    epoch,
                    asked: now,
                    committed,
                },
                Some(self.adopted),
                effects,
            );
        }
    }

    /// Grants are wanted now, not at the next renewal.
    pub(super) fn renew_soon(&mut self, now: Time, effects: &mut Effects) {
        if let Some(primary) = self.primary_mut() {
            primary.next_renewal = now;
        }
        self.renew_grants(now, effects);
    }
}

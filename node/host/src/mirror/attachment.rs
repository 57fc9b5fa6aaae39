//! Who may come: clients that open the volume here make this replica primary where the rules allow it, or hear why not.

use super::clients::Request;
use super::{Context, Course, Mirror};
use crate::output::{ClientError, Outcome};
use isthmus_catalog::{Catalog, DomainState};
use isthmus_engine::{NodeId, Standing, Time};
use std::time::Duration;

/// How long another primary is given to release the volume (its last client may just be leaving).
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a promotion may take before the client hears what it waits for.
const PROMOTION_PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);

/// A client that wants to come.
#[derive(Debug)]
pub(super) struct Waiter<R> {
    reply: R,
    /// The node that it came to: this one, or one without a store that forwards it.
    came_to: NodeId,
    since: Time,
    next_look: Time,
}

impl<R> Waiter<R> {
    pub(super) fn into_reply(self) -> R {
        self.reply
    }

    pub(super) fn next_look(&self) -> Time {
        self.next_look
    }
}

impl<R> Mirror<R> {
    /// A client that came to `came_to` opens the volume here. Answered with `Attached`, or with why not. What is attached must be detached.
    pub fn attach(&mut self, context: &mut Context<'_, R>, came_to: NodeId, reply: R) {
        self.waiters.push(Waiter {
            reply,
            came_to,
            since: context.now,
            next_look: context.now,
        });
        self.look_at_attachment(context);
        self.tell_wanted(context);
    }

    /// Ends with the volume: gives back all who wait for an answer.
    pub fn into_unanswered(self) -> impl Iterator<Item = R> {
        let requests = self.requests.into_values().map(Request::into_reply);
        requests.chain(self.waiters.into_iter().map(Waiter::into_reply))
    }

    /// An attached client is gone.
    pub fn detach(&mut self, context: &mut Context<'_, R>) {
        assert!(self.clients > 0, "only what was attached is detached");
        self.clients -= 1;
        self.tell_wanted(context);
    }

    /// The volume's primary is being moved, or is so no more. Clients here are sent away: what was not answered, they ask for again
    /// where it is served next. What they have asked for is completed before this replica gives the volume back.
    pub fn on_course(&mut self, context: &mut Context<'_, R>, course: Course) {
        if std::mem::replace(&mut self.course, course) == course {
            return;
        }
        self.welcomed = course == Course::Comes && self.clients > 0;
        if matches!(course, Course::Leaves(_)) && self.clients > 0 {
            context.outputs.demoted.push(self.volume);
        }
        self.look_at_attachment(context);
        self.tell_wanted(context);
    }

    /// A primary is wanted by clients, or by who moves it here; and without either, as long as a replica is to be brought back.
    pub(super) fn tell_wanted(&mut self, context: &mut Context<'_, R>) {
        let wanted = match self.course {
            Course::Comes => true,
            Course::Leaves(_) => false,
            Course::Stays => {
                self.clients > 0 || !self.waiters.is_empty() || self.engine.could_bring_back()
            }
        };
        if wanted != self.engine.is_wanted() {
            self.with_engine(context, |engine, now, effects| {
                engine.want(now, wanted, effects)
            });
        }
    }

    /// Answers clients that wait, where there is an answer now.
    pub(super) fn look_at_attachment(&mut self, context: &mut Context<'_, R>) {
        if self.waiters.is_empty() {
            return;
        }
        let now = context.now;
        let leaves = matches!(self.course, Course::Leaves(_));
        let serving = self.engine.is_serving() && !leaves;
        let mut still = Vec::new();
        for mut waiter in std::mem::take(&mut self.waiters) {
            if serving && self.is_let_in(context.catalog, waiter.came_to) {
                self.clients += 1;
                self.welcomed |= self.course == Course::Comes;
                context
                    .outputs
                    .replies
                    .push((waiter.reply, Outcome::Attached));
            } else if let Some(reason) = self.refusal(context.catalog, now, &waiter) {
                context.outputs.replies.push((
                    waiter.reply,
                    Outcome::Failed(ClientError::NotServed(reason)),
                ));
            } else {
                waiter.next_look = now + LOOK;
                still.push(waiter);
            }
        }
        self.waiters = still;
        self.tell_wanted(context);
    }

    /// Whether clients may come here, as far as an orchestrator has said where the volume is used.
    fn is_let_in(&self, catalog: &Catalog, came_to: NodeId) -> bool {
        catalog.lets_in(self.volume, self.engine.me().node, came_to)
    }

    /// Why a client can't come, if that is known to last.
    fn refusal(&self, catalog: &Catalog, now: Time, waiter: &Waiter<R>) -> Option<String> {
        let (came_to, waited) = (waiter.came_to, now.since(waiter.since));
        let record = catalog.volumes.get(&self.volume)?;
        let node = |node: NodeId| {
            catalog
                .nodes
                .get(&node)
                .map_or(node.to_string(), |record| record.name.clone())
        };
        let domain = |node: NodeId| {
            catalog
                .nodes
                .get(&node)
                .and_then(|record| catalog.domains.get(&record.domain))
        };
        let me = self.engine.me();
        if let Standing::Damaged(reason) = self.engine.standing(now) {
            return Some(format!(
                "the replica of {} on {} has stopped: {reason}",
                record.name,
                node(me.node)
            ));
        }
        if let Standing::Unable(reason) = self.engine.standing(now) {
            let others: Vec<String> = record
                .in_sync
                .iter()
                .filter(|replica| replica.node != me.node)
                .map(|replica| node(replica.node))
                .collect();
            let next = if others.is_empty() {
                String::new()
            } else {
                format!("; connect to {}", others.join(" or "))
            };
            return Some(format!(
                "the replica of {} on {} can't take part: {reason}{next}",
                record.name,
                node(me.node)
            ));
        }
        let inactive = [me.node, came_to]
            .into_iter()
            .find_map(|node| domain(node).filter(|domain| domain.state != DomainState::Active));
        if let Some(mine) = inactive {
            return Some(format!(
                "cluster domain {} is {:?} and serves nothing; after `domain-ctl activate clusterdomain {}` it will",
                mine.name, mine.state, mine.name
            ));
        }
        if catalog.unproven.contains(&self.volume) {
            return Some(format!(
                "generation {} of the cluster was forced, and nobody has said yet which replica of {} counts: `domain-ctl recover volume {}`",
                catalog.lineage, record.name, record.name
            ));
        }
        if let Course::Leaves(to) = self.course {
            return Some(format!(
                "volume {} is being moved to {}: connect there",
                record.name,
                node(to)
            ));
        }
        if let Some(published) = catalog.published.get(&self.volume)
            && published.node != came_to
        {
            return Some(format!(
                "volume {} is published to {}, and opened there only; `domain-ctl unpublish volume {} --node {}` ends that",
                record.name,
                node(published.node),
                record.name,
                node(published.node)
            ));
        }
        if came_to != me.node && !catalog.diskless.contains(&came_to) {
            return Some(format!(
                "{} is not a diskless node: its clients are not forwarded",
                node(came_to)
            ));
        }
        let is_missed = self.engine.misses_its_primary();
        if let Some(primary) = record.primary.filter(|primary| primary.node != me.node)
            && waited
                >= if is_missed {
                    PROMOTION_PATIENCE
                } else {
                    RELEASE_PATIENCE
                }
        {
            let site = domain(primary.node).map_or("?", |domain| &domain.name);
            if catalog.domain_of(primary.node) == catalog.domain_of(me.node) {
                return Some(format!(
                    "volume {} is attached: its primary is {}, in this site. Connect there, or disconnect its clients; if that node is lost, this one takes over within seconds",
                    record.name,
                    node(primary.node)
                ));
            }
            return Some(format!(
                "volume {} is attached: its primary is {} in {site}. Disconnect its clients there first; if {site} is lost, `domain-ctl deactivate clusterdomain {site}` lets this site take over",
                record.name,
                node(primary.node)
            ));
        }
        if record.primary.is_none() && record.opened && !record.in_sync.contains(&me) {
            let holders: Vec<String> = record
                .in_sync
                .iter()
                .map(|replica| node(replica.node))
                .collect();
            return Some(format!(
                "the replica of {} on {} is not in sync: connect to {}, which brings this one back",
                record.name,
                node(me.node),
                holders.join(" or ")
            ));
        }
        if catalog.is_rebooted(self.volume, me) && waited >= PROMOTION_PATIENCE {
            let others = record.in_sync.iter().filter(|replica| **replica != me);
            let others: Vec<String> = others.map(|replica| node(replica.node)).collect();
            return Some(format!(
                "the machine of {} was booted anew, and its replica of {} may lack acknowledged writes that {} has: start that one; if its site is lost, deactivate it with --accept-data-loss",
                node(me.node),
                record.name,
                others.join(" or ")
            ));
        }
        (waited >= PROMOTION_PATIENCE).then(|| match self.engine.standing(now) {
            Standing::Promoting { waits_for } => format!("volume {} is not served yet: {} waits for {waits_for}", record.name, node(me.node)),
            _ => format!("volume {} is not served yet: kvdb has not made {} its primary; a majority of its voters may be out of reach", record.name, node(me.node)),
        })
    }
}

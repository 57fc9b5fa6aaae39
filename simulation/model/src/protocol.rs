//! The steps: when each can happen, and what it does.

mod broken;
mod copying;
mod domains;
mod processes;
mod proposals;
mod rights;

use crate::action::Action;
use crate::bounds::Bounds;
use crate::mutation::Mutation;
use crate::properties::PROPERTIES;
use crate::state::{Broken, NOBODY, OVERTAKEN, Role, Standing, State, member};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

/// The protocol with `N` replicas, two or four, half of them in each site.
#[derive(Debug)]
pub struct Protocol<const N: usize> {
    /// How much may happen.
    pub bounds: Bounds,
    /// The rule that is broken on purpose.
    pub mutation: Option<Mutation>,
    /// Properties that were decided already: only the first state counts, which is the one with the shortest way to it.
    pub(crate) decided: [AtomicBool; PROPERTIES],
    pub(crate) shows_progress: bool,
    pub(crate) expanded: AtomicU64,
    pub(crate) begun: Instant,
}

impl<const N: usize> Protocol<N> {
    /// The protocol within bounds.
    #[must_use]
    pub fn new(bounds: Bounds, mutation: Option<Mutation>) -> Protocol<N> {
        assert!(
            N == 2 || N == 4,
            "half of the replicas in each of two sites"
        );
        assert!(
            usize::from(bounds.writes) <= crate::log::POSITIONS,
            "a log has room for every write"
        );
        Protocol {
            bounds,
            mutation,
            decided: std::array::from_fn(|_| AtomicBool::new(false)),
            shows_progress: false,
            expanded: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }

    /// Whether this rule is broken on purpose.
    #[must_use]
    pub fn breaks(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Does the step; whether it can happen, and changes anything.
    pub(crate) fn step(&self, state: &mut State<N>, action: Action) -> bool {
        use Action as A;
        let at = usize::from;
        match action {
            A::Write { primary, block } => self.on_write(state, at(primary), block),
            A::Append { primary, node } => self.on_append(state, at(primary), at(node)),
            A::Commit { primary } => self.on_commit(state, at(primary)),
            A::Ack { .. } | A::Tell { .. } => self.on_positions(state, action),
            A::Grant { .. }
            | A::GrantEnds { .. }
            | A::KvdbGrantEnds { .. }
            | A::PromiseEnds { .. }
            | A::Confirm { .. } => self.on_rights(state, action),
            A::Learn { node } => self.on_learn(state, at(node)),
            A::Handshake { primary, node } => self.handshake(state, at(primary), at(node)),
            A::Disconnect { primary, node } => self.on_disconnect(state, at(primary), at(node)),
            A::Shrink { .. }
            | A::Grow { .. }
            | A::Renew { .. }
            | A::Release { .. }
            | A::Released { .. }
            | A::Promote { .. }
            | A::Opened { .. } => self.on_proposal(state, action),
            A::Copy { .. } | A::Copied { .. } | A::Whole { .. } => self.on_copying(state, action),
            A::Crash {
                node,
                end,
                committed,
                again,
            } => self.on_crash(state, at(node), (end, committed, again)),
            A::Restart { .. } | A::ReplaceDisk { .. } => self.on_process(state, action),
            A::Deactivate { .. }
            | A::FenceBegins { .. }
            | A::Deactivated { .. }
            | A::Activate { .. }
            | A::Activated { .. } => self.on_domain(state, action),
            A::Force { node } => self.on_force(state, at(node)),
            A::DropMember { .. } | A::AskShrink { .. } | A::OpenAlone { .. } => {
                self.on_mutated(state, action)
            }
        }
    }

    fn on_write(&self, state: &mut State<N>, primary: usize, block: u8) -> bool {
        let replica = &state.replicas[primary];
        // The blocks are alike: the first write is to block 0.
        let allowed =
            state.spent.writes < self.bounds.writes && (state.spent.writes > 0 || block == 0);
        if replica.role != Role::Serving || !allowed || !replica.log.has_room() {
            return false;
        }
        state.spent.writes += 1;
        let id = state.spent.writes;
        state.seen.blocks |= block << id;
        self.order(state, primary, id);
        true
    }

    fn on_append(&self, state: &mut State<N>, primary: usize, node: usize) -> bool {
        let (leader, follower) = (&state.replicas[primary].log, &state.replicas[node].log);
        let next = follower.end + 1;
        if !self.hears(state, primary, node)
            || next > leader.end
            || next <= leader.base
            || !follower.has_room()
        {
            return false;
        }
        let (epoch, id) = (leader.epoch(next), leader.id(next));
        state.replicas[node].log.append(epoch, id);
        self.mark(state, node, id);
        true
    }

    fn on_positions(&self, state: &mut State<N>, action: Action) -> bool {
        match action {
            Action::Ack { node, primary } => {
                let (node, primary) = (usize::from(node), usize::from(primary));
                let end = state.replicas[node].log.end;
                let leader = &state.replicas[primary];
                if !self.hears(state, primary, node)
                    || end <= leader.members[node].acked
                    || end > leader.log.end
                {
                    return false;
                }
                state.replicas[primary].members[node].acked = end;
                if !self.breaks(Mutation::AckBeforeDurable) {
                    state.replicas[node].sync();
                }
                true
            }
            Action::Tell { primary, node } => {
                let (node, primary) = (usize::from(node), usize::from(primary));
                let follower = &state.replicas[node].log;
                let through = state.replicas[primary].log.committed.min(follower.end);
                if !self.hears(state, primary, node) || through <= follower.committed {
                    return false;
                }
                state.replicas[node].sync();
                self.commit(state, node, through);
                true
            }
            _ => false,
        }
    }

    fn on_commit(&self, state: &mut State<N>, primary: usize) -> bool {
        if !self.may_serve(state, primary) {
            return false;
        }
        let replica = &state.replicas[primary];
        let held = replica
            .members
            .iter()
            .filter(|member| self.counts(member))
            .map(|member| member.acked)
            .min();
        let through = replica.log.end.min(held.unwrap_or(u8::MAX));
        if through <= replica.log.committed {
            return false;
        }
        let first = replica.log.committed + 1;
        let answered = (first..=through)
            .fold(0, |ids, position| ids | 1 << replica.log.id(position))
            & replica.pending;
        state.replicas[primary].log.durable = replica.log.durable.max(through);
        self.commit(state, primary, through);
        let replica = &mut state.replicas[primary];
        replica.pending &= !answered;
        if answered != 0 {
            state.seen.acknowledged |= answered;
            self.check_acknowledged(state, primary, through);
        }
        true
    }

    /// I1, I2, I4, and one primary an epoch, where an acknowledgement is given.
    fn check_acknowledged(&self, state: &mut State<N>, primary: usize, through: u8) {
        let replica = &state.replicas[primary];
        let epoch = replica.configuration.epoch;
        let asked = (0..N).filter(|node| replica.members[*node].standing == Standing::Asked);
        let name = |node: usize| member(node, replica.members[node].incarnation);
        let asked = asked.fold(0, |set, node| set | name(node));
        let holds = |set: u8| {
            (0..N)
                .filter(|node| set & state.name(*node) != 0)
                .all(|node| {
                    let log = &state.replicas[node].log;
                    log.durable >= through
                        && (1..=through).all(|position| {
                            log.holds(position, state.seen.committed[usize::from(position) - 1])
                        })
                })
        };
        let kvdb = &state.kvdb.configuration;
        let leads = kvdb.epoch == epoch && usize::from(kvdb.primary) == primary;
        let broken = if !holds(replica.configuration.in_sync | asked) {
            Broken::Unheld
        } else if leads && !holds(kvdb.in_sync) {
            Broken::Uncommitted
        } else if epoch < state.seen.last_epoch {
            Broken::OldEpoch
        } else if epoch == state.seen.last_epoch && state.seen.last_by != primary as u8 {
            Broken::TwoPrimaries
        } else {
            Broken::Nothing
        };
        state.seen.last_epoch = epoch;
        state.seen.last_by = primary as u8;
        if broken != Broken::Nothing {
            state.broken = broken;
        }
    }
}

impl<const N: usize> State<N> {
    /// Makes states alike that nothing can tell apart: a promise whose grant has ended for its holder is over unless it delays an
    /// epoch now (being bound longer only means doing less), and of a write that is nowhere any more the block is forgotten.
    pub(crate) fn settle(&mut self) {
        let mut lives = self.seen.acknowledged | self.seen.given_up;
        lives |= self.seen.order().fold(0, |ids, id| ids | 1 << id);
        for node in 0..N {
            let replica = &self.replicas[node];
            lives |= replica.pending | replica.kept;
            lives |= (1..=replica.log.end).fold(0, |ids, at| ids | 1 << replica.log.id(at));
            lives |= replica.extents.iter().fold(0, |ids, id| ids | 1 << id);
            lives |= replica
                .copies
                .iter()
                .filter(|copy| copy.id != OVERTAKEN)
                .fold(0, |ids, copy| ids | 1 << copy.id);
            let to = usize::from(replica.promised_to);
            let delays = replica
                .view
                .is_some_and(|view| view.configuration.epoch > replica.configuration.epoch);
            if to < N && !delays && self.replicas[to].grants >> node & 1 == 0 {
                self.replicas[node].promised_to = NOBODY;
                self.replicas[node].promised_epoch = 0;
            }
        }
        self.seen.blocks &= lives;
    }
}

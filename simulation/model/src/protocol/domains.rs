//! The operator: domains (I8), and the forced generation.

use super::Protocol;
use crate::action::Action;
use crate::mutation::Mutation;
use crate::state::{Broken, DomainState, NOBODY, Replica, State, nodes};

impl<const N: usize> Protocol<N> {
    pub(super) fn on_domain(&self, state: &mut State<N>, action: Action) -> bool {
        match action {
            Action::Deactivate { domain } => {
                if state.spent.deactivations >= self.bounds.deactivations
                    || !state.may_deactivate(usize::from(domain))
                {
                    return false;
                }
                state.spent.deactivations += 1;
                state.deactivate(usize::from(domain));
                true
            }
            Action::FenceBegins { domain } => self.on_fence_begins(state, usize::from(domain)),
            Action::Deactivated { domain } => {
                let domain = usize::from(domain);
                if state.kvdb.domains[domain] != DomainState::Deactivating {
                    return false;
                }
                let inside = || (0..N).filter(|node| State::<N>::domain(*node) == domain);
                let said_so = inside()
                    .all(|node| self.has_acted(state, node) && !self.may_serve(state, node));
                let ran_out =
                    state.kvdb.fencing && inside().all(|node| state.replicas[node].old_grants == 0);
                if !said_so && !ran_out && !self.breaks(Mutation::FenceWithoutProof) {
                    return false;
                }
                state.kvdb.domains[domain] = DomainState::Inactive;
                state.end_fence(domain);
                true
            }
            Action::Activate { domain } => {
                let domain = usize::from(domain);
                let failed = matches!(
                    state.kvdb.domains[domain],
                    DomainState::Inactive | DomainState::Deactivating
                );
                if !failed || state.spent.activations >= self.bounds.activations {
                    return false;
                }
                state.spent.activations += 1;
                state.kvdb.domains[domain] = DomainState::Activating;
                state.end_fence(domain);
                true
            }
            Action::Activated { domain } => {
                let domain = usize::from(domain);
                let mut inside = (0..N).filter(|node| State::<N>::domain(*node) == domain);
                let caught_up = inside.all(|node| {
                    state.replicas[node]
                        .view
                        .is_some_and(|view| view.configuration == state.kvdb.configuration)
                });
                if state.kvdb.domains[domain] != DomainState::Activating || !caught_up {
                    return false;
                }
                state.kvdb.domains[domain] = DomainState::Active;
                true
            }
            _ => false,
        }
    }

    /// Whether a node answers and has acted on the deactivation.
    pub(super) fn has_acted(&self, state: &State<N>, node: usize) -> bool {
        state.replicas[node].is_up()
            && state.replicas[node]
                .view
                .is_some_and(|view| view.configuration.epoch >= state.kvdb.deactivated_at)
    }

    /// As `node/src/domains/fence.rs` decides it: from now on no grant for a primary in the domain is renewed.
    pub(super) fn on_fence_begins(&self, state: &mut State<N>, domain: usize) -> bool {
        let kvdb = &state.kvdb;
        if kvdb.domains[domain] != DomainState::Deactivating || kvdb.fencing {
            return false;
        }
        let outside = |node: usize| State::<N>::domain(node) != domain;
        let primary = kvdb.configuration.primary;
        let opened_elsewhere =
            kvdb.configuration.opened && primary != NOBODY && outside(usize::from(primary));
        let givers = nodes(kvdb.granted_set);
        let mut others = (0..N)
            .filter(|node| outside(*node) && givers >> node & 1 == 1)
            .peekable();
        let nobody_gives = others.peek().is_none();
        if !(opened_elsewhere
            || kvdb.released
            || nobody_gives
            || others.any(|node| self.has_acted(state, node)))
        {
            return false;
        }
        state.kvdb.fencing = true;
        for node in (0..N).filter(|node| !outside(*node)) {
            let replica = &mut state.replicas[node];
            replica.old_grants = replica.grants | u8::from(replica.kvdb_grant) << 4;
        }
        true
    }

    /// A forced generation, with the replica that is named in it, as one step (`kvdb/catalog/src/apply/generations.rs`): the grants of all that survive are over, everything else is off
    /// by the operator's word, the set is the one replica that the operator names.
    pub(super) fn on_force(&self, state: &mut State<N>, node: usize) -> bool {
        let ended = |replica: &Replica<N>| {
            !replica.is_up()
                || (replica.view.is_some()
                    && replica.grants == 0
                    && !replica.kvdb_grant
                    && replica.promised_to == NOBODY)
        };
        let named = &state.replicas[node];
        let may = named.whole
            && named.view.is_some()
            && state.is_active(node)
            && state
                .kvdb
                .domains
                .iter()
                .all(|domain| *domain != DomainState::Deactivating);
        if state.spent.forced >= self.bounds.forced || !may || !state.replicas.iter().all(ended) {
            return false;
        }
        state.spent.forced += 1;
        state.replicas[node].sync();
        let was_member = state.kvdb.configuration.in_sync & state.name(node) != 0;
        // What the named replica holds counts from now on; the rest of what was settled is given up by the operator's word.
        let log = state.replicas[node].log;
        let seen = &mut state.seen;
        let kept = (1..=seen.committed_end)
            .take_while(|position| {
                *position <= log.end
                    && log.holds(*position, seen.committed[usize::from(*position) - 1])
            })
            .count() as u8;
        let lost = (kept + 1..=seen.committed_end).fold(0, |ids, position| {
            ids | 1 << seen.committed[usize::from(position) - 1]
        });
        if lost != 0 && was_member && state.kvdb.configuration.opened {
            state.broken = Broken::ForcedLoss;
        }
        seen.given_up |= lost;
        seen.acknowledged &= !lost;
        for position in kept..seen.committed_end {
            seen.committed[usize::from(position)] = 0;
        }
        seen.committed_end = kept;
        state.force(node, self.breaks(Mutation::ForcedKeepsSet));
        for survivor in 0..N {
            if state.replicas[survivor].is_up() {
                self.learn(state, survivor);
            }
        }
        true
    }
}

impl<const N: usize> State<N> {
    fn end_fence(&mut self, domain: usize) {
        self.kvdb.fencing = false;
        self.kvdb.deactivated_at = 0;
        for node in (0..N).filter(|node| Self::domain(*node) == domain) {
            self.replicas[node].old_grants = 0;
        }
    }
}

//! What a primary, or who would be one, asks of kvdb: I2, I3 and I6.

use super::Protocol;
use crate::action::Action;
use crate::mutation::Mutation;
use crate::state::{NOBODY, Role, Standing, State};

impl<const N: usize> Protocol<N> {
    pub(super) fn on_proposal(&self, state: &mut State<N>, action: Action) -> bool {
        match action {
            Action::Shrink { primary, leaving } => {
                let replica = &state.replicas[usize::from(primary)];
                let epoch = replica.configuration.epoch;
                let leaving = replica.configuration.in_sync & (leaving | leaving << 4);
                let knows = replica
                    .view
                    .is_some_and(|view| view.configuration.epoch == epoch);
                if state.spent.shrinks >= self.bounds.shrinks
                    || replica.role == Role::Releasing
                    || !knows
                    || !state.kvdb.shrink(usize::from(primary), epoch, leaving)
                {
                    return false;
                }
                state.spent.shrinks += 1;
                true
            }
            Action::Grow {
                primary,
                node,
                heard,
            } => self.on_grow(state, usize::from(primary), usize::from(node), heard),
            Action::Renew { primary } => {
                let replica = &state.replicas[usize::from(primary)];
                let asked = replica
                    .members
                    .iter()
                    .any(|member| member.standing == Standing::Asked);
                let epoch = replica.configuration.epoch;
                if !asked
                    || state.spent.renewals >= self.bounds.renewals
                    || !state.kvdb.renew(usize::from(primary), epoch)
                {
                    return false;
                }
                state.spent.renewals += 1;
                true
            }
            Action::Release { primary } => {
                let replica = &mut state.replicas[usize::from(primary)];
                let idle = replica.pending == 0 && replica.log.end == replica.log.committed;
                let may = match replica.role {
                    Role::Promoting => true,
                    Role::Serving => idle,
                    _ => false,
                };
                if !may || state.spent.releases >= self.bounds.releases {
                    return false;
                }
                state.spent.releases += 1;
                replica.role = Role::Releasing;
                replica.grants = 0;
                replica.kvdb_grant = false;
                replica.old_grants = 0;
                true
            }
            Action::Released { primary } => {
                let replica = &state.replicas[usize::from(primary)];
                replica.role == Role::Releasing
                    && state
                        .kvdb
                        .release(usize::from(primary), replica.configuration.epoch)
            }
            Action::Promote { node } => self.on_promote(state, usize::from(node)),
            Action::Opened { primary } => {
                let replica = &state.replicas[usize::from(primary)];
                let (role, epoch) = (replica.role, replica.configuration.epoch);
                let level = replica.is_level() || self.breaks(Mutation::SkipReconcile);
                let opens = role == Role::Promoting
                    && level
                    && state.kvdb.open(usize::from(primary), epoch);
                if opens {
                    state.replicas[usize::from(primary)].sync();
                }
                opens
            }
            _ => false,
        }
    }

    pub(super) fn on_grow(
        &self,
        state: &mut State<N>,
        primary: usize,
        node: usize,
        heard: bool,
    ) -> bool {
        let replica = &state.replicas[primary];
        let member = replica.members[node];
        let copied = match member.standing {
            Standing::Copied => true,
            Standing::Asked => heard,
            Standing::Joining => self.breaks(Mutation::GrowBeforeCopied),
            Standing::None | Standing::InSet => false,
        };
        let ready = replica.role == Role::Serving
            && replica.configuration.opened
            && copied
            && member.aligned
            && member.acked >= replica.log.committed
            && replica.grants >> node & 1 == 1;
        if !ready || state.spent.grows >= self.bounds.grows {
            return false;
        }
        let epoch = replica.configuration.epoch;
        if self.breaks(Mutation::GrowBeforeCopied) {
            state.replicas[node].whole = true;
        }
        state.replicas[primary].members[node].standing = Standing::Asked;
        if heard {
            state.spent.grows += 1;
            let joining = crate::state::member(node, member.incarnation);
            return state.grow(primary, epoch, joining);
        }
        true
    }

    pub(super) fn on_promote(&self, state: &mut State<N>, node: usize) -> bool {
        let replica = &state.replicas[node];
        let Some(view) = replica.view else {
            return false;
        };
        // A member takes over from a primary in its own site as soon as it has promised it nothing more, whether or not it is there.
        let before = view.configuration.primary;
        let is_free = before == NOBODY
            || (usize::from(before) != node
                && State::<N>::domain(usize::from(before)) == State::<N>::domain(node)
                && view.configuration.in_sync & state.name(node) != 0
                && replica.promised_to == NOBODY);
        let seeks = replica.is_up()
            && !replica.is_primary()
            && replica.whole
            && is_free
            && state.kvdb.configuration.primary == before
            && view.configuration.epoch == state.kvdb.configuration.epoch;
        if !seeks || state.spent.promotions >= self.bounds.promotions {
            return false;
        }
        let outside = self
            .breaks(Mutation::PromoteFromOutside)
            .then_some(state.kvdb.configuration.in_sync | state.name(node));
        let Some(in_sync) = state.set_for_promotion(node).or(outside) else {
            return false;
        };
        state.spent.promotions += 1;
        state.promote(node, in_sync);
        true
    }
}

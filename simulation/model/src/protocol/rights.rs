//! Grants, kvdb's confirmation, and who hears what kvdb has committed.

use super::Protocol;
use crate::action::Action;
use crate::mutation::Mutation;
use crate::state::{Member, NOBODY, Role, Standing, State, View};

impl<const N: usize> Protocol<N> {
    pub(super) fn on_rights(&self, state: &mut State<N>, action: Action) -> bool {
        match action {
            Action::Grant { node, primary } => {
                let (giver, holder) = (usize::from(node), usize::from(primary));
                let replica = &state.replicas[giver];
                let knows_better = replica.view.is_some_and(|view| {
                    view.configuration.epoch > replica.configuration.epoch
                        && view.configuration.primary != primary
                });
                let refuses = knows_better
                    && !self.breaks(Mutation::PromiseDespiteNewEpoch)
                    && !self.breaks(Mutation::AcceptOldEpoch);
                let bound = replica.promised_to != NOBODY && replica.promised_to != primary;
                if !self.hears(state, holder, giver)
                    || refuses
                    || bound
                    || state.replicas[holder].role == Role::Releasing
                {
                    return false;
                }
                let (epoch, bit) = (state.replicas[holder].configuration.epoch, 1 << giver);
                let before = (
                    replica.promised_to,
                    replica.promised_epoch,
                    state.replicas[holder].grants & bit != 0,
                    state.replicas[holder].old_grants & bit,
                );
                state.replicas[giver].promised_to = primary;
                state.replicas[giver].promised_epoch = epoch;
                state.replicas[holder].grants |= bit;
                state.replicas[holder].old_grants &= !bit;
                before != (primary, epoch, true, 0)
            }
            Action::GrantEnds { primary, node } => {
                let replica = &mut state.replicas[usize::from(primary)];
                let held = replica.grants >> node & 1 == 1;
                replica.grants &= !(1 << node);
                replica.old_grants &= !(1 << node);
                held
            }
            Action::KvdbGrantEnds { primary } => {
                let replica = &mut state.replicas[usize::from(primary)];
                replica.old_grants &= !16;
                std::mem::take(&mut replica.kvdb_grant)
            }
            Action::PromiseEnds { node } => {
                let to = state.replicas[usize::from(node)].promised_to;
                if to == NOBODY {
                    return false;
                }
                let held = state.replicas[usize::from(to)].grants >> node & 1 == 1;
                let replica = &state.replicas[usize::from(node)];
                let delays = replica
                    .view
                    .is_some_and(|view| view.configuration.epoch > replica.configuration.epoch);
                if !delays || (held && !self.breaks(Mutation::GrantFromReceipt)) {
                    return false;
                }
                state.replicas[usize::from(node)].promised_to = NOBODY;
                state.replicas[usize::from(node)].promised_epoch = 0;
                self.adopt_if_free(state, usize::from(node));
                true
            }
            Action::Confirm { primary } => {
                let replica = &state.replicas[usize::from(primary)];
                let newest = replica
                    .view
                    .is_some_and(|view| view.configuration == state.kvdb.configuration)
                    && replica.configuration.epoch == state.kvdb.configuration.epoch;
                let needed = State::<N>::in_one_domain(replica.configuration.in_sync);
                if !newest
                    || !needed
                    || replica.role != Role::Serving
                    || (replica.kvdb_grant && replica.old_grants & 16 == 0)
                {
                    return false;
                }
                let replica = &mut state.replicas[usize::from(primary)];
                replica.kvdb_grant = true;
                replica.old_grants &= !16;
                true
            }
            _ => false,
        }
    }

    pub(super) fn on_learn(&self, state: &mut State<N>, node: usize) -> bool {
        let view = View {
            configuration: state.kvdb.configuration,
            eligible: state.eligible(),
        };
        let replica = &state.replicas[node];
        if !replica.is_up() || replica.view == Some(view) {
            return false;
        }
        self.learn(state, node);
        true
    }

    pub(super) fn on_disconnect(&self, state: &mut State<N>, primary: usize, node: usize) -> bool {
        if !state.replicas[primary].members[node].aligned {
            return false;
        }
        let follows = matches!(state.replicas[node].role, Role::Following { primary: led, .. } if usize::from(led) == primary);
        if follows {
            // Both live: only as often as the bounds say. Noticing a dead one costs nothing.
            if state.spent.disconnects >= self.bounds.disconnects {
                return false;
            }
            state.spent.disconnects += 1;
            state.replicas[node].follow_nobody();
        }
        let leader = &mut state.replicas[primary];
        let member = &mut leader.members[node];
        member.aligned = false;
        member.acked = 0;
        let stays = match member.standing {
            Standing::InSet => true,
            Standing::Asked => !self.breaks(Mutation::LostJoinerNotCounted),
            Standing::None | Standing::Joining | Standing::Copied => false,
        };
        if !stays {
            *member = Member::default();
            leader.grants &= !(1 << node);
            leader.old_grants &= !(1 << node);
        }
        true
    }
}

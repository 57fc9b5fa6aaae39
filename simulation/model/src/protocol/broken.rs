//! Steps that only a mutation has.

use super::Protocol;
use crate::action::Action;
use crate::mutation::Mutation;
use crate::state::{Member, Role, Standing, State};

impl<const N: usize> Protocol<N> {
    pub(super) fn on_mutated(&self, state: &mut State<N>, action: Action) -> bool {
        match action {
            Action::DropMember { primary, node } if self.breaks(Mutation::ShrinkWithoutCommit) => {
                let name = state.name(usize::from(node));
                let replica = &mut state.replicas[usize::from(primary)];
                let member = &mut replica.members[usize::from(node)];
                if member.standing != Standing::InSet || replica.role != Role::Serving {
                    return false;
                }
                *member = Member::default();
                replica.configuration.in_sync &= !name;
                // It believes that a shrink was committed, and that kvdb is with it.
                replica.kvdb_grant = true;
                true
            }
            Action::AskShrink { primary, node } if self.breaks(Mutation::AckDuringShrink) => {
                let replica = &mut state.replicas[usize::from(primary)];
                let member = &mut replica.members[usize::from(node)];
                let asks = replica.role == Role::Serving
                    && member.standing == Standing::InSet
                    && !member.leaving;
                member.leaving |= asks;
                asks
            }
            Action::OpenAlone { primary } if self.breaks(Mutation::ServeBeforeOpened) => {
                let replica = &state.replicas[usize::from(primary)];
                let ready = replica.role == Role::Promoting && replica.is_level();
                if ready {
                    state.replicas[usize::from(primary)].sync();
                    self.open(state, usize::from(primary));
                }
                ready
            }
            _ => false,
        }
    }
}

//! Resync: one block after the other, while mirrored writes go on.

use super::Protocol;
use crate::action::Action;
use crate::state::{Copy, OVERTAKEN, Role, Standing, State};

impl<const N: usize> Protocol<N> {
    pub(super) fn on_copying(&self, state: &mut State<N>, action: Action) -> bool {
        match action {
            Action::Copy { node, block } => {
                let replica = &state.replicas[usize::from(node)];
                let Role::Following {
                    primary,
                    joining: true,
                } = replica.role
                else {
                    return false;
                };
                let source = &state.replicas[usize::from(primary)];
                let copy = &replica.copies[usize::from(block)];
                // One after the other: what happens to one block is no business of the other.
                let asks = replica.todo.trailing_zeros() == u32::from(block) && !copy.under_way;
                if !asks
                    || source.role != Role::Serving
                    || !self.hears(state, usize::from(primary), usize::from(node))
                {
                    return false;
                }
                let answer = Copy {
                    under_way: true,
                    id: source.extents[usize::from(block)],
                    as_of: source.log.committed,
                };
                state.replicas[usize::from(node)].copies[usize::from(block)] = answer;
                true
            }
            Action::Copied { node, block } => {
                let replica = &mut state.replicas[usize::from(node)];
                let copy = std::mem::take(&mut replica.copies[usize::from(block)]);
                if !copy.under_way {
                    return false;
                }
                if copy.id != OVERTAKEN {
                    replica.extents[usize::from(block)] = copy.id;
                }
                replica.todo &= !(1 << block);
                true
            }
            Action::Whole { node, primary } => {
                let (node, primary) = (usize::from(node), usize::from(primary));
                let copied = state.replicas[node].todo == 0;
                let standing = state.replicas[primary].members[node].standing;
                if !copied || standing != Standing::Joining || !self.hears(state, primary, node) {
                    return false;
                }
                state.replicas[node].whole = true;
                state.replicas[node].todo_durable = 0;
                state.replicas[primary].members[node].standing = Standing::Copied;
                true
            }
            _ => false,
        }
    }
}

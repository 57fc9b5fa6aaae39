//! Crashes, starts, and replaced disks (I12).

use super::Protocol;
use crate::action::Action;
use crate::mutation::Mutation;
use crate::state::{ALL_BLOCKS, AbsentMap, BLOCKS, Configuration, Copy, NOBODY, Role, State};

impl<const N: usize> Protocol<N> {
    pub(super) fn on_crash(
        &self,
        state: &mut State<N>,
        node: usize,
        (end, committed, again): (u8, u8, bool),
    ) -> bool {
        state.spent.crashes += 1;
        let replica = &mut state.replicas[node];
        state.seen.failed |= replica.pending;
        replica.end_primary();
        replica.log.cut(end);
        replica.log.durable = end;
        replica.log.committed = committed;
        replica.configuration = replica.persisted;
        if again {
            replica.todo = replica.todo_durable;
        } else {
            replica.todo_durable = replica.todo;
        }
        if self.breaks(Mutation::ForgetMapOnCrash) {
            replica.maps.iter_mut().for_each(|map| map.blocks = 0);
        }
        replica.copies = [Copy::default(); BLOCKS];
        replica.kept = 0;
        replica.view = None;
        replica.role = Role::Down;
        // A process that is down promises nothing new; what it has promised is waited out from its start on.
        replica.promised_to = NOBODY;
        replica.promised_epoch = 0;
        true
    }

    pub(super) fn on_process(&self, state: &mut State<N>, action: Action) -> bool {
        match action {
            Action::Restart { node } => {
                let replica = &mut state.replicas[usize::from(node)];
                replica.role = Role::Idle;
                let primary = replica.configuration.primary;
                if primary != node
                    && primary != NOBODY
                    && !self.breaks(Mutation::RestartForgetsPromise)
                {
                    replica.promised_to = primary;
                    replica.promised_epoch = replica.configuration.epoch;
                }
                state.register(usize::from(node));
                true
            }
            Action::ReplaceDisk { node } => {
                if state.spent.replacements >= self.bounds.replacements {
                    return false;
                }
                state.spent.replacements += 1;
                let replica = &mut state.replicas[usize::from(node)];
                let counts = self.breaks(Mutation::ReplacedDiskCounts);
                replica.disk = 1;
                replica.incarnation = u8::from(!counts);
                replica.configuration = Configuration {
                    epoch: 0,
                    primary: NOBODY,
                    opened: false,
                    in_sync: 0,
                };
                replica.persisted = replica.configuration;
                replica.log = crate::log::Log::default();
                replica.extents = [0; BLOCKS];
                replica.whole = counts;
                replica.todo = if counts { 0 } else { ALL_BLOCKS };
                replica.todo_durable = replica.todo;
                replica.maps = [AbsentMap::default(); N];
                true
            }
            _ => false,
        }
    }
}

//! What one replica does by itself when it hears of something, after `engine/src/replica/`.

use crate::log::Log;
use crate::mutation::Mutation;
use crate::protocol::Protocol;
use crate::state::{
    ALL_BLOCKS, AbsentMap, BLOCKS, Broken, Configuration, Copy, Member, NOBODY, OVERTAKEN, Role,
    Standing, State, View,
};

impl<const N: usize> Protocol<N> {
    /// Whether a member is waited for: for acknowledgements and for grants (`Member::counts`).
    #[must_use]
    pub fn counts(&self, member: &Member) -> bool {
        if member.leaving {
            return false;
        }
        match member.standing {
            Standing::None => false,
            Standing::InSet => true,
            Standing::Asked => !self.breaks(Mutation::JoinerNotCounted),
            Standing::Joining | Standing::Copied => {
                member.aligned && !self.breaks(Mutation::JoinerNotCounted)
            }
        }
    }

    /// The right to serve (`may_serve`): every counted member's grant, and kvdb's where the set lies in one domain.
    #[must_use]
    pub fn may_serve(&self, state: &State<N>, node: usize) -> bool {
        let replica = &state.replicas[node];
        replica.role == Role::Serving
            && (replica.kvdb_grant
                || !State::<N>::in_one_domain(replica.configuration.in_sync)
                || self.breaks(Mutation::NoKvdbGrant))
            && replica
                .members
                .iter()
                .enumerate()
                .all(|(other, member)| !self.counts(member) || replica.grants >> other & 1 == 1)
    }

    /// Whether it would answer a read now.
    #[must_use]
    pub fn may_read(&self, state: &State<N>, node: usize) -> bool {
        if self.breaks(Mutation::ReadAfterGrant) {
            return state.replicas[node].role == Role::Serving;
        }
        self.may_serve(state, node)
    }

    /// Whether what `primary` sends reaches `node` and is taken there: same session, aligned, same epoch.
    #[must_use]
    pub fn hears(&self, state: &State<N>, primary: usize, node: usize) -> bool {
        let (leader, follower) = (&state.replicas[primary], &state.replicas[node]);
        leader.is_primary()
            && leader.members[node].aligned
            && matches!(follower.role, Role::Following { primary: led, .. } if usize::from(led) == primary)
            && (leader.configuration.epoch == follower.configuration.epoch
                || self.breaks(Mutation::AcceptOldEpoch))
    }

    /// A view from kvdb (`on_view`).
    pub(crate) fn learn(&self, state: &mut State<N>, node: usize) {
        let view = View {
            configuration: state.kvdb.configuration,
            eligible: state.eligible(),
        };
        let released = state.kvdb.released;
        let replica = &mut state.replicas[node];
        replica.view = Some(view);
        let heard = &view.configuration;
        if released
            && replica.promised_to != NOBODY
            && (heard.epoch > replica.promised_epoch
                || (heard.epoch == replica.promised_epoch && heard.primary == NOBODY))
        {
            replica.promised_to = NOBODY;
            replica.promised_epoch = 0;
        }
        self.adopt_if_free(state, node);
        self.same_epoch(state, node);
    }

    /// Takes the newest view's epoch, if no promise forbids it.
    pub(crate) fn adopt_if_free(&self, state: &mut State<N>, node: usize) {
        let Some(view) = state.replicas[node].view else {
            return;
        };
        if view.configuration.epoch <= state.replicas[node].configuration.epoch {
            return;
        }
        if Self::may_take(state, node, &view.configuration) {
            self.adopt(state, node, view.configuration);
        } else if usize::from(view.configuration.primary) != node {
            self.step_down(state, node);
        }
    }

    /// Whether no promise is out that forbids this configuration.
    pub(crate) fn may_take(state: &State<N>, node: usize, configuration: &Configuration) -> bool {
        let to = state.replicas[node].promised_to;
        to == NOBODY || to == configuration.primary
    }

    /// Journals a configuration, makes it the replica's own, and finds its role under it. The journal is in order, so the tail
    /// before it is durable, too.
    pub(crate) fn adopt(&self, state: &mut State<N>, node: usize, configuration: Configuration) {
        if usize::from(configuration.primary) != node {
            self.step_down(state, node);
        }
        let me = state.name(node);
        let replica = &mut state.replicas[node];
        if configuration.in_sync & me != 0 && !replica.whole {
            state.broken = Broken::Damaged;
            return;
        }
        let doubtful = replica.doubtful(&state.seen);
        let absent = replica.configuration.in_sync & !configuration.in_sync & !me;
        for (other, map) in replica.maps.iter_mut().enumerate() {
            let of = absent & (crate::state::member(other, 0) | crate::state::member(other, 1));
            if of != 0 {
                if map.of != of {
                    *map = AbsentMap {
                        of,
                        from: replica.log.committed,
                        blocks: 0,
                    };
                }
                map.blocks |= doubtful;
            }
            if map.of & configuration.in_sync != 0 {
                *map = AbsentMap::default();
            }
        }
        replica.configuration = configuration;
        if !self.breaks(Mutation::EpochNotPersisted) {
            replica.persisted = configuration;
            replica.log.durable = replica.log.end;
        }
        self.take_role(state, node);
    }

    fn take_role(&self, state: &mut State<N>, node: usize) {
        let replica = &mut state.replicas[node];
        let configuration = replica.configuration;
        let mine = usize::from(configuration.primary) == node;
        match replica.role {
            Role::Down => {}
            Role::Promoting | Role::Serving | Role::Releasing => self.reform(state, node),
            Role::Idle | Role::Following { .. } if mine => {
                replica.follow_nobody();
                if !configuration.opened {
                    replica.role = Role::Promoting;
                    for (other, member) in replica.members.iter_mut().enumerate() {
                        let is_member =
                            crate::state::nodes(configuration.in_sync) >> other & 1 == 1;
                        *member = Member::default();
                        if is_member && other != node {
                            member.standing = Standing::InSet;
                            member.incarnation = configuration.incarnation(other);
                        }
                    }
                }
            }
            Role::Idle => {}
            Role::Following { primary, .. } => {
                if primary != configuration.primary {
                    replica.follow_nobody();
                } else if configuration.in_sync & state.name(node) != 0 {
                    state.replicas[node].role = Role::Following {
                        primary,
                        joining: false,
                    };
                }
            }
        }
    }

    /// A newer epoch keeps this replica primary (`reform_members`).
    fn reform(&self, state: &mut State<N>, node: usize) {
        let replica = &mut state.replicas[node];
        let configuration = replica.configuration;
        let eligible = replica.view.map_or(0, |view| view.eligible);
        for (other, member) in replica.members.iter_mut().enumerate() {
            if other == node {
                continue;
            }
            member.acked = 0;
            member.leaving = false;
            if crate::state::nodes(configuration.in_sync) >> other & 1 == 1 {
                member.standing = Standing::InSet;
                member.incarnation = configuration.incarnation(other);
                continue;
            }
            let stays = eligible & crate::state::member(other, member.incarnation) != 0;
            match member.standing {
                Standing::Joining | Standing::Copied if stays => {}
                Standing::Asked if stays => member.standing = Standing::Copied,
                _ => {
                    *member = Member::default();
                    replica.grants &= !(1 << other);
                    replica.old_grants &= !(1 << other);
                }
            }
            // Never asked for under this epoch and not reached: dropped, and invited again.
            if member.standing != Standing::None && !member.aligned {
                *member = Member::default();
                replica.grants &= !(1 << other);
                replica.old_grants &= !(1 << other);
            }
        }
    }

    /// A view of the epoch that was taken already.
    fn same_epoch(&self, state: &mut State<N>, node: usize) {
        let replica = &mut state.replicas[node];
        let Some(view) = replica.view else { return };
        if view.configuration.epoch != replica.configuration.epoch {
            return;
        }
        let ended = view.configuration.primary == NOBODY && replica.configuration.primary != NOBODY;
        replica.configuration.opened = view.configuration.opened;
        replica.configuration.primary = view.configuration.primary;
        if !self.breaks(Mutation::EpochNotPersisted) {
            replica.persisted = replica.configuration;
        }
        if ended {
            self.step_down(state, node);
            state.replicas[node].follow_nobody();
        }
        let replica = &state.replicas[node];
        if replica.role == Role::Promoting && replica.configuration.opened {
            self.open(state, node);
        }
    }

    /// kvdb has committed `opened`: what all members hold is committed, and clients are served.
    pub(crate) fn open(&self, state: &mut State<N>, node: usize) {
        let replica = &mut state.replicas[node];
        if replica.log.durable < replica.log.end && !self.breaks(Mutation::SkipReconcile) {
            state.broken = Broken::Damaged;
            return;
        }
        replica.role = Role::Serving;
        let end = replica.log.end.min(replica.log.durable);
        let kept = std::mem::take(&mut replica.kept);
        self.commit(state, node, end);
        for id in (1..8).filter(|id| kept >> id & 1 == 1) {
            self.order(state, node, id);
        }
    }

    /// A primary orders a write.
    pub(crate) fn order(&self, state: &mut State<N>, node: usize, id: u8) {
        let gone = state.seen.failed | state.seen.acknowledged | state.seen.given_up;
        if gone >> id & 1 == 1 {
            state.broken = Broken::Replayed;
        }
        let replica = &mut state.replicas[node];
        if !replica.log.has_room() {
            return;
        }
        replica.log.append(replica.configuration.epoch, id);
        replica.pending |= 1 << id;
        self.mark(state, node, id);
    }

    /// A record reaches a journal: it is in the dirty maps before it is acknowledged.
    pub(crate) fn mark(&self, state: &mut State<N>, node: usize, id: u8) {
        let block = state.seen.block(id);
        for map in &mut state.replicas[node].maps {
            if map.of != 0 {
                map.blocks |= 1 << block;
            }
        }
    }

    /// Everything up to `through` is committed for this replica, and applied.
    pub(crate) fn commit(&self, state: &mut State<N>, node: usize, through: u8) {
        let seen = &mut state.seen;
        let replica = &mut state.replicas[node];
        while replica.log.committed < through {
            let position = replica.log.committed + 1;
            let id = replica.log.id(position);
            replica.log.committed = position;
            if position <= seen.committed_end {
                if seen.committed[usize::from(position) - 1] != id {
                    state.broken = Broken::Recommitted;
                }
            } else if position == seen.committed_end + 1 {
                seen.committed[usize::from(position) - 1] = id;
                seen.committed_end = position;
            } else {
                state.broken = Broken::Recommitted;
            }
            if seen.given_up >> id & 1 == 1 {
                state.broken = Broken::Recommitted;
            }
            let block = seen.block(id);
            replica.extents[block] = id;
            let copy = &mut replica.copies[block];
            if copy.under_way && position > copy.as_of && !self.breaks(Mutation::CopyOverNewer) {
                copy.id = OVERTAKEN;
            }
        }
    }

    /// A primary that isn't primary any more stops; what it holds fails, and is never replayed (I9).
    pub(crate) fn step_down(&self, state: &mut State<N>, node: usize) {
        let replica = &mut state.replicas[node];
        if !replica.is_primary() {
            return;
        }
        state.seen.failed |= replica.pending;
        if self.breaks(Mutation::ReplayAfterDemotion) {
            replica.kept |= replica.pending;
        }
        replica.end_primary();
        replica.role = Role::Idle;
    }

    /// A primary greets a replica: `Prepare`, `Report`, then `Rewind` for a member (I5) or `Join` for a joiner (I6, I7).
    pub(crate) fn handshake(&self, state: &mut State<N>, primary: usize, node: usize) -> bool {
        let leader = &state.replicas[primary];
        let follower = &state.replicas[node];
        let configuration = leader.configuration;
        let leads = matches!(leader.role, Role::Promoting | Role::Serving)
            && usize::from(configuration.primary) == primary;
        if !leads || leader.members[node].aligned || !follower.is_up() {
            return false;
        }
        let name = state.name(node);
        let invited = leader.members[node].standing == Standing::None;
        let eligible = leader.view.map_or(0, |view| view.eligible);
        if invited && (leader.role != Role::Serving || eligible & name == 0) {
            return false;
        }
        // Whoever comes with another store than the one that this primary knows of is not greeted as that one.
        let known = crate::state::member(node, leader.members[node].incarnation);
        if !invited && known != name {
            return false;
        }
        let heard = match follower.view {
            Some(view) => view.configuration.epoch,
            None if self.breaks(Mutation::RestartFollowsAtOnce) => 0,
            None => return false,
        };
        let obeys_old = self.breaks(Mutation::AcceptOldEpoch) && !follower.is_primary();
        if configuration.epoch < heard.max(follower.configuration.epoch) && !obeys_old {
            return false;
        }
        if configuration.epoch > follower.configuration.epoch {
            if !Self::may_take(state, node, &configuration) {
                return false;
            }
            self.adopt(state, node, configuration);
        }
        if state.broken != Broken::Nothing || state.replicas[node].is_primary() {
            return state.broken != Broken::Nothing;
        }
        state.replicas[node].follow_nobody();
        if invited {
            let incarnation = state.replicas[node].incarnation;
            let member = &mut state.replicas[primary].members[node];
            member.standing = Standing::Joining;
            member.incarnation = incarnation;
        }
        let standing = state.replicas[primary].members[node].standing;
        if matches!(standing, Standing::InSet | Standing::Asked) {
            self.rewind(state, primary, node)
        } else {
            self.join(state, primary, node)
        }
    }

    fn rewind(&self, state: &mut State<N>, primary: usize, node: usize) -> bool {
        let leader = &state.replicas[primary].log;
        let follower = &state.replicas[node].log;
        let common = leader
            .common(follower)
            .filter(|common| *common >= leader.committed && *common >= follower.committed);
        let Some(common) = common else {
            if state.replicas[primary].members[node].standing == Standing::Asked {
                return false;
            }
            state.broken = Broken::Damaged;
            return true;
        };
        state.replicas[node].log.cut(common);
        let member = &mut state.replicas[primary].members[node];
        member.aligned = true;
        member.acked = 0;
        state.replicas[node].role = Role::Following {
            primary: primary as u8,
            joining: false,
        };
        true
    }

    fn join(&self, state: &mut State<N>, primary: usize, node: usize) -> bool {
        let name = state.name(node);
        let leader = &state.replicas[primary];
        let follower = &state.replicas[node];
        if follower.configuration.in_sync & name != 0 {
            state.broken = Broken::Damaged;
            return true;
        }
        let leader_name = state.name(primary);
        let common = leader.log.common(&follower.log);
        let late = self.breaks(Mutation::UseLateMap);
        let reaches = |map: &AbsentMap, of: u8| {
            map.of == of && common.is_some_and(|common| map.from <= common || late)
        };
        let mut todo = follower.todo;
        let theirs = &leader.maps[node];
        let own = &follower.maps[primary];
        if reaches(theirs, name) {
            todo |= theirs.blocks;
            if !self.breaks(Mutation::SkipDivergence) {
                todo |= follower.doubtful(&state.seen);
                if common.is_some_and(|common| follower.log.committed > common) {
                    todo |= if reaches(own, leader_name) {
                        own.blocks
                    } else {
                        ALL_BLOCKS
                    };
                }
            }
        } else {
            todo = ALL_BLOCKS;
        }
        let rebased = Log::rebased(&leader.log, leader.log.committed);
        let follower = &mut state.replicas[node];
        follower.log = rebased;
        follower.whole = false;
        follower.todo = todo;
        follower.todo_durable = todo;
        follower.maps = [AbsentMap::default(); N];
        follower.role = Role::Following {
            primary: primary as u8,
            joining: true,
        };
        let member = &mut state.replicas[primary].members[node];
        member.standing = Standing::Joining;
        member.aligned = true;
        member.acked = 0;
        true
    }
}

impl<const N: usize> crate::state::Replica<N> {
    /// Follows nobody any more; copying stops.
    pub(crate) fn follow_nobody(&mut self) {
        if matches!(self.role, Role::Following { .. }) {
            self.role = Role::Idle;
            self.copies = [Copy::default(); BLOCKS];
        }
    }

    /// Forgets what only a primary has.
    pub(crate) fn end_primary(&mut self) {
        self.members = [Member::default(); N];
        self.grants = 0;
        self.kvdb_grant = false;
        self.old_grants = 0;
        self.pending = 0;
    }
}

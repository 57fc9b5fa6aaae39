//! From whom a block that went bad may be taken, and to whom one may be given: between members of the set, under one epoch. Both hold
//! every committed entry, and their extents nothing else (I11).

use super::{Phase, Replica, Role, Stage};
use crate::effect::Effects;
use crate::ids::{Epoch, NodeId, Seq};
use crate::time::Time;

impl Replica {
    /// Who has good copies of this replica's blocks, if anyone is there.
    #[must_use]
    pub fn mending_source(&self) -> Option<NodeId> {
        if !self.is_sound_member() {
            return None;
        }
        match &self.role {
            Role::Primary(primary) if primary.phase == Phase::Serving => {
                self.members_in_reach().first().copied()
            }
            Role::Following(following) if following.aligned && !following.joining => {
                Some(following.primary)
            }
            Role::Primary(_) | Role::Following(_) | Role::Idle => None,
        }
    }

    /// The other members of the set that take part now, as far as this primary knows.
    #[must_use]
    pub fn members_in_reach(&self) -> Vec<NodeId> {
        let Role::Primary(primary) = &self.role else {
            return Vec::new();
        };
        let in_reach = primary.members.iter().filter(|(_, member)| {
            member.joiner.is_none() && member.stage == Stage::Aligned && !member.unable
        });
        in_reach.map(|(node, _)| *node).collect()
    }

    /// A member asks for blocks as of at least `committed`. Returns whether it may have them: they are as of this replica's
    /// committed position then.
    pub fn on_mending_asked(
        &mut self,
        _now: Time,
        from: NodeId,
        epoch: Epoch,
        committed: Seq,
        effects: &mut Effects,
    ) -> bool {
        if epoch != self.configuration.epoch || !self.is_sound_member() {
            return false;
        }
        let known = match &self.role {
            Role::Primary(primary) => {
                primary.phase == Phase::Serving
                    && primary.members.get(&from).is_some_and(|member| {
                        member.joiner.is_none() && member.stage == Stage::Aligned
                    })
            }
            Role::Following(following) if following.primary == from && following.aligned => {
                // The primary's committed position, as in any of its messages.
                self.follow_committed(committed, effects);
                true
            }
            Role::Following(_) | Role::Idle => false,
        };
        known && self.log.committed() >= committed
    }

    fn is_sound_member(&self) -> bool {
        self.damaged.is_none()
            && self.unable.is_none()
            && self.whole
            && self.configuration.in_sync.contains(&self.me)
    }
}

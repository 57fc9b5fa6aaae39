//! Members behind a link that is too slow (fault row 9, action `degrade`): they are asked out of the set as if they were lost, and don't
//! join while it is so, though they answer.
//!
//! The host says which peers that are; it measures, and holds them down for a while after they are good again. Nothing here trusts it with more than
//! time: a member counts until kvdb's commit is seen without it (I2), whatever its link is like, and joins as every other one does (I6).
//! So a wrong word of the host's costs a resync and, as after any shrink, that the volume lies in one site; never a write.

use super::{Phase, Replica};
use crate::configuration::View;
use crate::effect::Effects;
use crate::ids::NodeId;
use crate::time::Time;
use std::collections::BTreeSet;

impl Replica {
    /// The links to these peers are too slow for members behind them, those to all others are not.
    pub fn on_slow_peers(&mut self, now: Time, slow: &BTreeSet<NodeId>, effects: &mut Effects) {
        if self.slow == *slow {
            return;
        }
        self.slow.clone_from(slow);
        if self.damaged.is_none() && self.unable.is_none() {
            self.watch_members(now, effects);
        }
    }

    /// The peers whose links are too slow for members behind them.
    #[must_use]
    pub fn slow_peers(&self) -> &BTreeSet<NodeId> {
        &self.slow
    }

    /// Whether the volume is to do without a replica on this node. Where the policy is to wait for lost members, it waits for slow ones, too.
    pub(super) fn is_too_slow(&self, view: &View, node: NodeId) -> bool {
        view.may_degrade && self.slow.contains(&node)
    }

    /// Whether a member of the set is asked out for its link. Only by a primary that serves: it holds everything acknowledged, so that the set never
    /// loses its last good member, and all logs are level.
    pub(super) fn leaves_for_its_link(&self, view: &View, phase: Phase, node: NodeId) -> bool {
        phase == Phase::Serving && self.is_too_slow(view, node)
    }
}

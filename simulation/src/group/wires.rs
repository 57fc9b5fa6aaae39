//! What lies between the members: ways with delay and jitter, some of which are cut, in one direction or both, and lose some of what
//! is sent. Nothing comes twice (a call has one answer), but an answer may come long after whoever asked has given up.

use crate::schedule::{MICROSECOND, MILLISECOND};
use isthmus_simulated_disk::Random;

/// Members of a group.
pub const MEMBERS: usize = 3;

/// How the ways are.
#[derive(Clone, Copy, Debug)]
pub struct WiresPlan {
    /// One way, in nanoseconds, without jitter.
    pub delay: u64,
    /// Added to it at most.
    pub jitter: u64,
    /// In a thousand: messages that are lost.
    pub lost_per_mille: u64,
    /// In a thousand: messages that take up to a second longer.
    pub late_per_mille: u64,
}

impl Default for WiresPlan {
    /// A good network.
    fn default() -> WiresPlan {
        WiresPlan {
            delay: 500 * MICROSECOND,
            jitter: 200 * MICROSECOND,
            lost_per_mille: 0,
            late_per_mille: 0,
        }
    }
}

/// The ways.
#[derive(Debug)]
pub(super) struct Wires {
    pub plan: WiresPlan,
    /// Which ways are cut, from and to.
    cuts: [[bool; MEMBERS]; MEMBERS],
}

impl Wires {
    pub fn new(plan: WiresPlan) -> Wires {
        Wires {
            plan,
            cuts: [[false; MEMBERS]; MEMBERS],
        }
    }

    pub fn set_cut(&mut self, from: usize, to: usize, is_cut: bool) {
        self.cuts[from][to] = is_cut;
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from][to]
    }

    pub fn heal_all(&mut self) {
        self.cuts = [[false; MEMBERS]; MEMBERS];
    }

    /// How long a message takes; none: it is lost.
    pub fn delay(&self, from: usize, to: usize, random: &mut Random) -> Option<u64> {
        if self.cuts[from][to] || random.below(1000) < self.plan.lost_per_mille {
            return None;
        }
        let mut delay = self.plan.delay + random.below(self.plan.jitter + 1);
        if random.below(1000) < self.plan.late_per_mille {
            delay += random.below(1000 * MILLISECOND);
        }
        Some(delay)
    }
}

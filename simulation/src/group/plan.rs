//! What a group is like, and what comes of it.

use super::wires::{MEMBERS, WiresPlan};
use crate::schedule::SECOND;
use isthmus_catalog::{Answer, Catalog};
use isthmus_journal::Shape;
use isthmus_kvdb::KvdbError;
use std::sync::Arc;
use std::time::Duration;

/// What a group is like.
#[derive(Clone, Copy, Debug)]
pub struct GroupPlan {
    /// How fast each member's clock runs, for a million true nanoseconds.
    pub clock_rates: [u64; MEMBERS],
    /// What lies between the members.
    pub wires: WiresPlan,
    /// After how long without a sign of life a session is given up.
    pub session_timeout: u64,
    /// Log entries from one snapshot to the next.
    pub snapshot_entries: u64,
    /// Each member's journal.
    pub shape: Shape,
    /// How long a voter waits before it stands for election, at least.
    pub election_min: Duration,
}

impl Default for GroupPlan {
    /// As shipped, on good machines.
    fn default() -> GroupPlan {
        GroupPlan {
            clock_rates: [1_000_000; MEMBERS],
            wires: WiresPlan::default(),
            session_timeout: 2 * SECOND,
            snapshot_entries: 1000,
            shape: Shape {
                segment_bytes: 8 << 20,
                segments: 8,
            },
            election_min: Duration::from_millis(500),
        }
    }
}

/// What comes of it.
#[derive(Debug)]
pub enum Output {
    /// A member's present start is noted by the cluster.
    Registered {
        /// Which member.
        member: usize,
        /// In which life.
        life: u64,
    },
    /// A member has applied something: the newest catalog there.
    News {
        /// Which member.
        member: usize,
        /// In which life.
        life: u64,
        /// What is applied.
        catalog: Arc<Catalog>,
    },
    /// A proposal has come to its end.
    Proposed {
        /// Which member was asked.
        member: usize,
        /// In which life.
        life: u64,
        /// The asker's word for it.
        token: u64,
        /// What came of it.
        result: Result<Answer, KvdbError>,
    },
    /// A linearizable read has come to its end.
    Confirmed {
        /// Which member was asked.
        member: usize,
        /// In which life.
        life: u64,
        /// The asker's word for it.
        token: u64,
        /// What came of it.
        result: Option<Arc<Catalog>>,
    },
}

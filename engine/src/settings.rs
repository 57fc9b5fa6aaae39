//! The times of the protocol.

use isthmus_mutation::Mutation;
use std::time::Duration;

/// Times that all replicas of a cluster must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a grant lasts for its holder, counted from when the holder asked.
    pub lease: Duration,
    /// After how long without an answer a member counts as lost.
    pub replica_timeout: Duration,
}

/// Two clocks run apart by at most this many parts in a hundred (DESIGN, promise 3).
const DRIFT_PERCENT: u32 = 1;
/// Grants are asked for this many times in a lease: two may be lost.
const RENEWALS_A_LEASE: u32 = 5;
const _: () = assert!(
    RENEWALS_A_LEASE >= 3,
    "one lost renewal must not end a lease"
);

impl Settings {
    /// How long a grant binds its giver, counted from when it answered: the lease as the holder's clock could have it.
    #[must_use]
    pub fn lease_of_giver(&self) -> Duration {
        if Mutation::ForgetDrift.is_on() {
            return self.lease;
        }
        self.lease + self.lease * DRIFT_PERCENT / 100
    }

    /// How often grants are asked for.
    #[must_use]
    pub fn renewal(&self) -> Duration {
        self.lease / RENEWALS_A_LEASE
    }

    /// How long a member whose connection is gone has to come back before it counts as lost.
    #[must_use]
    pub fn reconnect_grace(&self) -> Duration {
        self.replica_timeout / 4
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            lease: Duration::from_secs(3),
            replica_timeout: Duration::from_secs(2),
        }
    }
}

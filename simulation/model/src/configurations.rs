//! The configurations that are explored: several, since the product of all bounds would have no end in any lifetime.

use crate::bounds::Bounds;
use crate::mutation::Mutation;

/// A named set of bounds, with the situations that it must reach.
#[derive(Clone, Copy, Debug)]
pub struct Configuration {
    /// For people and for `--only`.
    pub name: &'static str,
    /// Replicas: 2, or 4 (two in each site).
    pub replicas: usize,
    /// How much may happen.
    pub bounds: Bounds,
    /// Which situations (by index in [`crate::properties::SITUATION_NAMES`]) must be reached: without them it proved nothing.
    pub reaches: &'static [usize],
}

const NONE: Bounds = Bounds {
    writes: 0,
    crashes: 0,
    promotions: 0,
    shrinks: 0,
    grows: 0,
    renewals: 0,
    deactivations: 0,
    activations: 0,
    releases: 0,
    forced: 0,
    replacements: 0,
    disconnects: 0,
};

/// Small, for the tests and for a first look: all kinds of events, each with few others.
pub const QUICK: [Configuration; 6] = [
    Configuration {
        name: "crash",
        replicas: 2,
        bounds: Bounds {
            writes: 2,
            crashes: 1,
            promotions: 1,
            disconnects: 1,
            ..NONE
        },
        reaches: &[0, 1, 12],
    },
    Configuration {
        name: "set",
        replicas: 2,
        bounds: Bounds {
            writes: 1,
            shrinks: 1,
            grows: 1,
            renewals: 1,
            disconnects: 1,
            ..NONE
        },
        reaches: &[2, 3, 4, 13],
    },
    Configuration {
        name: "site",
        replicas: 2,
        bounds: Bounds {
            writes: 1,
            promotions: 1,
            grows: 1,
            deactivations: 1,
            activations: 1,
            ..NONE
        },
        reaches: &[0, 2, 5, 6, 7, 13],
    },
    Configuration {
        name: "generation",
        replicas: 2,
        bounds: Bounds {
            writes: 1,
            promotions: 1,
            shrinks: 1,
            grows: 1,
            forced: 1,
            ..NONE
        },
        reaches: &[8, 9],
    },
    Configuration {
        name: "disk",
        replicas: 2,
        bounds: Bounds {
            writes: 1,
            crashes: 1,
            promotions: 1,
            grows: 1,
            replacements: 1,
            ..NONE
        },
        reaches: &[11],
    },
    Configuration {
        name: "handover",
        replicas: 2,
        bounds: Bounds {
            writes: 1,
            promotions: 2,
            releases: 2,
            ..NONE
        },
        reaches: &[10],
    },
];

/// The large ones, each explored to its end within minutes. Between them they have three writes, two crashes, two deactivations
/// and activations, two shrinks and growths, and a forced generation.
pub const FULL: [Configuration; 12] = [
    Configuration {
        name: "crashes",
        replicas: 2,
        bounds: Bounds {
            writes: 3,
            crashes: 2,
            promotions: 2,
            ..NONE
        },
        reaches: &[0, 1, 12],
    },
    Configuration {
        name: "sets",
        replicas: 2,
        bounds: Bounds {
            writes: 3,
            promotions: 1,
            shrinks: 2,
            grows: 2,
            ..NONE
        },
        reaches: &[2, 3, 4, 13],
    },
    Configuration {
        name: "lost-joiners",
        replicas: 2,
        bounds: Bounds {
            writes: 2,
            shrinks: 2,
            grows: 2,
            renewals: 1,
            disconnects: 1,
            ..NONE
        },
        reaches: &[2, 3, 4, 13],
    },
    Configuration {
        name: "crash-and-set",
        replicas: 2,
        bounds: Bounds {
            writes: 2,
            crashes: 1,
            promotions: 1,
            shrinks: 1,
            grows: 1,
            disconnects: 1,
            ..NONE
        },
        reaches: &[0, 1, 2, 3, 4, 12, 13],
    },
    Configuration {
        name: "sites",
        replicas: 2,
        bounds: Bounds {
            writes: 2,
            promotions: 2,
            grows: 2,
            deactivations: 2,
            activations: 2,
            ..NONE
        },
        reaches: &[0, 2, 3, 4, 5, 6, 7, 12, 13],
    },
    Configuration {
        name: "crash-and-site",
        replicas: 2,
        bounds: Bounds {
            writes: 2,
            crashes: 1,
            promotions: 2,
            grows: 1,
            deactivations: 1,
            activations: 1,
            ..NONE
        },
        reaches: &[0, 1, 2, 3, 4, 5, 6, 7, 12, 13],
    },
    Configuration {
        name: "generations",
        replicas: 2,
        bounds: Bounds {
            writes: 2,
            crashes: 1,
            promotions: 1,
            shrinks: 1,
            grows: 1,
            forced: 1,
            ..NONE
        },
        reaches: &[0, 1, 2, 3, 4, 8, 9, 12, 13],
    },
    Configuration {
        name: "disks",
        replicas: 2,
        bounds: Bounds {
            writes: 2,
            crashes: 1,
            promotions: 1,
            shrinks: 1,
            grows: 1,
            replacements: 1,
            ..NONE
        },
        reaches: &[0, 2, 4, 11],
    },
    Configuration {
        name: "handovers",
        replicas: 2,
        bounds: Bounds {
            writes: 1,
            crashes: 1,
            promotions: 3,
            deactivations: 1,
            releases: 2,
            ..NONE
        },
        reaches: &[0, 1, 5, 6, 10],
    },
    Configuration {
        name: "two-and-two-sets",
        replicas: 4,
        bounds: Bounds {
            writes: 1,
            shrinks: 1,
            ..NONE
        },
        reaches: &[3, 4, 13],
    },
    Configuration {
        name: "two-and-two-crash",
        replicas: 4,
        bounds: Bounds {
            writes: 1,
            crashes: 1,
            promotions: 1,
            ..NONE
        },
        reaches: &[0, 1, 12],
    },
    Configuration {
        name: "two-and-two-site",
        replicas: 4,
        bounds: Bounds {
            promotions: 1,
            deactivations: 1,
            ..NONE
        },
        reaches: &[5, 6, 13],
    },
];

/// The smallest configuration in which a mutation is refuted. With a reason: one in which it is not, explored to the end, and why it
/// can't be.
#[must_use]
pub fn refuting(mutation: Mutation) -> (Configuration, Option<&'static str>) {
    use Mutation as M;
    let two = |bounds| Configuration {
        name: "mutation",
        replicas: 2,
        bounds,
        reaches: &[],
    };
    let set = Bounds {
        writes: 2,
        shrinks: 1,
        grows: 1,
        ..NONE
    };
    let site = Bounds {
        writes: 1,
        promotions: 1,
        deactivations: 1,
        ..NONE
    };
    let bounds = match mutation {
        M::AckBeforeDurable | M::ShrinkWithoutCommit | M::AckDuringShrink | M::ReadUncommitted => {
            set
        }
        M::PromoteFromOutside | M::ServeBeforeOpened | M::SkipReconcile => Bounds {
            crashes: 1,
            promotions: 1,
            ..set
        },
        M::GrowBeforeCopied | M::JoinerNotCounted | M::SkipDivergence => set,
        M::CopyOverNewer | M::UseLateMap | M::NoKvdbGrant => set,
        M::LostJoinerNotCounted => Bounds {
            disconnects: 1,
            ..set
        },
        M::ForgetMapOnCrash => Bounds {
            crashes: 1,
            promotions: 1,
            ..set
        },
        M::FenceWithoutProof
        | M::ReadAfterGrant
        | M::GrantFromReceipt
        | M::PromiseDespiteNewEpoch => site,
        M::AcceptOldEpoch => Bounds {
            disconnects: 1,
            ..site
        },
        M::RestartForgetsPromise | M::RestartFollowsAtOnce => Bounds { crashes: 1, ..site },
        M::EpochNotPersisted => Bounds {
            writes: 0,
            crashes: 1,
            promotions: 3,
            releases: 2,
            ..site
        },
        M::ReplayAfterDemotion => Bounds {
            promotions: 2,
            grows: 1,
            deactivations: 2,
            activations: 1,
            ..site
        },
        M::ReplacedDiskCounts => Bounds {
            writes: 1,
            crashes: 1,
            promotions: 1,
            replacements: 1,
            ..NONE
        },
        M::ForcedKeepsSet => Bounds {
            forced: 1,
            promotions: 1,
            ..set
        },
    };
    let redundant = match mutation {
        M::UseLateMap => Some(
            "a map starts at its holder's committed position, and whoever was in the set holds that: it never starts after the last \
             record in common, unless another rule was broken before",
        ),
        M::NoKvdbGrant => Some(
            "while a set lies in one site, nobody outside it is promoted without --accept-data-loss, which is not in the model",
        ),
        _ => None,
    };
    (two(bounds), redundant)
}

//! What a seed decides before anything runs: sizes, times, and which faults come how often. Each seed switches some kinds of fault off
//! and turns others up ("swarm testing": Groce and others, 2012): what always happens hides what happens only in its absence.

use crate::clock::DRIFT_MILLIONTHS_MAX;
use crate::schedule::{MICROSECOND, MILLISECOND, SECOND};
use isthmus_catalog::{OnPeerLoss, VolumePolicy};
use isthmus_engine::{DomainId, Settings};
use isthmus_journal::Shape;
use isthmus_simulated_disk::Random;
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A node's process is killed; the machine's page cache stays.
    Kill,
    /// A node loses power.
    Crash,
    /// Both nodes lose power at once.
    CrashBoth,
    /// A node's process is stopped for a while (SIGSTOP).
    Pause,
    /// The link is cut in both directions.
    Cut,
    /// The link is cut in one direction.
    CutOneWay,
    /// The link breaks and comes back at once.
    Flap,
    /// A site is cut off from the other one and from kvdb.
    Isolate,
    /// A node doesn't reach kvdb.
    KvdbUnreachable,
    /// Nobody reaches kvdb.
    KvdbDown,
    /// A disk is slow.
    SlowDisk,
    /// A disk is replaced by an empty one.
    ReplaceDisk,
}

/// All kinds, with how much more often than others they come when they come at all.
const FAULTS: [(Fault, u64); 12] = [
    (Fault::Kill, 4),
    (Fault::Crash, 6),
    (Fault::CrashBoth, 3),
    (Fault::Pause, 4),
    (Fault::Cut, 5),
    (Fault::CutOneWay, 3),
    (Fault::Flap, 5),
    (Fault::Isolate, 4),
    (Fault::KvdbUnreachable, 3),
    (Fault::KvdbDown, 2),
    (Fault::SlowDisk, 3),
    (Fault::ReplaceDisk, 1),
];

/// A volume to be made.
#[derive(Clone, Debug)]
pub struct VolumePlan {
    /// Its size in blocks.
    pub blocks: u64,
    /// What its operator chose.
    pub policy: VolumePolicy,
    /// Its clients.
    pub clients: u64,
}

/// What a seed decides.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The protocol's times.
    pub settings: Settings,
    /// Each node's journal.
    pub shape: Shape,
    /// The volumes.
    pub volumes: Vec<VolumePlan>,
    /// How fast each node's clock runs, for a million true nanoseconds.
    pub clock_rates: [u64; 2],
    /// How long the link takes, in nanoseconds, without jitter.
    pub link_delay: u64,
    /// What is added to it at most.
    pub link_jitter: u64,
    /// After how long without a sign of life a session is given up.
    pub session_timeout: u64,
    /// How long faults go on.
    pub faulty_until: u64,
    /// Kinds of fault that come, with their weights.
    pub faults: Vec<(Fault, u64)>,
    /// The mean time between two faults.
    pub fault_every: u64,
    /// The mean time between two wishes of the operator; none: there is no operator.
    pub operator_every: Option<u64>,
    /// The mean time between two of a client's looks at what to do.
    pub think: u64,
    /// Operations that all clients issue together, at most: bounds the work of a seed.
    pub operations_max: u64,
    /// The longest write, in sectors.
    pub write_sectors_max: u64,
    /// In a hundred: how often an operation is a read.
    pub reads_percent: u64,
}

fn pick(random: &mut Random, from: &[u64]) -> u64 {
    from[random.below(from.len() as u64) as usize]
}

impl Scenario {
    /// The scenario of a seed: `random` is that seed's stream.
    #[must_use]
    pub fn new(random: &mut Random) -> Scenario {
        let (lease, timeout) = match random.below(3) {
            0 => (3_000, 2_000),
            1 => (1_500, 1_000),
            _ => (800, 600),
        };
        let settings = Settings {
            lease: Duration::from_millis(lease),
            replica_timeout: Duration::from_millis(timeout),
        };
        let shape = Shape {
            segment_bytes: pick(random, &[512, 512, 768, 1024]) << 10,
            segments: pick(random, &[12, 16]) as u32,
        };
        let volumes = (0..pick(random, &[1, 1, 2, 3]))
            .map(|_| VolumePlan {
                blocks: pick(random, &[64, 128, 300, 512]),
                policy: VolumePolicy {
                    on_peer_loss: if random.chance(3, 4) {
                        OnPeerLoss::Degrade
                    } else {
                        OnPeerLoss::Suspend
                    },
                    preferred_domain: match random.below(4) {
                        0 => Some(DomainId(1)),
                        1 => Some(DomainId(2)),
                        _ => None,
                    },
                    ..VolumePolicy::default()
                },
                clients: pick(random, &[1, 2, 2, 3]),
            })
            .collect();
        let rate = |random: &mut Random| {
            1_000_000 - DRIFT_MILLIONTHS_MAX + random.below(2 * DRIFT_MILLIONTHS_MAX + 1)
        };
        let link_delay = pick(random, &[50, 500, 2_000, 10_000]) * MICROSECOND;
        let mut faults: Vec<(Fault, u64)> = Vec::new();
        for (fault, weight) in FAULTS {
            if random.chance(2, 3) {
                faults.push((fault, weight * pick(random, &[1, 1, 1, 4])));
            }
        }
        Scenario {
            settings,
            shape,
            volumes,
            clock_rates: [rate(random), rate(random)],
            link_delay,
            link_jitter: link_delay / 2 + pick(random, &[10, 200, 5_000]) * MICROSECOND,
            session_timeout: pick(random, &[300, 800, 2_000]) * MILLISECOND,
            faulty_until: (10 + random.below(40)) * SECOND,
            faults,
            fault_every: pick(random, &[300, 1_000, 3_000]) * MILLISECOND,
            operator_every: random
                .chance(2, 3)
                .then(|| pick(random, &[1_000, 4_000, 10_000]) * MILLISECOND),
            think: pick(random, &[2, 10, 50]) * MILLISECOND,
            operations_max: pick(random, &[300, 800, 1_500]),
            write_sectors_max: pick(random, &[8, 32, 128, 400]),
            reads_percent: pick(random, &[10, 30, 60]),
        }
    }
}

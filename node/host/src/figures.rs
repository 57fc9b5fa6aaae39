//! What a host counts and times, volume by volume: plain integers of the thread that serves, copied out when somebody asks.
//!
//! Nothing here is locked, allocated or timed for its own sake: what is noted is the difference of two times that were at hand.

use crate::status::VolumeStatus;
use isthmus_engine::Configuration;
use std::time::Duration;

/// The first bucket takes what lasts up to this power of two of microseconds: 8 µs.
const FIRST_POWER: u32 = 3;
/// Buckets with a bound: up to 2^25 µs, some 34 s. What lasts longer is in one more.
const BOUNDED: usize = 23;

/// How often something took how long: buckets whose bounds are powers of two in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BOUNDED + 1],
    nanoseconds: u64,
}

impl Histogram {
    /// Something took so long.
    pub fn note(&mut self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds = self.nanoseconds.saturating_add(nanoseconds);
        // Up to and with the bound, so that a bound in the text format means what it says.
        let bits = u64::BITS - nanoseconds.div_ceil(1000).saturating_sub(1).leading_zeros();
        let index = bits.saturating_sub(FIRST_POWER) as usize;
        self.buckets[index.min(BOUNDED)] += 1;
    }

    /// How often.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How long in all.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds)
    }

    /// For each bound, how often something took at most so long.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut below = 0;
        let bounded = self.buckets.iter().take(BOUNDED).zip(FIRST_POWER..);
        bounded.map(move |(count, power)| {
            below += count;
            (Duration::from_micros(1 << power), below)
        })
    }

    /// Adds what another one has noted.
    pub fn add(&mut self, other: &Histogram) {
        for (ours, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *ours += theirs;
        }
        self.nanoseconds = self.nanoseconds.saturating_add(other.nanoseconds);
    }
}

/// Clients' requests of one kind that were answered well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Bytes that they were about.
    pub bytes: u64,
    /// How long each took, from when the host saw it to its answer.
    pub latency: Histogram,
}

impl Served {
    fn add(&mut self, other: &Served) {
        self.bytes += other.bytes;
        self.latency.add(&other.latency);
    }
}

/// Why a volume's epoch rose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochChange {
    /// A primary was chosen where there was none.
    Promotion,
    /// The primary was taken away, and none put in its place: its domain was deactivated.
    Demotion,
    /// Another replica took the primary's place.
    Takeover,
    /// Replicas left the in-sync set.
    Shrink,
    /// Replicas came into the in-sync set.
    Growth,
    /// Only the number is new.
    Renewal,
}

impl EpochChange {
    /// All of them, in the order in which they are counted.
    pub const ALL: [EpochChange; 6] = [
        EpochChange::Promotion,
        EpochChange::Demotion,
        EpochChange::Takeover,
        EpochChange::Shrink,
        EpochChange::Growth,
        EpochChange::Renewal,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            EpochChange::Promotion => "promotion",
            EpochChange::Demotion => "demotion",
            EpochChange::Takeover => "takeover",
            EpochChange::Shrink => "shrink",
            EpochChange::Growth => "growth",
            EpochChange::Renewal => "renewal",
        }
    }

    /// What led from one configuration to the other; none when the epoch is the same.
    #[must_use]
    pub fn between(old: &Configuration, new: &Configuration) -> Option<EpochChange> {
        if new.epoch <= old.epoch {
            return None;
        }
        Some(match (old.primary, new.primary) {
            (None, Some(_)) => EpochChange::Promotion,
            (Some(_), None) => EpochChange::Demotion,
            (Some(one), Some(other)) if one != other => EpochChange::Takeover,
            _ if !old.in_sync.is_subset(&new.in_sync) => EpochChange::Shrink,
            _ if old.in_sync != new.in_sync => EpochChange::Growth,
            _ => EpochChange::Renewal,
        })
    }
}

/// What was counted and timed for one volume on this node, since it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Reads.
    pub reads: Served,
    /// Writes.
    pub writes: Served,
    /// Trims, and writes of zeroes.
    pub trims: Served,
    /// Flushes.
    pub flushes: Served,
    /// Clients' requests that were answered with an error.
    pub failed: u64,
    /// How long this node's journal took to make a record durable, as primary and as secondary.
    pub journal: Histogram,
    /// Only on a primary: of a write's way to a secondary and back, what was not spent in the secondary's journal. One sample for each
    /// acknowledgement that brings news.
    pub wire: Histogram,
    /// Only on a primary: what was spent in the secondary's journal, as that says.
    pub peer_journal: Histogram,
    /// How often the epoch rose, in the order of [`EpochChange::ALL`].
    pub epoch_changes: [u64; EpochChange::ALL.len()],
    /// For how long requests could not be answered here, in all.
    pub frozen: Duration,
}

impl Figures {
    /// Adds those of another volume.
    pub fn add(&mut self, other: &Figures) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.trims.add(&other.trims);
        self.flushes.add(&other.flushes);
        self.failed += other.failed;
        self.journal.add(&other.journal);
        self.wire.add(&other.wire);
        self.peer_journal.add(&other.peer_journal);
        for (ours, theirs) in self.epoch_changes.iter_mut().zip(other.epoch_changes) {
            *ours += theirs;
        }
        self.frozen += other.frozen;
    }
}

/// One volume's replica on this node in figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFigures {
    /// What it is now.
    pub status: VolumeStatus,
    /// What was counted and timed.
    pub figures: Figures,
    /// Clients' requests under way.
    pub in_flight: usize,
    /// How long the oldest of them has been under way.
    pub oldest: Duration,
    /// For how long requests can't be answered now; zero when they can.
    pub frozen_for: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_engine::{Epoch, Incarnation, NodeId, ReplicaId};

    fn us(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    #[test]
    fn a_bucket_takes_what_lasts_up_to_its_bound_and_with_it() {
        let mut histogram = Histogram::default();
        for took in [0, 8, 9, 16, 17, 1 << 25, (1 << 25) + 1, 1 << 60] {
            histogram.note(us(took));
        }
        let below: Vec<(Duration, u64)> = histogram.cumulative().collect();
        assert_eq!(below[..3], [(us(8), 2), (us(16), 4), (us(32), 5)]);
        assert_eq!(below.last(), Some(&(us(1 << 25), 6)));
        assert_eq!(histogram.count(), 8, "two are above the last bound");
        histogram.note(Duration::from_nanos(8001));
        let below: Vec<(Duration, u64)> = histogram.cumulative().collect();
        assert_eq!(below[..2], [(us(8), 2), (us(16), 5)]);
    }

    #[test]
    fn histograms_add_up() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.note(us(10));
        other.note(us(100));
        one.add(&other);
        assert_eq!((one.count(), one.sum()), (2, us(110)));
    }

    #[test]
    fn an_epoch_that_rises_has_a_reason() {
        let replica = |node| ReplicaId {
            node: NodeId(node),
            incarnation: Incarnation(1),
        };
        let configuration = |number, primary: Option<u32>, set: &[u32]| Configuration {
            epoch: Epoch {
                generation: 0,
                number,
            },
            primary: primary.map(replica),
            opened: false,
            in_sync: set.iter().map(|node| replica(*node)).collect(),
        };
        let idle = configuration(1, None, &[1, 2]);
        let first = configuration(2, Some(1), &[1, 2]);
        let alone = configuration(3, Some(1), &[1]);
        for (old, new, reason) in [
            (&idle, &first, Some(EpochChange::Promotion)),
            (&first, &alone, Some(EpochChange::Shrink)),
            (&alone, &first, None),
            (
                &alone,
                &configuration(4, Some(1), &[1, 2]),
                Some(EpochChange::Growth),
            ),
            (
                &first,
                &configuration(4, Some(2), &[2]),
                Some(EpochChange::Takeover),
            ),
            (
                &first,
                &configuration(4, None, &[1, 2]),
                Some(EpochChange::Demotion),
            ),
            (
                &first,
                &configuration(4, Some(1), &[1, 2]),
                Some(EpochChange::Renewal),
            ),
        ] {
            assert_eq!(EpochChange::between(old, new), reason, "{old:?} to {new:?}");
        }
    }
}

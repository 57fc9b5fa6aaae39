//! A run, written down before it begins: sizes and times, and every fault, every wish of the operator and every operation of a client
//! with its time. What is left to chance (latencies, delays, what a crash keeps of unsynced data) comes from `seed` while it runs.
//!
//! Written down, so that a failure can be made smaller by leaving things out (`shrink`), and kept as a transcript that people can read
//! (`scenarios/`). Modules: `drawing` (the scenario of a seed), `troubles` (faults and wishes that belong together), `edges` (what
//! strikes in a narrow window), `text` (as lines of text, and back).

mod drawing;
mod edges;
mod text;
mod troubles;

use crate::checkers::Kind;
use crate::schedule::MICROSECOND;
use isthmus_catalog::{Durability, OnPeerLoss, VolumePolicy};
use isthmus_engine::{DomainId, Settings};
use isthmus_journal::Shape;
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub use drawing::Style;
pub use text::TextError;

/// Microseconds of true time since the beginning.
pub type Micros = u64;

/// A run, written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Where all that is left to chance comes from.
    pub seed: u64,
    /// Sizes and times.
    pub world: World,
    /// The volumes.
    pub volumes: Vec<VolumePlan>,
    /// The faults, in order of time.
    pub faults: Vec<PlannedFault>,
    /// What the operator asks for, in order of time.
    pub wishes: Vec<PlannedWish>,
    /// The clients.
    pub clients: Vec<ClientPlan>,
}

/// Sizes and times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// How long a grant holds.
    pub lease_ms: u64,
    /// After how long a silent replica is shrunk out.
    pub replica_timeout_ms: u64,
    /// Size of a journal segment.
    pub segment_kib: u64,
    /// Segments in each journal.
    pub segments: u32,
    /// How much faster than true time each clock runs, in millionths: a1, b1, w1.
    pub drift_millionths: [i64; 3],
    /// How long the link between the sites takes, without jitter.
    pub link_delay_us: u64,
    /// What is added to it at most.
    pub link_jitter_us: u64,
    /// After how long without a sign of life a session is given up.
    pub session_timeout_ms: u64,
    /// How many of a thousand operations of a data node's disk take far longer than the others.
    #[serde(default)]
    pub disk_slow_per_mille: u64,
    /// When faults end and everything heals.
    pub faults_end_us: Micros,
    /// What kvdb is.
    #[serde(default)]
    pub kvdb: KvdbKind,
}

/// What kvdb is in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvdbKind {
    /// The atomic stand-in: transcripts from before there was another one mean it.
    #[default]
    StandIn,
    /// Three members, as they ship.
    Replicated,
}

impl World {
    /// The protocol's times.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            lease: Duration::from_millis(self.lease_ms),
            replica_timeout: Duration::from_millis(self.replica_timeout_ms),
        }
    }

    /// Each node's journal.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape {
            segment_bytes: self.segment_kib << 10,
            segments: self.segments,
        }
    }

    /// Whether all clocks keep the bound on which promise 3 (no stale read) rests.
    #[must_use]
    pub fn clocks_are_good(&self) -> bool {
        let bound = crate::clock::DRIFT_MILLIONTHS_MAX;
        self.drift_millionths
            .iter()
            .all(|drift| drift.unsigned_abs() <= bound)
    }
}

/// A volume to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePlan {
    /// Its size in blocks, once it has grown.
    pub blocks: u64,
    /// Its size when it is made, if it grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_with_blocks: Option<u64>,
    /// Whether its primary goes on without a lost peer (`degrade`), or waits for it (`suspend`).
    pub degrade: bool,
    /// The number of the domain that it prefers, if any.
    pub preferred: Option<u32>,
    /// Whether its writes are acknowledged when they are held, and made durable by a flush.
    #[serde(default)]
    pub flush: bool,
}

impl VolumePlan {
    /// Its size in bytes when it is made.
    #[must_use]
    pub fn bytes_made_with(&self) -> u64 {
        self.made_with_blocks.unwrap_or(self.blocks) * isthmus_engine::BLOCK_BYTES
    }

    /// What its operator chose.
    #[must_use]
    pub fn policy(&self) -> VolumePolicy {
        VolumePolicy {
            on_peer_loss: if self.degrade {
                OnPeerLoss::Degrade
            } else {
                OnPeerLoss::Suspend
            },
            preferred_domain: self.preferred.map(DomainId),
            durability: match self.flush {
                true => Durability::Flush,
                false => Durability::Acknowledged,
            },
        }
    }
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFault {
    /// When it begins.
    pub at_us: Micros,
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
}

/// A fault. Nodes are named by their index: 0 is a1, 1 is b1, 2 is the witness w1 (which holds no volumes). `for_us` is its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "fault")]
#[allow(missing_docs, reason = "the fields say the same everywhere: see above")]
pub enum Fault {
    /// A node's process is killed; the machine's page cache stays.
    Kill { node: usize, for_us: Micros },
    /// A node loses power.
    PowerLoss { node: usize, for_us: Micros },
    /// Both data nodes lose power at once.
    PowerLossAtBoth { for_us: [Micros; 2] },
    /// A node's process is stopped for a while (SIGSTOP).
    Pause { node: usize, for_us: Micros },
    /// The link between the sites is cut in both directions.
    Cut { for_us: Micros },
    /// The link is cut in one direction: what `from` sends is lost.
    CutOneWay { from: usize, for_us: Micros },
    /// The link breaks and comes back at once.
    Flap,
    /// The link takes longer by so much.
    SlowLink { by_us: u64, for_us: Micros },
    /// A site is cut off from the other one and from kvdb.
    Isolate { node: usize, for_us: Micros },
    /// A node doesn't reach kvdb.
    KvdbUnreachable { node: usize, for_us: Micros },
    /// What the witness sends to a node is lost; with `both`, what the node sends to it, too.
    CutWitness {
        node: usize,
        both: bool,
        for_us: Micros,
    },
    /// So many of a thousand of kvdb's messages are lost.
    KvdbLoss { per_mille: u64, for_us: Micros },
    /// Nobody reaches kvdb.
    KvdbDown { for_us: Micros },
    /// Power is lost in the middle of a checkpoint: right after so many changes from now to files that checkpoints write (with
    /// `commit`, only those are counted that make a checkpoint current).
    PowerLossInCheckpoint {
        node: usize,
        changes: u64,
        commit: bool,
        for_us: Micros,
    },
    /// Bits of what a node's extents hold turn over.
    FlipBits { node: usize, count: u64 },
    /// The next writes to a node's extents are reported as done and lost, or land `blocks` blocks away where that is not 0.
    StrayWrites {
        node: usize,
        count: u64,
        blocks: u64,
    },
    /// A node's extents and journal find no more space.
    FullDisk { node: usize, for_us: Micros },
    /// A node's disk takes no more changes, until it is mended and the node started again.
    ReadOnlyDisk { node: usize, for_us: Micros },
    /// A disk takes so many times as long.
    SlowDisk {
        node: usize,
        times: u64,
        for_us: Micros,
    },
    /// A node finds the link to the other one too slow for a replica behind it, whatever it is like.
    SlowPeer { node: usize, for_us: Micros },
    /// A disk is replaced by an empty one, where no volume would be lost by it.
    ReplaceDisk { node: usize, for_us: Micros },
}

/// What the operator asks for, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedWish {
    /// When.
    pub at_us: Micros,
    /// What.
    #[serde(flatten)]
    pub wish: Wish,
}

/// What an operator asks for: domains by number, 1 is site-a, 2 is site-b, 3 is the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "wish")]
#[allow(missing_docs, reason = "most have one field, the domain's number")]
pub enum Wish {
    /// `domain-ctl deactivate clusterdomain`.
    Deactivate { domain: u32 },
    /// `domain-ctl deactivate clusterdomain --accept-data-loss`.
    DeactivateAcceptingLoss { domain: u32 },
    /// `domain-ctl activate clusterdomain`.
    Activate { domain: u32 },
    /// `domain-ctl delete volume`, of the volume with this index; refused while it is served.
    DeleteVolume { volume: usize },
    /// `domain-ctl create volume`: one that no client comes to. It is empty, whatever was in its place before.
    CreateVolume { blocks: u64 },
    /// `domain-ctl expand volume`, of the volume with this index, to so many blocks.
    ExpandVolume { volume: usize, blocks: u64 },
    /// `domain-ctl relocate volume`, of the volume with this index, to the node with this one.
    RelocateVolume { volume: usize, node: usize },
}

/// A client: it opens its volume somewhere, does things, leaves, and comes back elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientPlan {
    /// The index of its volume.
    pub volume: usize,
    /// What it does, visit after visit.
    pub visits: Vec<Visit>,
}

/// One time that a client opens its volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// How long after the end of the visit before it comes.
    pub after_us: Micros,
    /// The node's index. It comes to the other one when it was refused there several times.
    pub node: usize,
    /// Operations that it has under way at once, at most.
    pub depth: usize,
    /// Whether it leaves without waiting for its answers.
    pub rude: bool,
    /// What it does there, in order of beginning.
    pub operations: Vec<PlannedOperation>,
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedOperation {
    /// How long after the one before (or the opening of the volume) it begins, at the earliest.
    pub after_us: Micros,
    /// What.
    pub kind: Kind,
    /// The first sector.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Scenario {
    /// How many things a person would have to read.
    #[must_use]
    pub fn length(&self) -> usize {
        let visits = self.clients.iter().flat_map(|client| &client.visits);
        self.faults.len()
            + self.wishes.len()
            + visits
                .map(|visit| 1 + visit.operations.len())
                .sum::<usize>()
    }

    /// When faults end, in nanoseconds.
    #[must_use]
    pub fn faults_end(&self) -> u64 {
        self.world.faults_end_us * MICROSECOND
    }
}

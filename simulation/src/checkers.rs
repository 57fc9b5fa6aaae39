//! What must hold, whatever happens. Each checker is a file that says why its rule must hold; this one hands them the facts.
//!
//! Besides these: no replica stops (`Standing::Damaged`), no process panics, every replica opens after a restart, the catalog keeps its
//! rules, no block is unreadable, and after all faults everything is well in bounded time (`cluster/settling.rs`).

mod acknowledging;
mod bounds;
mod flushing;
pub mod history;
mod progress;
mod replicas;
mod sectors;
mod serving;
pub mod votes;

pub use bounds::{Held, check_bounds};
pub use progress::Progress;
pub use replicas::Replicas;

use crate::content::{self, SECTOR_BYTES};
use acknowledging::Acknowledging;
use bytes::Bytes;
use flushing::Flushing;
use isthmus_catalog::{Catalog, DomainState};
use isthmus_engine::{Epoch, NodeId, Seq, VolumeId};
use sectors::Sectors;
use serde::{Deserialize, Serialize};
use serving::Serving;
use std::collections::{BTreeMap, BTreeSet};

/// A broken rule: its name, and what was found.
pub type Broken = (&'static str, String);

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// To see sectors.
    Read,
    /// To give them new content.
    Write,
    /// To make them zero.
    Zero,
    /// To let go of them: whole blocks inside become zero.
    Trim,
    /// To make everything durable.
    Flush,
}

/// A moment in the one order in which the simulation sees things happen. Never twice the same.
pub type Stamp = u64;
/// Not yet.
pub const NEVER: Stamp = u64::MAX;

/// A client's operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its number, which is also what a write leaves in its sectors.
    pub number: u64,
    /// Of which volume.
    pub volume: VolumeId,
    /// What.
    pub kind: Kind,
    /// The first sector that it may change or sees.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// When it was asked for.
    pub begun: Stamp,
    /// When it was answered well; [`NEVER`] if it failed or was not answered.
    pub done: Stamp,
    /// For one that was not: the moment from which on it can't happen any more.
    pub void: Stamp,
    /// What a read saw, by sector.
    pub saw: Vec<u64>,
    /// Whether it is durable when it is answered, whatever the volume's policy (FUA).
    pub durably: bool,
    /// Whether it was answered, and may have been lost with power since, as the volume's policy allows.
    pub maybe_lost: bool,
}

impl Operation {
    /// An operation that has not begun yet, about `count` sectors from `first`.
    #[must_use]
    pub fn new(number: u64, volume: VolumeId, kind: Kind, first: u64, count: u64) -> Operation {
        let (first, count) = match kind {
            // Only whole blocks are given back.
            Kind::Trim => {
                let start = first.next_multiple_of(8);
                let end = (first + count) / 8 * 8;
                (start, end.saturating_sub(start))
            }
            Kind::Flush => (0, 0),
            Kind::Read | Kind::Write | Kind::Zero => (first, count),
        };
        Operation {
            number,
            volume,
            kind,
            first,
            count,
            begun: NEVER,
            done: NEVER,
            void: NEVER,
            saw: Vec::new(),
            durably: false,
            maybe_lost: false,
        }
    }
}

/// All checkers.
#[derive(Debug)]
pub struct Checkers {
    stamp: Stamp,
    operations: BTreeMap<u64, Operation>,
    /// Changes that were not answered well, by volume, while they may still happen.
    doubtful: BTreeMap<VolumeId, Vec<u64>>,
    acknowledging: Acknowledging,
    flushing: Flushing,
    serving: Serving,
    /// Whether all clocks keep their bound: only then is a read promised to be fresh.
    clocks_are_good: bool,
    /// Volumes of which a disk has not kept what it was given: an operation may fail there while the good copy is out of reach.
    rotten: BTreeSet<VolumeId>,
    /// Whether faults are over: from then on every read counts, whatever the clocks.
    all_is_well: bool,
    volumes: Vec<(VolumeId, u64)>,
    /// Volumes of which the operator accepted the loss of writes: what was acknowledged may be gone. All other rules hold for them.
    lossy: BTreeSet<VolumeId>,
    /// What never goes back.
    pub progress: Progress,
    /// What each site showed at the end.
    pub replicas: Replicas,
    /// Answered well.
    pub answered: u64,
}

impl Checkers {
    /// Checkers of volumes that read as zeroes, with their sizes in bytes. `clocks_are_good`: see promise 3.
    #[must_use]
    pub fn new(volumes: &[(VolumeId, u64)], clocks_are_good: bool) -> Checkers {
        Checkers {
            stamp: 0,
            operations: BTreeMap::new(),
            doubtful: BTreeMap::new(),
            acknowledging: Acknowledging::default(),
            flushing: Flushing::default(),
            serving: Serving::default(),
            clocks_are_good,
            rotten: BTreeSet::new(),
            all_is_well: false,
            volumes: volumes.to_vec(),
            lossy: BTreeSet::new(),
            progress: Progress::default(),
            replicas: Replicas::default(),
            answered: 0,
        }
    }

    /// A volume was made while all ran: it reads as zeroes.
    pub fn created(&mut self, volume: VolumeId, bytes: u64) {
        self.volumes.push((volume, bytes));
    }

    /// A disk has not kept what it was given of a volume.
    pub fn rotten(&mut self, volume: VolumeId) {
        self.rotten.insert(volume);
    }

    /// Whether an operation may fail because no good copy of a block is in reach.
    #[must_use]
    pub fn may_be_unreadable(&self, volume: VolumeId) -> bool {
        self.rotten.contains(&volume)
    }

    /// Faults are over.
    pub fn all_is_well(&mut self) {
        self.all_is_well = true;
    }

    fn stamp(&mut self) -> Stamp {
        self.stamp += 1;
        self.stamp
    }

    /// A client asks for something.
    pub fn begins(&mut self, mut operation: Operation) {
        operation.begun = self.stamp();
        if operation.kind != Kind::Read {
            self.doubtful
                .entry(operation.volume)
                .or_default()
                .push(operation.number);
        }
        self.operations.insert(operation.number, operation);
    }

    /// A node answers an operation well. `data` is what a read saw.
    ///
    /// # Errors
    /// The broken rule.
    pub fn done(
        &mut self,
        node: NodeId,
        epoch: Epoch,
        number: u64,
        data: &[Bytes],
    ) -> Result<(), Broken> {
        let now = self.stamp();
        let Some(operation) = self.operations.get_mut(&number) else {
            return Err((
                "answers",
                format!("{node} answers operation {number}, which nobody asked for"),
            ));
        };
        if operation.done != NEVER {
            return Err((
                "answers",
                format!("{node} answers operation {number} twice"),
            ));
        }
        operation.done = now;
        self.answered += 1;
        if operation.kind == Kind::Read {
            operation.saw = content::read_all(operation, data)
                .map_err(|what| ("bytes", format!("{node}: {what}")))?;
            if !self.clocks_are_good && !self.all_is_well {
                self.operations.remove(&number);
                return Ok(());
            }
        }
        // A trim of no whole block asks nobody.
        if operation.count > 0 || operation.kind == Kind::Flush {
            let late_is_fine = !self.clocks_are_good;
            self.acknowledging
                .answered(operation, node, epoch, late_is_fine)
                .map_err(|what| ("epochs", what))?;
            self.serving
                .answered(operation, node, late_is_fine)
                .map_err(|what| ("serving", what))?;
        }
        Ok(())
    }

    /// An inspection of a site has read something.
    pub fn inspected(&mut self, node: usize, number: u64) {
        if let Some(read) = self.operations.get(&number) {
            self.replicas.saw(read.volume, node, read.first, &read.saw);
        }
    }

    /// An operation failed: it may have happened, or still happen.
    pub fn failed(&mut self, number: u64) {
        if let Some(operation) = self.operations.get_mut(&number)
            && operation.kind == Kind::Read
        {
            self.operations.remove(&number);
        }
    }

    /// kvdb has committed that a new primary serves: what was asked for before and is in doubt has happened by now, or never will.
    pub fn opened(&mut self, volume: VolumeId, epoch: Epoch, primary: NodeId) {
        let now = self.stamp();
        self.serving.opened(now, volume, epoch, primary);
        self.flushing.opened(now, volume);
        for number in self.doubtful.remove(&volume).unwrap_or_default() {
            if let Some(operation) = self.operations.get_mut(&number)
                && operation.done == NEVER
            {
                operation.void = now;
            }
        }
    }

    /// All members of a set whose writes are answered when they are held have lost power.
    pub fn all_kernels_lost(&mut self, volume: VolumeId) {
        let now = self.stamp();
        self.flushing.all_kernels_lost(now, volume);
    }

    /// kvdb has committed a deactivation: where it puts a replica into a set that was not in it, the operator has accepted a loss.
    pub fn deactivating(&mut self, before: &Catalog, after: &Catalog) {
        for (volume, record) in &after.volumes {
            let old = before.volumes.get(volume);
            // One that may lack what it held counts as it is, by the operator's word.
            let rebooted = before.rebooted.get(volume);
            let taken = rebooted.is_some_and(|rebooted| !rebooted.is_disjoint(&record.in_sync))
                && !after.rebooted.contains_key(volume);
            if taken || old.is_some_and(|old| !record.in_sync.is_subset(&old.in_sync)) {
                self.lossy.insert(*volume);
            }
        }
    }

    /// A primary has answered a client well, with everything up to here committed.
    ///
    /// # Errors
    /// When an earlier one had committed more.
    pub fn answers(
        &mut self,
        node: NodeId,
        volume: VolumeId,
        committed: Seq,
    ) -> Result<(), Broken> {
        if !self.clocks_are_good || self.lossy.contains(&volume) {
            return Ok(());
        }
        self.progress
            .answers(node, volume, committed)
            .map_err(|what| ("progress", what))
    }

    /// kvdb has committed a new state of a node's domain.
    pub fn domain_state(&mut self, node: NodeId, state: Option<DomainState>) {
        let now = self.stamp();
        self.serving.domain_state(now, node, state);
    }

    /// What can be said only when all is over.
    ///
    /// # Errors
    /// The broken rule.
    pub fn at_the_end(&self) -> Result<(), Broken> {
        self.replicas.check().map_err(|what| ("replicas", what))?;
        for (volume, bytes) in &self.volumes {
            if self.lossy.contains(volume) {
                continue;
            }
            let operations = self
                .operations
                .values()
                .filter(|operation| operation.volume == *volume);
            let broken = |what| ("sectors", format!("{volume}: {what}"));
            if self.flushing.loses_nothing(*volume) {
                Sectors::new(bytes / SECTOR_BYTES, operations)
                    .check()
                    .map_err(broken)?;
                continue;
            }
            let operations: Vec<Operation> = operations.cloned().collect();
            for era in self.flushing.eras(*volume, &operations) {
                let broken = |what| ("sectors", format!("{volume}, {}: {what}", era.name));
                Sectors::new(bytes / SECTOR_BYTES, era.operations.iter())
                    .check()
                    .map_err(broken)?;
            }
        }
        Ok(())
    }
}

//! What must hold, whatever happens. Each checker is a file that says why its rule must hold; this one hands them the facts.
//!
//! Besides these: no replica stops (`Standing::Damaged`), no process panics, every replica opens after a restart, the catalog keeps its
//! rules, no block is unreadable, and after all faults everything is well in bounded time (`cluster/settling.rs`).

mod acknowledging;
pub mod history;
mod sectors;
mod serving;
pub mod votes;

use crate::content::{self, SECTOR_BYTES};
use acknowledging::Acknowledging;
use isthmus_catalog::DomainState;
use isthmus_engine::{Epoch, NodeId, VolumeId};
use sectors::Sectors;
use serving::Serving;
use std::collections::BTreeMap;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    serving: Serving,
    volumes: Vec<(VolumeId, u64)>,
    /// Answered well.
    pub answered: u64,
}

impl Checkers {
    /// Checkers of volumes that read as zeroes, with their sizes in bytes.
    #[must_use]
    pub fn new(volumes: &[(VolumeId, u64)]) -> Checkers {
        Checkers {
            stamp: 0,
            operations: BTreeMap::new(),
            doubtful: BTreeMap::new(),
            acknowledging: Acknowledging::default(),
            serving: Serving::default(),
            volumes: volumes.to_vec(),
            answered: 0,
        }
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
        data: &[u8],
    ) -> Result<(), String> {
        let now = self.stamp();
        let Some(operation) = self.operations.get_mut(&number) else {
            return Err(format!(
                "{node} answers operation {number}, which nobody asked for"
            ));
        };
        if operation.done != NEVER {
            return Err(format!("{node} answers operation {number} twice"));
        }
        operation.done = now;
        self.answered += 1;
        if operation.kind == Kind::Read {
            if data.len() as u64 != operation.count * SECTOR_BYTES {
                return Err(format!(
                    "read {number} got {} bytes for {} sectors",
                    data.len(),
                    operation.count
                ));
            }
            for (bytes, sector) in data
                .chunks_exact(SECTOR_BYTES as usize)
                .zip(operation.first..)
            {
                let write = content::read(operation.volume, sector, bytes).map_err(|what| {
                    format!("{node} {}: read {number}: {what}", operation.volume)
                })?;
                operation.saw.push(write);
            }
        }
        // A trim of no whole block asks nobody.
        if operation.count > 0 || operation.kind == Kind::Flush {
            self.acknowledging.answered(operation, node, epoch)?;
            self.serving.answered(operation, node)?;
        }
        Ok(())
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
        for number in self.doubtful.remove(&volume).unwrap_or_default() {
            if let Some(operation) = self.operations.get_mut(&number)
                && operation.done == NEVER
            {
                operation.void = now;
            }
        }
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
    pub fn at_the_end(&self) -> Result<(), String> {
        for (volume, bytes) in &self.volumes {
            let operations = self
                .operations
                .values()
                .filter(|operation| operation.volume == *volume);
            Sectors::new(bytes / SECTOR_BYTES, operations)
                .check()
                .map_err(|what| format!("{volume}: {what}"))?;
        }
        Ok(())
    }
}

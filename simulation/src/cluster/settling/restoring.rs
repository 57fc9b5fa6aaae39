//! What rotted at the only replica in the set has no good copy any more that anybody knows of: reads of it fail, and a resync that has to
//! copy it waits. That is as promised (nothing wrong is returned, the volume goes on), and ends when the block is written anew: here its
//! owner does that, from a backup as it were, block for block where a read says that it must be.

use super::super::Simulation;
use super::Visit;
use crate::checkers::Kind;
use crate::content::SECTOR_BYTES;
use crate::schedule::SECOND;
use isthmus_engine::{BLOCK_BYTES, VolumeId};
use isthmus_host::{ClientError, Outcome};
use std::collections::BTreeMap;

/// After how long without both replicas in sync the owner looks for blocks that can't be read, and looks again.
const PATIENCE: u64 = 4 * SECOND;
const SECTORS_A_BLOCK: u64 = BLOCK_BYTES / SECTOR_BYTES;

/// Where the owner of a volume is with that.
#[derive(Debug, Default)]
pub(super) struct Restoring {
    /// When it looks next.
    looks_at: Option<u64>,
    /// Blocks that are being read, or written anew, by the request's number.
    asked: BTreeMap<u64, u64>,
}

impl Simulation {
    /// The volume is open, and not both replicas are in sync.
    pub(super) fn restore(&mut self, volume: VolumeId) {
        let now = self.schedule.now();
        if !self.checkers.may_be_unreadable(volume) {
            return;
        }
        let Some(inspection) = self.inspection(volume) else {
            return;
        };
        if now < *inspection.restoring.looks_at.get_or_insert(now + PATIENCE) {
            return;
        }
        inspection.restoring.looks_at = Some(now + PATIENCE);
        let blocks = inspection.sectors / SECTORS_A_BLOCK;
        for block in 0..blocks {
            self.ask_for_block(volume, Kind::Read, block);
        }
    }

    fn ask_for_block(&mut self, volume: VolumeId, kind: Kind, block: u64) {
        let number = self.clients.number();
        let Some(settling) = &mut self.settling else {
            return;
        };
        settling.waiting.insert(number, volume);
        let Some(inspection) = self.inspection(volume) else {
            return;
        };
        inspection.restoring.asked.insert(number, block);
        let node = inspection.node;
        let life = self.nodes[node].life;
        let first = block * SECTORS_A_BLOCK;
        self.submit(node, life, volume, (number, kind, first, SECTORS_A_BLOCK));
    }

    /// An answer; returns whether it was one to this.
    pub(super) fn restoring_hears(
        &mut self,
        node: usize,
        volume: VolumeId,
        number: u64,
        outcome: &Outcome,
    ) -> bool {
        let Some(inspection) = self.inspection(volume) else {
            return false;
        };
        let Some(block) = inspection.restoring.asked.remove(&number) else {
            return false;
        };
        let is_open = inspection.visit == Visit::Attached && inspection.node == node;
        self.operation_ends(node, volume, number, outcome.clone());
        if is_open && matches!(outcome, Outcome::Failed(ClientError::Unreadable(_))) {
            self.note("inspect", || format!("block {block} of {volume} is lost"));
            self.ask_for_block(volume, Kind::Write, block);
        }
        true
    }
}

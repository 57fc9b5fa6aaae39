//! What never goes back: a durable epoch of a replica, also over a crash; and what is committed at those who answer for a volume.
//!
//! Why it must hold: a replica that forgot an epoch would take records of the primary that this epoch fenced (I4). And a primary that
//! serves holds everything that was committed before it, because every member of the set holds it and one of them is primary (I1,
//! I3): were its committed position lower than an earlier one's, acknowledged writes would be gone before any read shows it.

use isthmus_engine::{Epoch, Incarnation, NodeId, Seq, VolumeId};
use std::collections::BTreeMap;

/// The highest of each so far.
#[derive(Debug, Default)]
pub struct Progress {
    epochs: BTreeMap<(NodeId, Incarnation, VolumeId), Epoch>,
    committed: BTreeMap<VolumeId, (Seq, NodeId)>,
}

impl Progress {
    /// A replica's configuration is durable under this epoch.
    ///
    /// # Errors
    /// When a later one was.
    pub fn epoch_is_durable(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        volume: VolumeId,
        epoch: Epoch,
    ) -> Result<(), String> {
        let highest = self.epochs.entry((node, incarnation, volume)).or_default();
        if epoch < *highest {
            return Err(format!(
                "{node} is at epoch {epoch} of {volume}, and was durably at {highest} before"
            ));
        }
        *highest = epoch;
        Ok(())
    }

    /// A primary answers a client well, and has committed everything up to this.
    ///
    /// # Errors
    /// When an earlier one had committed more.
    pub fn answers(
        &mut self,
        node: NodeId,
        volume: VolumeId,
        committed: Seq,
    ) -> Result<(), String> {
        let entry = self.committed.entry(volume).or_insert((committed, node));
        let (highest, who) = *entry;
        if committed < highest {
            return Err(format!(
                "{node} answers for {volume} with records up to {committed}, and {who} had committed up to {highest}"
            ));
        }
        *entry = (committed, node);
        Ok(())
    }
}

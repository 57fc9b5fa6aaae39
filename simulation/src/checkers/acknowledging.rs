//! At most one primary answers under an epoch, and the epochs under which a volume is answered never go back.
//!
//! Why it must hold: the epoch is the fencing token. Were a read answered under an older epoch after anything under a newer, it could
//! miss what the newer primary acknowledged; were a change ordered under the older, it could be lost (promises 1 to 3; I1, I4).
//! Two primaries under one epoch would order two writes at one place.
//!
//! Where clocks run outside of their bound, two things look like going back and are not (`late_is_fine`): a change that was asked for
//! before, that every member held under the old epoch, and whose answer the old primary gives late (it was stopped in between, and its
//! grants seem to hold): the new primary's log holds it, so it is as good as done. And a flush: it says of writes that were answered
//! long ago that they are durable, which does not become less true by another primary (`flushing` checks that it is true).

use super::{Kind, Operation, Stamp};
use isthmus_engine::{Epoch, NodeId, VolumeId};
use std::collections::BTreeMap;

/// Who answered last, under which epoch.
#[derive(Debug, Default)]
pub struct Acknowledging {
    last: BTreeMap<VolumeId, (Epoch, NodeId)>,
    /// When an epoch was first answered under.
    first: BTreeMap<VolumeId, Stamp>,
}

impl Acknowledging {
    /// A node has answered an operation well.
    ///
    /// # Errors
    /// When another node did under this epoch, or anybody under a later one.
    pub fn answered(
        &mut self,
        operation: &Operation,
        node: NodeId,
        epoch: Epoch,
        late_is_fine: bool,
    ) -> Result<(), String> {
        let volume = operation.volume;
        match self.last.get(&volume) {
            Some((last, who)) if epoch == *last && node != *who => {
                return Err(format!(
                    "{node} answers for {volume} under epoch {epoch}, as {who} has"
                ));
            }
            Some((last, who)) if epoch < *last => {
                let since = self.first.get(&volume).copied().unwrap_or_default();
                let is_true = match operation.kind {
                    Kind::Read => false,
                    Kind::Flush => true,
                    _ => operation.begun <= since,
                };
                if !(late_is_fine && is_true) {
                    return Err(format!(
                        "{node} answers {:?} {} of {volume} under epoch {epoch}, after {who} has under epoch {last}",
                        operation.kind, operation.number
                    ));
                }
                return Ok(());
            }
            Some((last, _)) if epoch == *last => return Ok(()),
            _ => {}
        }
        self.last.insert(volume, (epoch, node));
        self.first.insert(volume, operation.done);
        Ok(())
    }
}

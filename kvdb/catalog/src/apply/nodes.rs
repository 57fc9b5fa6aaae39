//! A node's process has started on its store (I12).

use super::Outcome;
use crate::command::{Answer, Refusal};
use crate::record::{Catalog, starts_counted};
use isthmus_engine::{Epoch, Incarnation, NodeId, ReplicaId, VolumeId};
use std::collections::BTreeMap;

impl Catalog {
    pub(super) fn node_started(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        starts: u64,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let record = self.nodes.get(&node).ok_or(Refusal::UnknownNode(node))?;
        match record.incarnation {
            None => {}
            Some(known) if known == incarnation => {
                if starts == record.starts {
                    // The same process says it again: it may be primary by now, and stays so.
                    return Ok(Outcome::Unchanged(Answer::Done));
                }
                let (ours, theirs) = (starts_counted(record.starts), starts_counted(starts));
                if theirs <= ours {
                    return Err(Refusal::RolledBack { node, ours, theirs });
                }
                self.end_process(ReplicaId { node, incarnation });
            }
            Some(lost) => self.lose_incarnation(
                ReplicaId {
                    node,
                    incarnation: lost,
                },
                incarnation,
                at_ms,
            )?,
        }
        if let Some(record) = self.nodes.get_mut(&node) {
            record.incarnation = Some(incarnation);
            record.starts = starts;
        }
        Ok(Outcome::Changed(Answer::Done))
    }

    /// The earlier process of the same store is gone: it is primary no more, and nobody has to wait for it.
    fn end_process(&mut self, replica: ReplicaId) {
        for volume in self
            .volumes
            .values_mut()
            .filter(|volume| volume.primary == Some(replica))
        {
            volume.end_released();
        }
    }

    /// The store is another one: what the old one held counts no more, as far as another replica holds it.
    fn lose_incarnation(
        &mut self,
        lost: ReplicaId,
        registered: Incarnation,
        at_ms: u64,
    ) -> Result<(), Refusal> {
        let is_lost =
            |replica: ReplicaId| replica.node == lost.node && replica.incarnation != registered;
        let mut epochs: BTreeMap<VolumeId, Epoch> = BTreeMap::new();
        for (id, volume) in &self.volumes {
            if volume
                .in_sync
                .iter()
                .chain(&volume.opened_set)
                .chain(&volume.primary)
                .any(|replica| is_lost(*replica))
            {
                epochs.insert(*id, self.epoch_after(volume.epoch)?);
            }
        }
        for (id, epoch) in epochs {
            let Some(volume) = self.volumes.get_mut(&id) else {
                continue;
            };
            volume.epoch = epoch;
            if volume.primary.is_some_and(is_lost) {
                volume.end_taken();
            }
            volume.remove(is_lost);
            let counts = volume.opened_set.clone();
            volume
                .complete
                .retain(|replica| !is_lost(*replica) || counts.contains(replica));
            volume.note_protection(at_ms);
        }
        Ok(())
    }
}

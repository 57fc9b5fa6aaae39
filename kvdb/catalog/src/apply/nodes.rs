//! A node's process has started on its store (I12).

use super::Outcome;
use crate::command::{Answer, Refusal};
use crate::record::{BootId, Catalog, Durability, starts_counted};
use isthmus_engine::{Epoch, Incarnation, NodeId, ReplicaId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

impl Catalog {
    pub(super) fn node_started(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        starts: u64,
        boot: Option<BootId>,
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
                let replica = ReplicaId { node, incarnation };
                let epochs = self.epochs_after_reboot(node, boot)?;
                self.end_process(replica);
                for (volume, epoch) in epochs {
                    self.note_reboot(volume, epoch, replica, at_ms);
                }
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
        match boot {
            Some(boot) => self.boots.insert(node, boot),
            None => self.boots.remove(&node),
        };
        Ok(Outcome::Changed(Answer::Done))
    }

    /// The new epochs of volumes whose replica on this node may lack what it held: those with `flush`, if the node's kernel is not the one
    /// of its last start. A node that never said which one it was held nothing that was not durable.
    fn epochs_after_reboot(
        &self,
        node: NodeId,
        boot: Option<BootId>,
    ) -> Result<BTreeMap<VolumeId, Epoch>, Refusal> {
        let known = self.boots.get(&node).copied();
        if known.is_none() || known == boot {
            return Ok(BTreeMap::new());
        }
        let concerned = self.volumes.iter().filter(|(_, volume)| {
            volume.policy.durability == Durability::Flush && volume.replicas.contains(&node)
        });
        concerned
            .map(|(id, volume)| Ok((*id, self.epoch_after(volume.epoch)?)))
            .collect()
    }

    /// The new epoch ends whatever was asked for on the strength of what this replica held before, also as a joiner.
    fn note_reboot(&mut self, id: VolumeId, epoch: Epoch, replica: ReplicaId, at_ms: u64) {
        let Some(volume) = self.volumes.get_mut(&id) else {
            return;
        };
        volume.epoch = epoch;
        // A volume that never was served has nothing that could be missing.
        if !volume.served || !volume.opened_set.contains(&replica) {
            return;
        }
        self.rebooted.entry(id).or_default().insert(replica);
        self.follow_rebooted(id);
        self.offer_those_who_kept_it(id, at_ms);
    }

    /// Before `opened`, a set of rebooted members only, which none may lead, goes back to the last opened one, as one that would be
    /// emptied does (I3).
    fn offer_those_who_kept_it(&mut self, id: VolumeId, at_ms: u64) {
        let Some(volume) = self.volumes.get(&id) else {
            return;
        };
        let rebooted = self.rebooted.get(&id);
        let none_may_lead = rebooted.is_some_and(|rebooted| volume.in_sync.is_subset(rebooted));
        if volume.opened || volume.primary.is_some() || !none_may_lead {
            return;
        }
        let counts = |replica: &ReplicaId| {
            self.in_active_domain(replica.node) && self.is_registered(*replica)
        };
        let back: BTreeSet<ReplicaId> = volume.opened_set.iter().copied().filter(counts).collect();
        if let Some(volume) = self.volumes.get_mut(&id).filter(|_| !back.is_empty()) {
            volume.in_sync = back;
        }
        self.note_protection(id, at_ms);
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
            self.note_protection(id, at_ms);
            self.follow_rebooted(id);
        }
        Ok(())
    }
}

//! Who is primary of a volume, and which replicas are in its set (I2, I3, I6): every change compares and sets on the epoch.

use super::Outcome;
use crate::command::{Answer, Refusal};
use crate::record::{Catalog, Handover, VolumeRecord};
use isthmus_engine::{Epoch, NodeId, ReplicaId, VolumeId};
use std::collections::BTreeSet;

impl Catalog {
    pub(super) fn promote(
        &mut self,
        id: VolumeId,
        expected: Epoch,
        candidate: ReplicaId,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let volume = self.volume(id)?;
        if volume.epoch != expected {
            return Err(Refusal::StaleEpoch {
                ours: volume.epoch,
                theirs: expected,
            });
        }
        let other = volume.primary.filter(|primary| *primary != candidate);
        if let Some(primary) = other.filter(|primary| !self.is_same_site(*primary, candidate)) {
            return Err(Refusal::OtherPrimary(primary));
        }
        if self.unproven.contains(&id) {
            return Err(Refusal::Unproven(volume.name.clone()));
        }
        self.check_may_serve(volume, candidate)?;
        let in_sync = self
            .set_for_promotion(volume, candidate)
            .ok_or(Refusal::NotInSync(candidate))?;
        if self.is_rebooted(id, candidate) {
            return Err(Refusal::Rebooted(candidate));
        }
        let epoch = self.epoch_after(volume.epoch)?;
        let volume = self.volume_mut(id)?;
        volume.epoch = epoch;
        if other.is_some() {
            volume.end_taken();
        }
        volume.primary = Some(candidate);
        volume.opened = false;
        volume.in_sync = in_sync;
        self.note_protection(id, at_ms);
        Ok(Outcome::Changed(Answer::Epoch(epoch)))
    }

    fn is_same_site(&self, one: ReplicaId, other: ReplicaId) -> bool {
        let site = self.domain_of(one.node);
        site.is_some() && site == self.domain_of(other.node)
    }

    /// Refuses a replica that must not be in a set: of a node that holds none, with an outdated store, or in a domain that is
    /// not active (I8, I12).
    pub(super) fn check_may_serve(
        &self,
        volume: &VolumeRecord,
        replica: ReplicaId,
    ) -> Result<(), Refusal> {
        let node = self
            .nodes
            .get(&replica.node)
            .ok_or(Refusal::UnknownNode(replica.node))?;
        let domain = self.domain(node.domain)?;
        if !self.in_active_domain(replica.node) {
            return Err(domain.refusal());
        }
        if !volume.replicas.contains(&replica.node) || !self.is_registered(replica) {
            return Err(Refusal::NotInSync(replica));
        }
        Ok(())
    }

    /// The set under which the candidate may be promoted: the committed one, or, before `opened`, what is left of the last
    /// opened one (I3).
    fn set_for_promotion(
        &self,
        volume: &VolumeRecord,
        candidate: ReplicaId,
    ) -> Option<BTreeSet<ReplicaId>> {
        if volume.in_sync.contains(&candidate) {
            return Some(volume.in_sync.clone());
        }
        if volume.opened || !volume.opened_set.contains(&candidate) {
            return None;
        }
        let counts = |replica: &ReplicaId| {
            self.in_active_domain(replica.node) && self.is_registered(*replica)
        };
        Some(volume.opened_set.iter().copied().filter(counts).collect())
    }

    /// The volume, if `primary` is its primary under exactly this epoch.
    fn led_by(
        &self,
        id: VolumeId,
        epoch: Epoch,
        primary: ReplicaId,
    ) -> Result<&VolumeRecord, Refusal> {
        let volume = self.volume(id)?;
        if volume.epoch != epoch {
            return Err(Refusal::StaleEpoch {
                ours: volume.epoch,
                theirs: epoch,
            });
        }
        match volume.primary {
            Some(ours) if ours == primary => Ok(volume),
            Some(ours) => Err(Refusal::OtherPrimary(ours)),
            None => Err(Refusal::NotPrimary(primary)),
        }
    }

    pub(super) fn opened(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        primary: ReplicaId,
    ) -> Result<Outcome, Refusal> {
        if self.led_by(id, epoch, primary)?.opened {
            return Ok(Outcome::Unchanged(Answer::Epoch(epoch)));
        }
        let volume = self.volume_mut(id)?;
        volume.opened = true;
        if !volume.served {
            // Who had no part in the first opening may not even have made its replica.
            volume.complete = volume.in_sync.clone();
        }
        volume.served = true;
        // From now on the primary's rights are out, until it releases them.
        volume.handover = Handover::Taken;
        volume.follow_set();
        // All members are level with a primary that kept what it held.
        self.rebooted.remove(&id);
        Ok(Outcome::Changed(Answer::Epoch(epoch)))
    }

    pub(super) fn shrink(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        primary: ReplicaId,
        leaving: &BTreeSet<ReplicaId>,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let volume = self.led_by(id, epoch, primary)?;
        if leaving.contains(&primary) {
            return Err(Refusal::Invalid(
                "a primary can't take itself out of the set: release the volume instead".to_owned(),
            ));
        }
        if leaving.is_disjoint(&volume.in_sync) {
            return match leaving.first() {
                Some(replica) => Err(Refusal::NotInSync(*replica)),
                None => Err(Refusal::Invalid(
                    "a shrink names at least one replica".to_owned(),
                )),
            };
        }
        let next = self.epoch_after(epoch)?;
        let volume = self.volume_mut(id)?;
        volume.epoch = next;
        volume.in_sync.retain(|replica| !leaving.contains(replica));
        if volume.opened {
            volume.follow_set();
        }
        self.note_protection(id, at_ms);
        self.follow_rebooted(id);
        Ok(Outcome::Changed(Answer::Epoch(next)))
    }

    pub(super) fn begin_copy(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        primary: ReplicaId,
        joining: ReplicaId,
    ) -> Result<Outcome, Refusal> {
        let volume = self.led_by(id, epoch, primary)?;
        self.check_may_serve(volume, joining)?;
        if volume.in_sync.contains(&joining) || volume.opened_set.contains(&joining) {
            return Err(Refusal::Invalid(format!(
                "replica {joining} is in the set: nothing is copied over it"
            )));
        }
        if !volume.complete.contains(&joining) {
            return Ok(Outcome::Unchanged(Answer::Epoch(epoch)));
        }
        self.volume_mut(id)?.complete.remove(&joining);
        Ok(Outcome::Changed(Answer::Epoch(epoch)))
    }

    pub(super) fn grow(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        primary: ReplicaId,
        joining: ReplicaId,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let volume = self.led_by(id, epoch, primary)?;
        if !volume.opened {
            return Err(Refusal::Invalid(
                "the set grows only once its primary has opened the volume".to_owned(),
            ));
        }
        self.check_may_serve(volume, joining)?;
        if volume.in_sync.contains(&joining) {
            return Err(Refusal::Invalid(format!(
                "replica {joining} is in the set already"
            )));
        }
        let next = self.epoch_after(epoch)?;
        let volume = self.volume_mut(id)?;
        volume.epoch = next;
        volume.in_sync.insert(joining);
        volume.complete.insert(joining);
        volume.follow_set();
        self.note_protection(id, at_ms);
        Ok(Outcome::Changed(Answer::Epoch(next)))
    }

    pub(super) fn caught_up(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        primary: ReplicaId,
        replicas: &BTreeSet<ReplicaId>,
    ) -> Result<Outcome, Refusal> {
        if !self.led_by(id, epoch, primary)?.opened {
            return Err(Refusal::Invalid(
                "members have caught up only with a primary that has opened the volume".to_owned(),
            ));
        }
        let Some(rebooted) = self.rebooted.get_mut(&id) else {
            return Ok(Outcome::Unchanged(Answer::Epoch(epoch)));
        };
        let before = rebooted.len();
        rebooted.retain(|replica| !replicas.contains(replica));
        let is_same = rebooted.len() == before;
        self.follow_rebooted(id);
        match is_same {
            true => Ok(Outcome::Unchanged(Answer::Epoch(epoch))),
            false => Ok(Outcome::Changed(Answer::Epoch(epoch))),
        }
    }

    pub(super) fn renew(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        primary: ReplicaId,
    ) -> Result<Outcome, Refusal> {
        self.led_by(id, epoch, primary)?;
        let next = self.epoch_after(epoch)?;
        self.volume_mut(id)?.epoch = next;
        Ok(Outcome::Changed(Answer::Epoch(next)))
    }

    pub(super) fn release(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        primary: ReplicaId,
    ) -> Result<Outcome, Refusal> {
        self.led_by(id, epoch, primary)?;
        self.volume_mut(id)?.end_released();
        Ok(Outcome::Changed(Answer::Epoch(epoch)))
    }

    /// The registered replicas of the volume on these nodes, in active domains other than `except`.
    pub(crate) fn serving_replicas(
        &self,
        volume: &VolumeRecord,
        nodes: &BTreeSet<NodeId>,
        except: isthmus_engine::DomainId,
    ) -> BTreeSet<ReplicaId> {
        let mut replicas = BTreeSet::new();
        for id in volume.replicas.intersection(nodes) {
            let Some(node) = self.nodes.get(id) else {
                continue;
            };
            if let Some(incarnation) = node
                .incarnation
                .filter(|_| node.domain != except && self.in_active_domain(*id))
            {
                replicas.insert(ReplicaId {
                    node: *id,
                    incarnation,
                });
            }
        }
        replicas
    }
}

impl VolumeRecord {
    /// An opened set is also the one to go back to, and the one whose grants the next primary sees out.
    fn follow_set(&mut self) {
        self.opened_set = self.in_sync.clone();
        self.granted_set = self.in_sync.clone();
    }
}

//! Going on without quorum: a generation that is forced from what one survivor holds, and the replicas that are named in it.

use super::Outcome;
use crate::command::{Answer, Refusal};
use crate::record::{Catalog, Handover, Lineage};
use isthmus_engine::{Epoch, ReplicaId, VolumeId};
use std::collections::BTreeMap;

impl Catalog {
    pub(super) fn force_generation(&mut self, id: u64) -> Result<Outcome, Refusal> {
        if id == 0 || self.lineage.0.len() >= Lineage::MAX {
            return Err(Refusal::Invalid(format!(
                "a generation has a random id other than 0, and a cluster at most {} of them",
                Lineage::MAX
            )));
        }
        let before = self.generation;
        let unheard = self.next_volume;
        let next_volume = unheard
            .checked_add(Catalog::IDS_PASSED_OVER)
            .ok_or_else(|| Refusal::Invalid("all volume ids are used up".to_owned()))?;
        self.generation = self.lineage.number() + 1;
        let epochs: Result<BTreeMap<VolumeId, Epoch>, Refusal> = self
            .volumes
            .iter()
            .map(|(id, volume)| Ok((*id, self.epoch_after(volume.epoch)?)))
            .collect();
        let epochs = match epochs {
            Ok(epochs) => epochs,
            Err(refusal) => {
                self.generation = before;
                return Err(refusal);
            }
        };
        for (id, epoch) in epochs {
            if let Some(volume) = self.volumes.get_mut(&id) {
                volume.epoch = epoch;
                volume.end_taken();
            }
        }
        self.lineage = self.lineage.forced(id);
        self.unproven = self.volumes.keys().copied().collect();
        self.unheard.push((unheard, next_volume));
        self.next_volume = next_volume;
        self.relocations.clear();
        let what = format!(
            "forced generation {}: the in-sync sets of {} volumes count no more until a replica is named for each",
            self.lineage,
            self.unproven.len()
        );
        Ok(Outcome::Audited(Answer::Done, what))
    }

    pub(super) fn name_replica(
        &mut self,
        id: VolumeId,
        replica: ReplicaId,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let volume = self.volume(id)?;
        if !self.unproven.contains(&id) {
            return Err(Refusal::Proven(volume.name.clone()));
        }
        self.check_may_serve(volume, replica)?;
        let epoch = self.epoch_after(volume.epoch)?;
        let what = format!(
            "named replica {replica} on {} as the one that counts of volume {}: what only others hold is given up",
            self.node_name(replica.node),
            volume.name
        );
        let volume = self.volume_mut(id)?;
        volume.epoch = epoch;
        volume.primary = None;
        volume.opened = true;
        volume.in_sync = [replica].into();
        volume.opened_set = [replica].into();
        // It says so itself, which is newer than what was known here.
        volume.complete.insert(replica);
        // Nobody is known to whose grants could be waited for: whoever is promoted waits for a whole lease.
        volume.handover = Handover::Taken;
        volume.granted_set.clear();
        self.note_protection(id, at_ms);
        self.rebooted.remove(&id);
        self.unproven.remove(&id);
        Ok(Outcome::Audited(Answer::Epoch(epoch), what))
    }

    /// This catalog, which was saved earlier, in the place of `held`, from which a generation is then forced. What `held` has beyond it is
    /// given up, but replicas of volumes that only `held` knows are kept where they are.
    ///
    /// # Errors
    /// When this catalog is not one of an earlier time of the same cluster: another id, or a lineage that does not lead to `lineage`.
    pub fn restored_over(
        mut self,
        held: &Catalog,
        cluster_id: u64,
        lineage: &Lineage,
    ) -> Result<Catalog, Refusal> {
        if self.cluster_id != cluster_id {
            return Err(Refusal::OtherCluster(cluster_id));
        }
        if self.lineage != *lineage && !lineage.descends_from(&self.lineage) {
            return Err(Refusal::Invalid(format!(
                "the snapshot is of generation {}, from which the present one ({lineage}) was not forced",
                self.lineage
            )));
        }
        if held.next_volume > self.next_volume {
            self.unheard.push((self.next_volume, held.next_volume));
            self.next_volume = held.next_volume;
        }
        self.generation = lineage.number();
        self.lineage = lineage.clone();
        self.revision = self.revision.max(held.revision);
        Ok(self)
    }

    /// Whether a volume that is not in the catalog was deleted: if not, the present generation may not have heard of it.
    #[must_use]
    pub fn was_deleted(&self, volume: VolumeId) -> bool {
        let is_unheard = |(from, to): &(u64, u64)| (*from..*to).contains(&volume.0);
        volume.0 < self.next_volume
            && !self.volumes.contains_key(&volume)
            && !self.unheard.iter().any(is_unheard)
    }
}

//! How replicas leave a volume's sets, how a primary's rights end, and since when a volume is unprotected.

use crate::record::{Catalog, Handover, VolumeRecord};
use isthmus_engine::{ReplicaId, VolumeId};

impl Catalog {
    /// Who has left the last opened set is no rebooted member of it. Where all that are left were rebooted, none of them is: nobody has
    /// kept anything that another one lacks, as far as it can be known.
    pub(super) fn follow_rebooted(&mut self, id: VolumeId) {
        let counts = self.volumes.get(&id).map(|volume| &volume.opened_set);
        if let Some(rebooted) = self.rebooted.get_mut(&id) {
            rebooted.retain(|replica| counts.is_some_and(|counts| counts.contains(replica)));
            if counts.is_none_or(|counts| counts.is_subset(rebooted)) || rebooted.is_empty() {
                self.rebooted.remove(&id);
            }
        }
    }

    /// Whether the replica may lack acknowledged writes that another member of the set has.
    #[must_use]
    pub fn is_rebooted(&self, id: VolumeId, replica: ReplicaId) -> bool {
        let rebooted = self.rebooted.get(&id);
        rebooted.is_some_and(|rebooted| rebooted.contains(&replica))
    }
}

impl VolumeRecord {
    /// Takes the replicas that `gone` names out of both sets, but empties neither: a set whose every member is gone stays as it
    /// is, because its members alone hold what was acknowledged. Before `opened`, a set that would be emptied falls back to
    /// the last opened one (I3). The primary must not be among those that go.
    pub(super) fn remove(&mut self, gone: impl Fn(ReplicaId) -> bool) {
        let opened_stay = self
            .opened_set
            .iter()
            .copied()
            .filter(|replica| !gone(*replica))
            .collect::<std::collections::BTreeSet<_>>();
        if opened_stay.is_empty() {
            return;
        }
        self.in_sync.retain(|replica| !gone(*replica));
        if self.in_sync.is_empty() || (!self.opened && self.primary.is_none()) {
            self.in_sync = opened_stay.clone();
        }
        self.opened_set = opened_stay;
    }

    /// Ends the primary's rights when it gave them back, or its process is known to be gone. The rights of a primary that
    /// never opened were none: what there was to wait for before it, there still is.
    pub(super) fn end_released(&mut self) {
        self.primary = None;
        if self.opened {
            self.handover = Handover::Released;
            self.granted_set.clear();
        }
    }

    /// Takes the primary's rights away: whoever follows waits out the grants of all that ever gave it one.
    pub(super) fn end_taken(&mut self) {
        self.primary = None;
        self.handover = Handover::Taken;
        self.granted_set.extend(self.in_sync.iter().copied());
    }

    /// Whether each node that holds a replica has it in the set.
    pub fn is_whole(&self) -> bool {
        self.replicas
            .iter()
            .all(|node| self.in_sync.iter().any(|replica| replica.node == *node))
    }

    /// Notes since when the set lacks a replica.
    pub(super) fn note_protection(&mut self, at_ms: u64) {
        self.unprotected_since_ms = match (self.is_whole(), self.unprotected_since_ms) {
            (true, _) => None,
            (false, Some(since_ms)) => Some(since_ms),
            (false, None) => Some(at_ms),
        };
    }
}

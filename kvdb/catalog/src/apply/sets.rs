//! How replicas leave a volume's sets, how a primary's rights end, and since when a volume is unprotected.

use crate::record::{Catalog, Handover, VolumeRecord};
use isthmus_engine::{DomainId, NodeId, ReplicaId, VolumeId};
use std::collections::BTreeSet;

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

    /// The domain of a node.
    #[must_use]
    pub fn domain_of(&self, node: NodeId) -> Option<DomainId> {
        self.nodes.get(&node).map(|record| record.domain)
    }

    /// Whether these replicas lie in more than one domain: then a primary of this set needs no grant of kvdb's.
    pub(super) fn spans_domains(&self, replicas: &BTreeSet<ReplicaId>) -> bool {
        let domains = replicas.iter().map(|replica| self.domain_of(replica.node));
        domains.collect::<BTreeSet<_>>().len() > 1
    }

    /// Whether each domain that holds a replica has one in the set: then any of them may be lost without losing a write.
    #[must_use]
    pub fn is_protected(&self, volume: &VolumeRecord) -> bool {
        let in_sync = volume.in_sync.iter();
        let in_sync: BTreeSet<_> = in_sync
            .map(|replica| self.domain_of(replica.node))
            .collect();
        let mut holders = volume.replicas.iter();
        holders.all(|node| in_sync.contains(&self.domain_of(*node)))
    }

    /// Notes since when a domain that holds replicas has none in the set.
    pub(super) fn note_protection(&mut self, id: VolumeId, at_ms: u64) {
        let is_protected = (self.volumes.get(&id)).is_some_and(|volume| self.is_protected(volume));
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.unprotected_since_ms = match (is_protected, volume.unprotected_since_ms) {
                (true, _) => None,
                (false, Some(since_ms)) => Some(since_ms),
                (false, None) => Some(at_ms),
            };
        }
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
        if self.opened && self.primary.is_some() {
            // From now on the primary serves without the grants of those that go: what these have seen out says nothing about it.
            self.granted_set = self.in_sync.clone();
        }
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

    /// Takes the primary's rights away: whoever follows waits out the grants that it needed. One that never opened had no rights; then
    /// those of the primary before it are still to be seen out.
    pub(super) fn end_taken(&mut self) {
        self.primary = None;
        self.handover = Handover::Taken;
    }
}

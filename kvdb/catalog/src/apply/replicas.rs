//! Which nodes hold a volume: replicas that an operator adds and removes, by which a site gets a second one, and a node is replaced.
//!
//! A new replica comes into the set as every absent one does: the primary brings it in sync, then grows the set by commit (I6). One is
//! removed only where what it holds is held in its domain by another one, so that no site is left without a copy.

use super::Outcome;
use crate::command::{Answer, Refusal};
use crate::record::{Catalog, DomainRole, VolumeRecord};
use isthmus_engine::{DomainId, Epoch, NodeId, ReplicaId, VolumeId};
use std::collections::BTreeSet;

impl Catalog {
    pub(super) fn add_replica(
        &mut self,
        id: VolumeId,
        node: NodeId,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let volume = self.volume(id)?;
        let record = self.nodes.get(&node).ok_or(Refusal::UnknownNode(node))?;
        if volume.replicas.contains(&node) {
            return Ok(Outcome::Unchanged(Answer::Done));
        }
        if self.unproven.contains(&id) {
            return Err(Refusal::Unproven(volume.name.clone()));
        }
        let domain = self.domain(record.domain)?;
        if self.diskless.contains(&node) || domain.role != DomainRole::Data {
            return Err(Refusal::Invalid(format!(
                "node {} holds no replicas: choose a node with a store in a data domain",
                record.name
            )));
        }
        let in_domain = self.holders_in(volume, record.domain).count();
        if in_domain >= usize::from(Catalog::REPLICAS_PER_DOMAIN_MAX) {
            return Err(Refusal::Invalid(format!(
                "volume {} has {in_domain} replicas in domain {} already, which is the most",
                volume.name, domain.name
            )));
        }
        let what = format!(
            "added a replica of volume {} on {}",
            volume.name, record.name
        );
        // Whatever this node takes part in from now on has a newer epoch than any removal before: whoever hears of one late can tell.
        let epoch = self.epoch_after(volume.epoch)?;
        let volume = self.volume_mut(id)?;
        volume.epoch = epoch;
        volume.replicas.insert(node);
        self.note_protection(id, at_ms);
        Ok(Outcome::Audited(Answer::Done, what))
    }

    pub(super) fn remove_replica(
        &mut self,
        id: VolumeId,
        node: NodeId,
        answering: &BTreeSet<NodeId>,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let volume = self.volume(id)?;
        let is_there = |replica: &ReplicaId| replica.node == node;
        self.check_removal(id, volume, node, answering)?;
        let epoch = self.epoch_after(volume.epoch)?;
        let what = format!(
            "removed the replica of volume {} on {}",
            volume.name,
            self.node_name(node)
        );
        let volume = self.volume_mut(id)?;
        volume.replicas.remove(&node);
        // The new epoch ends what was asked for on its behalf, also where it is a joiner.
        volume.epoch = epoch;
        volume.remove(|replica| is_there(&replica));
        volume.complete.retain(|replica| !is_there(replica));
        self.follow_rebooted(id);
        self.note_protection(id, at_ms);
        Ok(Outcome::Audited(Answer::Epoch(epoch), what))
    }

    /// Refuses a removal that would take away what no other replica of the domain is known to hold, or that somebody uses.
    fn check_removal(
        &self,
        id: VolumeId,
        volume: &VolumeRecord,
        node: NodeId,
        answering: &BTreeSet<NodeId>,
    ) -> Result<(), Refusal> {
        self.check_holds(volume, node)?;
        if self.unproven.contains(&id) {
            return Err(Refusal::Unproven(volume.name.clone()));
        }
        let name = self.node_name(node);
        if volume.primary.is_some_and(|primary| primary.node == node) {
            return Err(Refusal::Invalid(format!(
                "node {name} is the primary of volume {0}: move it first, with domain-ctl relocate volume {0} --to NODE",
                volume.name
            )));
        }
        if let Some(published) = self.published.get(&id).filter(|now| now.node == node) {
            return Err(Refusal::Published {
                volume: volume.name.clone(),
                node: self.node_name(published.node),
            });
        }
        let is_there = |replica: &ReplicaId| replica.node == node;
        // An old incarnation in a set may be all that there is; one that is only complete went with its disk.
        let sets = volume.in_sync.iter().chain(&volume.opened_set);
        let complete = volume.complete.iter();
        let complete = complete.filter(|replica| self.is_registered(**replica));
        let holds_something = sets.chain(complete).any(is_there);
        let domain = self.domain_of(node);
        let stays = |replica: &&ReplicaId| {
            !is_there(replica)
                && self.domain_of(replica.node) == domain
                && self.is_registered(**replica)
                && answering.contains(&replica.node)
                && !self.is_rebooted(id, **replica)
        };
        let is_covered = volume.in_sync.iter().any(|replica| stays(&replica));
        let others = domain.map_or(0, |domain| self.holders_in(volume, domain).count() - 1);
        if others == 0 || (holds_something && !is_covered) {
            let domain = domain.and_then(|domain| self.domains.get(&domain));
            let domain = domain.map_or("its domain", |domain| domain.name.as_str());
            return Err(Refusal::Invalid(format!(
                "the replica of volume {0} on {name} has no other in-sync replica that answers beside it in {domain}: add one there with domain-ctl add replica volume {0} --node NODE, and wait until it is in sync",
                volume.name
            )));
        }
        Ok(())
    }

    fn holders_in<'a>(
        &'a self,
        volume: &'a VolumeRecord,
        domain: DomainId,
    ) -> impl Iterator<Item = NodeId> + 'a {
        let holders = volume.replicas.iter().copied();
        holders.filter(move |node| self.domain_of(*node) == Some(domain))
    }

    /// Whether the node has no replica of this volume, and what it holds of one is of before that: the highest epoch in which it has taken
    /// part is `taken`. Then it is to be removed. A catalog may come late, and speak of a removal that was followed by an addition: what
    /// was taken part in since has a newer epoch. Nor may a generation that was forced have heard of the last changes.
    #[must_use]
    pub fn is_removed_from(&self, id: VolumeId, node: NodeId, taken: Epoch) -> bool {
        let volume = self
            .volumes
            .get(&id)
            .filter(|_| !self.unproven.contains(&id));
        let is_of_now = taken == Epoch::ZERO || taken.generation == self.generation;
        volume.is_some_and(|volume| {
            !volume.replicas.contains(&node) && taken <= volume.epoch && is_of_now
        })
    }
}

//! What a deactivation would do, before it is done: for `--dry-run`, and for the refusal of one that would lose data.

use crate::command::Refusal;
use crate::record::{Catalog, DomainRole, DomainState, VolumeRecord};
use isthmus_engine::{DomainId, NodeId, ReplicaId, VolumeId};
use std::collections::BTreeSet;

/// What deactivating a domain would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeactivationPlan {
    /// Volumes whose primary is in the domain: it ends, and a replica outside may be promoted.
    pub moved: Vec<VolumeId>,
    /// Volumes that would lose an in-sync replica, but keep one that answers.
    pub unprotected: Vec<VolumeId>,
    /// Volumes that would be left without an in-sync replica that answers: the deactivation is refused for these, unless the
    /// loss is accepted.
    pub lost: Vec<VolumeId>,
    /// Who votes in kvdb afterwards, as far as the nodes that answer now still do.
    pub voters: BTreeSet<NodeId>,
}

impl Catalog {
    /// Plans to deactivate the domain, when the nodes in `answering` answer.
    ///
    /// # Errors
    /// An unknown domain, one that is not active (a failed deactivation may be planned again), the last active data domain.
    pub fn plan_deactivation(
        &self,
        domain: DomainId,
        answering: &BTreeSet<NodeId>,
    ) -> Result<DeactivationPlan, Refusal> {
        let record = self
            .domains
            .get(&domain)
            .ok_or(Refusal::UnknownDomain(domain))?;
        if record.state != DomainState::Active && !self.deactivation_failed(domain) {
            return Err(record.refusal());
        }
        let is_other_data = |id: DomainId| {
            self.domains
                .get(&id)
                .is_some_and(|other| id != domain && other.role == DomainRole::Data)
        };
        let is_active = |id: DomainId| {
            self.domains
                .get(&id)
                .is_some_and(|other| other.state == DomainState::Active)
        };
        let mut plan = DeactivationPlan {
            voters: self.voters_without(Some(domain), answering, &BTreeSet::new()),
            ..Default::default()
        };
        if record.role == DomainRole::Witness {
            return Ok(plan);
        }
        if !self
            .domains
            .keys()
            .any(|id| is_other_data(*id) && is_active(*id))
        {
            return Err(Refusal::LastDataDomain(record.name.clone()));
        }
        for (id, volume) in &self.volumes {
            let is_inside = |replica: &ReplicaId| {
                self.nodes
                    .get(&replica.node)
                    .is_some_and(|node| node.domain == domain)
            };
            if volume.primary.as_ref().is_some_and(is_inside) {
                plan.moved.push(*id);
            }
            // Where no set counts, none can be lost: an operator names a replica.
            let counts = !self.unproven.contains(id);
            if counts && !self.keeps_a_replica(*id, volume, domain, answering) {
                plan.lost.push(*id);
            } else if volume.in_sync.iter().any(is_inside) {
                plan.unprotected.push(*id);
            }
        }
        Ok(plan)
    }

    /// Whether a replica of the set that counts answers outside the domain, and is not one that may have lost with its power what a
    /// member inside has kept.
    fn keeps_a_replica(
        &self,
        id: VolumeId,
        volume: &VolumeRecord,
        domain: DomainId,
        answering: &BTreeSet<NodeId>,
    ) -> bool {
        let serving = self.serving_replicas(volume, answering, domain);
        // Before `opened`, every member of the last opened set holds all that was acknowledged (I3).
        serving.iter().any(|replica| {
            !self.is_rebooted(id, *replica)
                && (volume.in_sync.contains(replica)
                    || (!volume.opened && volume.opened_set.contains(replica)))
        })
    }
}

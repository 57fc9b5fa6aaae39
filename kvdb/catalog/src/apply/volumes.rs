//! Creating, expanding and deleting volumes, and changing what was chosen for them.

use super::{Outcome, check_name};
use crate::command::{Answer, Refusal};
use crate::record::{
    Catalog, DomainRole, DomainState, Durability, Handover, OnPeerLoss, VolumePolicy, VolumeRecord,
};
use isthmus_engine::{BLOCK_BYTES, DomainId, Epoch, NodeId, ReplicaId, VolumeId};
use std::collections::BTreeSet;

impl Catalog {
    pub(super) fn create_volume(
        &mut self,
        name: &str,
        bytes: u64,
        block_bytes: u32,
        policy: &VolumePolicy,
        replicas_per_domain: u8,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        check_name("volume", name)?;
        if self.volumes.values().any(|volume| volume.name == name) {
            return Err(Refusal::VolumeExists(name.to_owned()));
        }
        self.check_volume(bytes, block_bytes, policy)?;
        let id = VolumeId(self.next_volume);
        let next_volume = self
            .next_volume
            .checked_add(1)
            .ok_or_else(|| Refusal::Invalid("all volume ids are used up".to_owned()))?;
        let replicas = self.place(replicas_per_domain)?;
        let in_sync: BTreeSet<ReplicaId> = replicas
            .iter()
            .filter(|node| self.in_active_domain(**node))
            .filter_map(|node| {
                Some(ReplicaId {
                    node: *node,
                    incarnation: self.nodes.get(node)?.incarnation?,
                })
            })
            .collect();
        if in_sync.is_empty() {
            return Err(Refusal::Invalid(
                "no data domain is active: activate one first".to_owned(),
            ));
        }
        let volume = VolumeRecord {
            name: name.to_owned(),
            bytes,
            block_bytes,
            created_ms: at_ms,
            policy: policy.clone(),
            epoch: Epoch {
                generation: self.generation,
                number: 1,
            },
            primary: None,
            opened: true,
            opened_set: in_sync.clone(),
            complete: in_sync.clone(),
            in_sync,
            granted_set: BTreeSet::new(),
            handover: Handover::Released,
            served: false,
            replicas,
            unprotected_since_ms: None,
        };
        self.volumes.insert(id, volume);
        self.note_protection(id, at_ms);
        self.next_volume = next_volume;
        Ok(Outcome::Audited(
            Answer::Volume(id),
            format!("created volume {name} ({id}) of {bytes} bytes"),
        ))
    }

    fn check_volume(
        &self,
        bytes: u64,
        block_bytes: u32,
        policy: &VolumePolicy,
    ) -> Result<(), Refusal> {
        check_bytes(bytes)?;
        if block_bytes != 512 && block_bytes != 4096 {
            return Err(Refusal::Invalid(format!(
                "a volume's block size is 512 or 4096 bytes, not {block_bytes}"
            )));
        }
        if let Some(preferred) = policy.preferred_domain {
            self.check_preferred(preferred)?;
        }
        if self.volumes.len() >= Catalog::VOLUMES_MAX {
            return Err(Refusal::Invalid(format!(
                "a cluster has at most {} volumes",
                Catalog::VOLUMES_MAX
            )));
        }
        Ok(())
    }

    fn check_preferred(&self, preferred: DomainId) -> Result<(), Refusal> {
        let domain = self.domain(preferred)?;
        match domain.role {
            DomainRole::Data => Ok(()),
            DomainRole::Witness => Err(Refusal::Invalid(format!(
                "cluster domain {} holds no replicas: it can't be preferred",
                domain.name
            ))),
        }
    }

    pub(super) fn expand_volume(&mut self, id: VolumeId, bytes: u64) -> Result<Outcome, Refusal> {
        let volume = self.volume(id)?;
        check_bytes(bytes)?;
        if bytes < volume.bytes {
            return Err(Refusal::WouldShrink {
                name: volume.name.clone(),
                bytes: volume.bytes,
                wanted: bytes,
            });
        }
        if bytes == volume.bytes {
            return Ok(Outcome::Unchanged(Answer::Done));
        }
        let volume = self.volume_mut(id)?;
        let what = format!(
            "expanded volume {} from {} to {bytes} bytes",
            volume.name, volume.bytes
        );
        volume.bytes = bytes;
        Ok(Outcome::Audited(Answer::Done, what))
    }

    pub(super) fn change_policy(
        &mut self,
        id: VolumeId,
        on_peer_loss: Option<OnPeerLoss>,
        durability: Option<Durability>,
        preferred_domain: Option<Option<DomainId>>,
    ) -> Result<Outcome, Refusal> {
        let volume = self.volume(id)?;
        let before = volume.policy.clone();
        let after = VolumePolicy {
            on_peer_loss: on_peer_loss.unwrap_or(before.on_peer_loss),
            durability: durability.unwrap_or(before.durability),
            preferred_domain: preferred_domain.unwrap_or(before.preferred_domain),
        };
        if let Some(preferred) = after.preferred_domain {
            self.check_preferred(preferred)?;
        }
        if before.durability == Durability::Flush && after.durability != before.durability {
            return Err(Refusal::StaysFlush(volume.name.clone()));
        }
        if before == after {
            return Ok(Outcome::Unchanged(Answer::Done));
        }
        let what = format!(
            "changed the policy of volume {} from {} to {}",
            volume.name,
            self.policy_words(&before),
            self.policy_words(&after)
        );
        self.volume_mut(id)?.policy = after;
        Ok(Outcome::Audited(Answer::Done, what))
    }

    fn policy_words(&self, policy: &VolumePolicy) -> String {
        let preferred = policy.preferred_domain.map(|domain| {
            let name = self.domains.get(&domain).map(|record| record.name.clone());
            name.unwrap_or_else(|| domain.to_string())
        });
        format!(
            "({}, {}, prefers {})",
            format!("{:?}", policy.on_peer_loss).to_lowercase(),
            format!("{:?}", policy.durability).to_lowercase(),
            preferred.as_deref().unwrap_or("no site")
        )
    }

    /// Where the replicas of a volume that is created now would be: so many nodes of each data domain that has nodes, registered ones before
    /// others, then those with the fewest replicas, then the lowest ids.
    ///
    /// # Errors
    /// When an active data domain has no registered node, or any with nodes has too few of them.
    pub fn place(&self, per_domain: u8) -> Result<BTreeSet<NodeId>, Refusal> {
        if !(1..=Catalog::REPLICAS_PER_DOMAIN_MAX).contains(&per_domain) {
            return Err(Refusal::Invalid(format!(
                "a volume has 1 to {} replicas in each data domain, not {per_domain}",
                Catalog::REPLICAS_PER_DOMAIN_MAX
            )));
        }
        let mut places = BTreeSet::new();
        for (id, domain) in self
            .domains
            .iter()
            .filter(|(_, domain)| domain.role == DomainRole::Data)
        {
            let best = self.best_places(*id);
            let is_registered = |node: &NodeId| {
                let node = self.nodes.get(node);
                node.is_some_and(|node| node.incarnation.is_some())
            };
            let wanted = &best[..best.len().min(usize::from(per_domain))];
            let are_there = !wanted.is_empty() && wanted.iter().all(is_registered);
            if domain.state == DomainState::Active && !are_there {
                return Err(Refusal::NoNode(domain.name.clone()));
            }
            if !best.is_empty() && best.len() < usize::from(per_domain) {
                return Err(Refusal::Invalid(format!(
                    "domain {} has {} nodes with a store: too few for {per_domain} replicas",
                    domain.name,
                    best.len()
                )));
            }
            places.extend(best.into_iter().take(usize::from(per_domain)));
        }
        Ok(places)
    }

    /// The nodes of a domain that may hold replicas, the best for a new one first.
    pub(super) fn best_places(&self, domain: DomainId) -> Vec<NodeId> {
        let nodes = self.nodes_with_store(domain);
        let rank = |id: NodeId| {
            self.volumes
                .values()
                .filter(|volume| volume.replicas.contains(&id))
                .count()
        };
        let mut ranked: Vec<_> = nodes
            .map(|(id, node)| (node.incarnation.is_none(), rank(id), id))
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, id)| id).collect()
    }

    pub(super) fn delete_volume(&mut self, id: VolumeId) -> Result<Outcome, Refusal> {
        let volume = self.volume(id)?;
        if volume.primary.is_some() {
            return Err(Refusal::InUse(volume.name.clone()));
        }
        if let Some(published) = self.published.get(&id) {
            return Err(Refusal::Published {
                volume: volume.name.clone(),
                node: self.node_name(published.node),
            });
        }
        let what = format!("deleted volume {} ({id})", volume.name);
        self.volumes.remove(&id);
        self.rebooted.remove(&id);
        self.unproven.remove(&id);
        Ok(Outcome::Audited(Answer::Done, what))
    }
}

fn check_bytes(bytes: u64) -> Result<(), Refusal> {
    if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) || bytes > Catalog::VOLUME_BYTES_MAX {
        return Err(Refusal::Invalid(format!(
            "a volume's size is a multiple of {BLOCK_BYTES} bytes, more than 0 and at most {}; {bytes} is not",
            Catalog::VOLUME_BYTES_MAX
        )));
    }
    Ok(())
}

//! Where a volume is used: the node to which an orchestrator has published it, and a primary that is moved by plan.
//!
//! Neither is what makes a write safe: epochs and grants do that, and a primary that was replaced serves no more whatever is said here.
//! These say where clients are let in, and that an orchestrator may use a volume elsewhere only when the rest is proven.

use super::Outcome;
use crate::command::{Answer, Refusal};
use crate::record::{Catalog, DomainState, Handover, Publication, Relocation, VolumeRecord};
use isthmus_engine::{NodeId, ReplicaId, VolumeId};

impl Catalog {
    pub(super) fn publish(
        &mut self,
        id: VolumeId,
        node: NodeId,
        read_only: bool,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let volume = self.volume(id)?;
        if self.diskless.contains(&node) {
            self.check_active(node)?;
        } else {
            self.check_holder(volume, node)?;
        }
        match self.published.get(&id) {
            Some(now) if now.node == node && now.read_only == read_only => {
                return Ok(Outcome::Unchanged(Answer::Done));
            }
            Some(now) if now.node == node => {
                return Err(Refusal::Published {
                    volume: volume.name.clone(),
                    node: format!("{} with another access mode", self.node_name(node)),
                });
            }
            Some(now) if !self.is_fenced(volume, now.node) => {
                return Err(Refusal::Published {
                    volume: volume.name.clone(),
                    node: self.node_name(now.node),
                });
            }
            Some(_) | None => {}
        }
        let what = format!(
            "published volume {} to {}",
            volume.name,
            self.node_name(node)
        );
        let publication = Publication {
            node,
            read_only,
            since_ms: at_ms,
        };
        self.published.insert(id, publication);
        // A diskless node's clients are forwarded to wherever the primary is.
        if !self.diskless.contains(&node)
            && self
                .relocations
                .get(&id)
                .is_some_and(|relocation| relocation.to != node)
        {
            self.relocations.remove(&id);
        }
        Ok(Outcome::Audited(Answer::Done, what))
    }

    pub(super) fn unpublish(
        &mut self,
        id: VolumeId,
        node: NodeId,
        idle: bool,
    ) -> Result<Outcome, Refusal> {
        let volume = self.volume(id)?;
        if !self.nodes.contains_key(&node) {
            return Err(Refusal::UnknownNode(node));
        }
        if self.published.get(&id).is_none_or(|now| now.node != node) {
            return Ok(Outcome::Unchanged(Answer::Done));
        }
        if !idle && self.may_serve(volume, node) {
            return Err(Refusal::MayServe {
                volume: volume.name.clone(),
                node: self.node_name(node),
            });
        }
        let what = format!(
            "volume {} is no more published to {}",
            volume.name,
            self.node_name(node)
        );
        self.published.remove(&id);
        Ok(Outcome::Audited(Answer::Done, what))
    }

    pub(super) fn relocate(
        &mut self,
        id: VolumeId,
        to: NodeId,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let volume = self.volume(id)?;
        self.check_holder(volume, to)?;
        let replica = self.replica_on(to);
        let in_sync = replica.filter(|replica| volume.in_sync.contains(replica));
        let Some(replica) = in_sync else {
            return Err(Refusal::Invalid(format!(
                "the replica of volume {} on {} is not in sync: wait until it is, then move the volume",
                volume.name,
                self.node_name(to)
            )));
        };
        if self.is_rebooted(id, replica) {
            return Err(Refusal::Rebooted(replica));
        }
        let elsewhere = |now: &&Publication| now.node != to && !self.diskless.contains(&now.node);
        if let Some(now) = self.published.get(&id).filter(elsewhere) {
            return Err(Refusal::Published {
                volume: volume.name.clone(),
                node: self.node_name(now.node),
            });
        }
        let is_there = volume.primary.is_some_and(|primary| primary.node == to);
        let what = format!("moves volume {} to {}", volume.name, self.node_name(to));
        if is_there {
            return Ok(match self.relocations.remove(&id) {
                Some(_) => Outcome::Audited(Answer::Done, what),
                None => Outcome::Unchanged(Answer::Done),
            });
        }
        if self.relocations.get(&id).is_some_and(|now| now.to == to) {
            return Ok(Outcome::Unchanged(Answer::Done));
        }
        let relocation = Relocation {
            to,
            since_ms: at_ms,
        };
        self.relocations.insert(id, relocation);
        Ok(Outcome::Audited(Answer::Done, what))
    }

    pub(super) fn end_relocation(&mut self, id: VolumeId, to: NodeId) -> Result<Outcome, Refusal> {
        match self.relocations.get(&id) {
            Some(relocation) if relocation.to == to => {
                self.relocations.remove(&id);
                Ok(Outcome::Changed(Answer::Done))
            }
            Some(_) | None => Ok(Outcome::Unchanged(Answer::Done)),
        }
    }

    /// A move whose goal has left the set or lost power, or whose volume is gone, is off: the goal could not serve, and the other replicas
    /// would not.
    pub(super) fn end_moves_without_goal(&mut self) {
        let (volumes, rebooted) = (&self.volumes, &self.rebooted);
        self.relocations.retain(|id, relocation| {
            let is_goal = |replica: &ReplicaId| replica.node == relocation.to;
            let lost_power = rebooted
                .get(id)
                .is_some_and(|replicas| replicas.iter().any(is_goal));
            let is_member = volumes
                .get(id)
                .is_some_and(|volume| volume.in_sync.iter().any(is_goal));
            is_member && !lost_power
        });
    }

    /// Refuses a node that could not serve the volume: it holds no replica, or its domain is not active.
    fn check_holder(&self, volume: &VolumeRecord, node: NodeId) -> Result<(), Refusal> {
        self.check_holds(volume, node)?;
        self.check_active(node)
    }

    pub(super) fn check_holds(&self, volume: &VolumeRecord, node: NodeId) -> Result<(), Refusal> {
        let record = self.nodes.get(&node).ok_or(Refusal::UnknownNode(node))?;
        if !volume.replicas.contains(&node) {
            return Err(Refusal::NoReplica {
                volume: volume.name.clone(),
                node: record.name.clone(),
                holders: volume
                    .replicas
                    .iter()
                    .map(|holder| self.node_name(*holder))
                    .collect(),
            });
        }
        Ok(())
    }

    fn check_active(&self, node: NodeId) -> Result<(), Refusal> {
        let record = self.nodes.get(&node).ok_or(Refusal::UnknownNode(node))?;
        let domain = self.domain(record.domain)?;
        match domain.state {
            DomainState::Active => Ok(()),
            DomainState::Deactivating | DomainState::Inactive | DomainState::Activating => {
                Err(domain.refusal())
            }
        }
    }

    /// Whether a primary may take requests of clients that came to `node`: the node that the volume is published to, if it is to any. The node
    /// of a client that was forwarded is diskless and in an active domain (I8).
    #[must_use]
    pub fn lets_in(&self, volume: VolumeId, primary: NodeId, node: NodeId) -> bool {
        let published = self.published.get(&volume);
        let comes_here =
            node == primary || (self.diskless.contains(&node) && self.in_active_domain(node));
        comes_here && published.is_none_or(|published| published.node == node)
    }

    /// Whether it is proven that the node serves the volume no more, whatever its process believes: its domain is inactive, or
    /// another node is its opened primary, which has seen the grants of all before it out. (Of a diskless node another node always is
    /// primary; that proves nothing.)
    fn is_fenced(&self, volume: &VolumeRecord, node: NodeId) -> bool {
        let is_inactive = self
            .nodes
            .get(&node)
            .and_then(|record| self.domains.get(&record.domain))
            .is_some_and(|domain| domain.state == DomainState::Inactive);
        let is_replaced = !self.diskless.contains(&node)
            && volume.opened
            && volume.primary.is_some_and(|primary| primary.node != node);
        is_inactive || is_replaced
    }

    /// Whether the node may serve the volume now, or before its grants are over. A diskless node may as long as there is a primary to which it
    /// forwards.
    #[must_use]
    pub fn may_serve(&self, volume: &VolumeRecord, node: NodeId) -> bool {
        if self.diskless.contains(&node) {
            return volume.primary.is_some() && !self.is_fenced(volume, node);
        }
        let is_primary = volume.primary.is_some_and(|primary| primary.node == node);
        let is_ending = self
            .nodes
            .get(&node)
            .and_then(|record| self.domains.get(&record.domain))
            .is_some_and(|domain| domain.state == DomainState::Deactivating);
        // Who takes over from it proves that its rights are over by serving, or by giving up.
        let is_being_replaced = !volume.opened
            && volume.handover == Handover::Taken
            && volume.primary.is_some()
            && volume
                .granted_set
                .iter()
                .any(|replica| replica.node == node);
        (is_primary || is_ending || is_being_replaced) && !self.is_fenced(volume, node)
    }

    /// The replica that the node's store would be.
    fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        let incarnation = self.nodes.get(&node)?.incarnation?;
        Some(ReplicaId { node, incarnation })
    }

    /// A node's name, or its number where it is not known.
    #[must_use]
    pub fn node_name(&self, node: NodeId) -> String {
        self.nodes
            .get(&node)
            .map_or_else(|| node.to_string(), |record| record.name.clone())
    }
}

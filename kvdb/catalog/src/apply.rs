//! What a command does to the catalog.
//!
//! [`Catalog::apply`] finds repeats, hands the command to its topic, and records what changed. Each topic's functions first
//! check everything, then change: a refusal leaves the catalog exactly as it was. Reading order: `cluster` (form),
//! `nodes` (start of a store), `volumes` (create, expand, delete), `replicas` (which nodes hold one), `configuration` (primary and in-sync set), `places` (where a volume
//! is used, and is moved to), `domains` (activate, deactivate), `failovers` (their reports), `generations` (going on without quorum), `sets`, the rules by which replicas leave a
//! volume's sets, and `audit`.

mod audit;
mod cluster;
mod configuration;
mod domains;
mod failovers;
mod generations;
mod nodes;
mod places;
mod replicas;
mod sets;
mod volumes;

use crate::command::{Answer, Command, Refusal, Request};
use crate::record::{Catalog, DomainRecord, DomainState, NodeRecord, VolumeRecord};
use isthmus_engine::{DomainId, Epoch, NodeId, ReplicaId, VolumeId};

/// What a command that was not refused came to.
enum Outcome {
    /// The state was already so.
    Unchanged(Answer),
    /// The state changed.
    Changed(Answer),
    /// The state changed by an operator's wish: the text goes into the audit trail.
    Audited(Answer, String),
}

impl Catalog {
    /// Applies one request: deterministic, total, at most once.
    ///
    /// A request whose id has already changed something gets the recorded answer (of the last [`Catalog::ANSWERS_MAX`]
    /// such requests). A refused request, and one that finds its wish fulfilled, change nothing at all and are not recorded.
    pub fn apply(&mut self, request: &Request) -> Answer {
        if matches!(request.command, Command::Nothing) {
            return Answer::Done;
        }
        if let Some((_, answer)) = self.answers.iter().rev().find(|(id, _)| *id == request.id) {
            return answer.clone();
        }
        let (answer, audit) = match self.execute(request) {
            Err(refusal) => return Answer::Refused(refusal),
            Ok(Outcome::Unchanged(answer)) => return answer,
            Ok(Outcome::Changed(answer)) => (answer, None),
            Ok(Outcome::Audited(answer, what)) => (answer, Some(what)),
        };
        self.end_moves_without_goal();
        self.revision += 1;
        if let Some(what) = audit {
            self.record_audit(&request.cause, &what);
        }
        self.answers.push_back((request.id, answer.clone()));
        while self.answers.len() > Catalog::ANSWERS_MAX {
            self.answers.pop_front();
        }
        answer
    }

    fn execute(&mut self, request: &Request) -> Result<Outcome, Refusal> {
        let at_ms = request.cause.at_ms;
        if self.cluster_id == 0 && !matches!(request.command, Command::Form { .. }) {
            return Err(Refusal::NotFormed);
        }
        match &request.command {
            Command::Form {
                cluster_name,
                cluster_id,
                domains,
                nodes,
            } => self.form(cluster_name, *cluster_id, domains, nodes, at_ms),
            Command::NodeStarted {
                node,
                incarnation,
                starts,
            } => self.node_started(*node, *incarnation, *starts, None, at_ms),
            Command::NodeStartedIn {
                node,
                incarnation,
                starts,
                boot,
            } => self.node_started(*node, *incarnation, *starts, Some(*boot), at_ms),
            Command::CaughtUp {
                volume,
                epoch,
                primary,
                replicas,
            } => self.caught_up(*volume, *epoch, *primary, replicas),
            Command::CreateVolume {
                name,
                bytes,
                block_bytes,
                policy,
            } => self.create_volume(name, *bytes, *block_bytes, policy, 1, at_ms),
            Command::CreateVolumeWith {
                name,
                bytes,
                block_bytes,
                policy,
                replicas_per_domain,
            } => {
                let per_domain = *replicas_per_domain;
                self.create_volume(name, *bytes, *block_bytes, policy, per_domain, at_ms)
            }
            Command::AddReplica { volume, node } => self.add_replica(*volume, *node, at_ms),
            Command::RemoveReplica {
                volume,
                node,
                answering,
            } => self.remove_replica(*volume, *node, answering, at_ms),
            Command::DeleteVolume { volume } => self.delete_volume(*volume),
            Command::ExpandVolume { volume, bytes } => self.expand_volume(*volume, *bytes),
            Command::ChangePolicy {
                volume,
                on_peer_loss,
                durability,
                preferred_domain,
            } => self.change_policy(*volume, *on_peer_loss, *durability, *preferred_domain),
            Command::Publish {
                volume,
                node,
                read_only,
            } => self.publish(*volume, *node, *read_only, at_ms),
            Command::Unpublish { volume, node, idle } => self.unpublish(*volume, *node, *idle),
            Command::Relocate { volume, to } => self.relocate(*volume, *to, at_ms),
            Command::EndRelocation { volume, to } => self.end_relocation(*volume, *to),
            Command::Promote {
                volume,
                expected,
                candidate,
            } => self.promote(*volume, *expected, *candidate, at_ms),
            Command::Opened {
                volume,
                epoch,
                primary,
            } => self.opened(*volume, *epoch, *primary),
            Command::Shrink {
                volume,
                epoch,
                primary,
                leaving,
            } => self.shrink(*volume, *epoch, *primary, leaving, at_ms),
            Command::BeginCopy {
                volume,
                epoch,
                primary,
                joining,
            } => self.begin_copy(*volume, *epoch, *primary, *joining),
            Command::Grow {
                volume,
                epoch,
                primary,
                joining,
            } => self.grow(*volume, *epoch, *primary, *joining, at_ms),
            Command::Renew {
                volume,
                epoch,
                primary,
            } => self.renew(*volume, *epoch, *primary),
            Command::Release {
                volume,
                epoch,
                primary,
            } => self.release(*volume, *epoch, *primary),
            Command::Deactivate {
                domain,
                answering,
                accept_data_loss,
            } => self.deactivate(*domain, answering, *accept_data_loss, false, at_ms),
            Command::FailOver { domain, answering } => {
                self.deactivate(*domain, answering, false, true, at_ms)
            }
            Command::ForceGeneration { id } => self.force_generation(*id),
            Command::NameReplica { volume, replica } => self.name_replica(*volume, *replica, at_ms),
            Command::NoteFailover { name, positions } => self.note_failover(name, positions),
            Command::AddDiskless { node, record } => self.add_node(*node, record, true),
            Command::AddNode { node, record } => self.add_node(*node, record, false),
            Command::RemoveNode { node } => self.remove_node(*node),
            Command::Deactivated { domain, proof } => self.deactivated(*domain, proof, at_ms),
            Command::Activate { domain } => self.activate(*domain, at_ms),
            Command::Activated { domain } => self.activated(*domain, at_ms),
            Command::UpdateFailed { domain, reason } => self.update_failed(*domain, reason, at_ms),
            Command::Nothing => Ok(Outcome::Unchanged(Answer::Done)),
        }
    }

    fn volume(&self, volume: VolumeId) -> Result<&VolumeRecord, Refusal> {
        self.volumes
            .get(&volume)
            .ok_or(Refusal::UnknownVolume(volume))
    }

    fn volume_mut(&mut self, volume: VolumeId) -> Result<&mut VolumeRecord, Refusal> {
        self.volumes
            .get_mut(&volume)
            .ok_or(Refusal::UnknownVolume(volume))
    }

    fn domain(&self, domain: DomainId) -> Result<&DomainRecord, Refusal> {
        self.domains
            .get(&domain)
            .ok_or(Refusal::UnknownDomain(domain))
    }

    /// Whether the node is a member and its domain is active (I8).
    pub fn in_active_domain(&self, node: NodeId) -> bool {
        let domain = self
            .nodes
            .get(&node)
            .and_then(|node| self.domains.get(&node.domain));
        domain.is_some_and(|domain| domain.state == DomainState::Active)
    }

    /// The nodes of a domain that may hold replicas, serve and vote.
    pub fn nodes_with_store(
        &self,
        domain: DomainId,
    ) -> impl Iterator<Item = (NodeId, &NodeRecord)> {
        let nodes = self.nodes.iter().map(|(id, node)| (*id, node));
        nodes.filter(move |(id, node)| node.domain == domain && !self.diskless.contains(id))
    }

    /// Whether the replica's incarnation is the one with which its node has registered (I12).
    pub fn is_registered(&self, replica: ReplicaId) -> bool {
        self.nodes
            .get(&replica.node)
            .is_some_and(|node| node.incarnation == Some(replica.incarnation))
    }

    /// The epoch after `epoch`, or a refusal when the numbers are used up.
    fn epoch_after(&self, epoch: Epoch) -> Result<Epoch, Refusal> {
        match epoch.number.checked_add(1) {
            Some(number) => Ok(Epoch {
                generation: self.generation.max(epoch.generation),
                number,
            }),
            None => Err(Refusal::Invalid(
                "the volume has used up its epochs: copy it to a new one".to_owned(),
            )),
        }
    }
}

/// The text, cut to [`Catalog::TEXT_BYTES_MAX`] bytes at a character's edge.
fn cut(text: &str) -> String {
    let mut end = text.len().min(Catalog::TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Refuses a name that is not 1 to 63 of `a-z 0-9 . _ -`, beginning with a letter or digit.
fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let first_is_fine = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let all_are_fine = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte));
    if first_is_fine && all_are_fine && name.len() <= Catalog::NAME_BYTES_MAX {
        return Ok(());
    }
    let shown = cut(name);
    Err(Refusal::Invalid(format!(
        "{what} name {shown:?}: use 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit"
    )))
}

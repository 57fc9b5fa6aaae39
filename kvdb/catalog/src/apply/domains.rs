//! Activating and deactivating a domain: the recorded steps of the one switch that gates failover.
//!
//! ```text
//!            Deactivate               Deactivated
//!   Active ────────────▶ Deactivating ──────────▶ Inactive ◀─────┐
//!     ▲                   │  (failed)               │            │ UpdateFailed
//!     │ Activated         └──────▶ Activate ◀───────┘            │
//!     └────────────────────────── Activating ────────────────────┘
//! ```

use super::failovers::Before;
use super::{Outcome, cut};
use crate::command::{Answer, Refusal};
use crate::plan::DeactivationPlan;
use crate::record::{
    Catalog, DomainRecord, DomainRole, DomainState, DomainUpdate, UpdateAction, UpdateStatus,
    VolumeRecord,
};
use isthmus_engine::{DomainId, Epoch, NodeId, ReplicaId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

impl DomainRecord {
    /// That the domain's state forbids what was asked.
    pub(crate) fn refusal(&self) -> Refusal {
        let state = match self.state {
            DomainState::Active => "active already",
            DomainState::Deactivating => {
                "being deactivated: wait until that is done, or has failed"
            }
            DomainState::Inactive => "inactive",
            DomainState::Activating => "being activated: wait until that is done, or has failed",
        };
        Refusal::DomainState {
            name: self.name.clone(),
            state: state.to_owned(),
        }
    }
}

impl Catalog {
    pub(super) fn deactivate(
        &mut self,
        id: DomainId,
        answering: &BTreeSet<NodeId>,
        accept_data_loss: bool,
        automatic: bool,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let plan = self.plan_deactivation(id, answering)?;
        if !plan.lost.is_empty() && !accept_data_loss {
            return Err(self.would_lose(id, &plan)?);
        }
        let domain = self.domain(id)?;
        let name = domain.name.clone();
        let mut what = format!("deactivates cluster domain {name}");
        if automatic {
            what.push_str(" by the failover policy");
        }
        let is_data = domain.role == DomainRole::Data;
        let before: BTreeMap<VolumeId, Before> = match is_data {
            true => (self.volumes.iter())
                .map(|(id, volume)| (*id, Before::of(volume)))
                .collect(),
            false => BTreeMap::new(),
        };
        if is_data {
            let waits = |volume: &VolumeId| {
                let record = self.volumes.get(volume);
                record.is_some_and(|record| self.survivors(record, answering, id).is_empty())
            };
            let (waiting, given_up): (Vec<VolumeId>, Vec<VolumeId>) =
                plan.lost.iter().partition(|volume| waits(volume));
            let mut epochs: BTreeMap<VolumeId, Epoch> = BTreeMap::new();
            for (volume_id, volume) in &self.volumes {
                epochs.insert(*volume_id, self.epoch_after(volume.epoch)?);
            }
            for (volume_id, epoch) in epochs {
                self.deactivate_in_volume(
                    volume_id,
                    epoch,
                    id,
                    answering,
                    plan.lost.contains(&volume_id),
                    at_ms,
                );
            }
            if !given_up.is_empty() {
                what.push_str(", accepting the loss of what no answering replica holds of: ");
                what.push_str(&self.volume_names(&given_up).join(", "));
            }
            if !waiting.is_empty() {
                what.push_str("; until a replica of their sets answers, these wait: ");
                what.push_str(&self.volume_names(&waiting).join(", "));
            }
        }
        let update = self.begin_update(
            id,
            UpdateAction::Deactivate,
            DomainState::Deactivating,
            at_ms,
        );
        if is_data {
            self.report_failover(&update, id, automatic, at_ms, &before, &plan.lost);
        }
        Ok(Outcome::Audited(Answer::Update(update), what))
    }

    fn deactivate_in_volume(
        &mut self,
        volume_id: VolumeId,
        epoch: Epoch,
        id: DomainId,
        answering: &BTreeSet<NodeId>,
        is_lost: bool,
        at_ms: u64,
    ) {
        let nodes: BTreeSet<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.domain == id)
            .map(|(id, _)| *id)
            .collect();
        let leaves = |replica: ReplicaId| nodes.contains(&replica.node);
        let Some(volume) = self.volumes.get(&volume_id) else {
            return;
        };
        let survivors = if is_lost {
            self.survivors(volume, answering, id)
        } else {
            BTreeSet::new()
        };
        let Some(volume) = self.volumes.get_mut(&volume_id) else {
            return;
        };
        volume.epoch = epoch;
        if survivors.is_empty() {
            if volume.primary.is_some_and(leaves) {
                volume.end_taken();
            }
            volume.remove(leaves);
            let stay = volume.opened_set.clone();
            self.follow_rebooted(volume_id);
            if is_lost && self.rebooted.get(&volume_id) == Some(&stay) {
                // Whoever kept more is given up, by the operator's word.
                self.rebooted.remove(&volume_id);
            }
        } else {
            // By the operator's word: these replicas count from now on, whatever the old set held beyond them. Its primary has to be fenced
            // before one of these serves.
            volume.end_taken();
            volume.in_sync = survivors.clone();
            volume.opened_set = survivors;
            volume.opened = true;
            self.rebooted.remove(&volume_id);
        }
        self.note_protection(volume_id, at_ms);
    }

    /// The replicas that count from now on where the operator accepts the loss of what a volume's set holds beyond them.
    ///
    /// The set's primary may not have heard of its last changes, and go on with who has left it since. Where it may so have members in
    /// several domains, it needs no grant of kvdb's, and time alone ends nothing: only who has promised to it can know that its rights are
    /// over. Where none of these answers, the volume waits for one.
    fn survivors(
        &self,
        volume: &VolumeRecord,
        answering: &BTreeSet<NodeId>,
        lost: DomainId,
    ) -> BTreeSet<ReplicaId> {
        let mut survivors = self.serving_replicas(volume, answering, lost);
        survivors.retain(|replica| volume.complete.contains(replica));
        let silent = volume.complete.iter().filter(|replica| {
            !answering.contains(&replica.node) && self.domain_of(replica.node) != Some(lost)
        });
        let may_serve: BTreeSet<ReplicaId> =
            volume.granted_set.iter().chain(silent).copied().collect();
        if self.spans_domains(&may_serve) {
            survivors.retain(|replica| volume.granted_set.contains(replica));
        }
        survivors
    }

    fn would_lose(&self, id: DomainId, plan: &DeactivationPlan) -> Result<Refusal, Refusal> {
        let mut volumes = self.volume_names(&plan.lost);
        let others = volumes.len().saturating_sub(Refusal::VOLUMES_MAX);
        volumes.truncate(Refusal::VOLUMES_MAX);
        if others > 0 {
            volumes.push(format!("and {others} more"));
        }
        Ok(Refusal::WouldLose {
            domain: self.domain(id)?.name.clone(),
            volumes,
        })
    }

    fn volume_names(&self, volumes: &[VolumeId]) -> Vec<String> {
        volumes
            .iter()
            .filter_map(|id| Some(self.volumes.get(id)?.name.clone()))
            .collect()
    }

    pub(super) fn deactivated(
        &mut self,
        id: DomainId,
        proof: &str,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let domain = self.domain(id)?;
        match domain.state {
            DomainState::Deactivating => {}
            DomainState::Inactive => return Ok(Outcome::Unchanged(Answer::Done)),
            DomainState::Active | DomainState::Activating => return Err(domain.refusal()),
        }
        let what = format!("cluster domain {} is inactive: {proof}", domain.name);
        self.end_update(
            id,
            UpdateStatus::Successful,
            proof,
            DomainState::Inactive,
            at_ms,
        );
        Ok(Outcome::Audited(Answer::Done, what))
    }

    pub(super) fn activate(&mut self, id: DomainId, at_ms: u64) -> Result<Outcome, Refusal> {
        let domain = self.domain(id)?;
        if domain.state != DomainState::Inactive && !self.deactivation_failed(id) {
            return Err(domain.refusal());
        }
        let what = format!("activates cluster domain {}", domain.name);
        let update = self.begin_update(id, UpdateAction::Activate, DomainState::Activating, at_ms);
        Ok(Outcome::Audited(Answer::Update(update), what))
    }

    pub(super) fn activated(&mut self, id: DomainId, at_ms: u64) -> Result<Outcome, Refusal> {
        let domain = self.domain(id)?;
        match domain.state {
            DomainState::Activating => {}
            DomainState::Active => return Ok(Outcome::Unchanged(Answer::Done)),
            DomainState::Deactivating | DomainState::Inactive => return Err(domain.refusal()),
        }
        let what = format!("cluster domain {} is active", domain.name);
        self.end_update(
            id,
            UpdateStatus::Successful,
            "its nodes have caught up",
            DomainState::Active,
            at_ms,
        );
        Ok(Outcome::Audited(Answer::Done, what))
    }

    pub(super) fn update_failed(
        &mut self,
        id: DomainId,
        reason: &str,
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let domain = self.domain(id)?;
        let state = match domain.state {
            DomainState::Deactivating if self.deactivation_failed(id) => {
                return Ok(Outcome::Unchanged(Answer::Done));
            }
            DomainState::Deactivating => DomainState::Deactivating,
            DomainState::Activating => DomainState::Inactive,
            DomainState::Active | DomainState::Inactive => return Err(domain.refusal()),
        };
        let what = format!(
            "the update of cluster domain {} failed: {reason}",
            domain.name
        );
        self.end_update(id, UpdateStatus::Failed(cut(reason)), reason, state, at_ms);
        Ok(Outcome::Audited(Answer::Done, what))
    }

    /// Whether the domain is left `Deactivating` by a deactivation that failed.
    pub(crate) fn deactivation_failed(&self, id: DomainId) -> bool {
        let is_deactivating = self
            .domains
            .get(&id)
            .is_some_and(|domain| domain.state == DomainState::Deactivating);
        let last = self.updates.iter().rev().find(|update| update.domain == id);
        is_deactivating
            && last.is_none_or(|update| matches!(update.status, UpdateStatus::Failed(_)))
    }

    fn begin_update(
        &mut self,
        id: DomainId,
        action: UpdateAction,
        state: DomainState,
        at_ms: u64,
    ) -> String {
        let verb = match action {
            UpdateAction::Activate => "activate",
            UpdateAction::Deactivate => "deactivate",
        };
        let domain = self
            .domains
            .get(&id)
            .map(|domain| domain.name.clone())
            .unwrap_or_default();
        // The revision that this change makes is unique, so the name is, too.
        let name = format!("{domain}-{verb}-{}", self.revision + 1);
        self.enter(id, state, at_ms);
        self.updates.push_back(DomainUpdate {
            name: name.clone(),
            domain: id,
            action,
            status: UpdateStatus::InProgress,
            created_ms: at_ms,
            detail: String::new(),
        });
        while self.updates.len() > Catalog::UPDATES_MAX {
            self.updates.pop_front();
        }
        name
    }

    fn end_update(
        &mut self,
        id: DomainId,
        status: UpdateStatus,
        detail: &str,
        state: DomainState,
        at_ms: u64,
    ) {
        self.enter(id, state, at_ms);
        if let Some(update) = self
            .updates
            .iter_mut()
            .rev()
            .find(|update| update.domain == id)
        {
            update.status = status;
            update.detail = cut(detail);
        }
    }

    fn enter(&mut self, id: DomainId, state: DomainState, at_ms: u64) {
        if let Some(domain) = self.domains.get_mut(&id) {
            domain.state = state;
            domain.since_ms = at_ms;
        }
    }
}

//! Reports of failovers: what a deactivation of a data domain meant for each volume, kept with the decision itself.

use super::Outcome;
use crate::command::{Answer, Refusal};
use crate::record::{Catalog, FailoverReport, FailoverVolume, VolumeRecord};
use isthmus_engine::{DomainId, Epoch, NodeId, ReplicaId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// What a volume was before a deactivation.
pub(super) struct Before {
    epoch: Epoch,
    primary: Option<NodeId>,
    in_sync: BTreeSet<NodeId>,
    unprotected_since_ms: Option<u64>,
}

impl Before {
    pub(super) fn of(volume: &VolumeRecord) -> Before {
        Before {
            epoch: volume.epoch,
            primary: volume.primary.map(|primary| primary.node),
            in_sync: nodes(&volume.opened_set),
            unprotected_since_ms: volume.unprotected_since_ms,
        }
    }
}

fn nodes(replicas: &BTreeSet<ReplicaId>) -> BTreeSet<NodeId> {
    replicas.iter().map(|replica| replica.node).collect()
}

impl Catalog {
    /// Notes what the deactivation of `domain` under this name has changed.
    pub(super) fn report_failover(
        &mut self,
        name: &str,
        domain: DomainId,
        automatic: bool,
        at_ms: u64,
        before: &BTreeMap<VolumeId, Before>,
        lost: &[VolumeId],
    ) {
        let in_domain = |node: &NodeId| {
            self.nodes
                .get(node)
                .is_some_and(|record| record.domain == domain)
        };
        let mut volumes: Vec<FailoverVolume> = before
            .iter()
            .filter_map(|(id, before)| {
                let volume = self.volumes.get(id)?;
                let moved = before.primary.as_ref().is_some_and(in_domain);
                let lost = lost.contains(id);
                let is_worth_telling = moved || lost || before.unprotected_since_ms.is_some();
                is_worth_telling.then(|| FailoverVolume {
                    volume: *id,
                    name: volume.name.clone(),
                    moved,
                    lost,
                    epoch: before.epoch,
                    in_sync_before: before.in_sync.clone(),
                    in_sync_after: nodes(&volume.opened_set),
                    unprotected_since_ms: before.unprotected_since_ms,
                    committed_seq: None,
                })
            })
            .collect();
        volumes.sort_by_key(|volume| {
            let badness = (
                volume.lost,
                volume.unprotected_since_ms.is_some(),
                volume.moved,
            );
            (std::cmp::Reverse(badness), volume.volume)
        });
        volumes.truncate(Catalog::FAILOVER_VOLUMES_MAX);
        let others = before.len() - volumes.len();
        self.failovers.push_back(FailoverReport {
            name: name.to_owned(),
            domain,
            automatic,
            at_ms,
            others: u32::try_from(others).unwrap_or(u32::MAX),
            volumes,
        });
        while self.failovers.len() > Catalog::FAILOVERS_MAX {
            self.failovers.pop_front();
        }
    }

    pub(super) fn note_failover(
        &mut self,
        name: &str,
        positions: &[(VolumeId, u64)],
    ) -> Result<Outcome, Refusal> {
        let report = self
            .failovers
            .iter_mut()
            .rev()
            .find(|report| report.name == name);
        let Some(report) = report else {
            return Err(Refusal::Invalid(format!("there is no report of {name}")));
        };
        let positions: BTreeMap<VolumeId, u64> = positions.iter().copied().collect();
        let mut is_new = false;
        for volume in &mut report.volumes {
            if let Some(seq) = positions.get(&volume.volume)
                && volume.committed_seq.is_none_or(|known| known < *seq)
            {
                volume.committed_seq = Some(*seq);
                is_new = true;
            }
        }
        Ok(match is_new {
            true => Outcome::Changed(Answer::Done),
            false => Outcome::Unchanged(Answer::Done),
        })
    }
}

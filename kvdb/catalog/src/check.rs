//! What holds of every catalog that came about by [`Catalog::apply`]: for tests and for the simulator's checkers.

use crate::record::{Catalog, Durability, VolumeRecord};
use isthmus_engine::VolumeId;

impl Catalog {
    /// The rules that the catalog breaks, in words; none when all is well. A catalog that breaks one is a bug of ours.
    pub fn broken_rules(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (id, volume) in &self.volumes {
            self.check_volume_rules(*id, volume, &mut broken);
        }
        let bounds = [
            ("volumes", self.volumes.len(), Catalog::VOLUMES_MAX),
            ("domain updates", self.updates.len(), Catalog::UPDATES_MAX),
            ("audit records", self.audit.len(), Catalog::AUDIT_MAX),
            ("answers", self.answers.len(), Catalog::ANSWERS_MAX),
            ("failovers", self.failovers.len(), Catalog::FAILOVERS_MAX),
        ];
        for (what, count, max) in bounds {
            if count > max {
                broken.push(format!("{count} {what}, at most {max}"));
            }
        }
        if self.audit_digests.len() != self.audit.len() {
            broken.push("not every audit record has its digest".to_owned());
        }
        if let Some(record) = self.audit_gap() {
            broken.push(format!("the audit trail breaks at {record:?}"));
        }
        for (id, relocation) in &self.relocations {
            let goal = self.volumes.get(id).is_some_and(|volume| {
                let mut members = volume.in_sync.iter();
                members.any(|replica| replica.node == relocation.to)
            });
            if !goal {
                broken.push(format!("{id} is moved to a replica that is not in sync"));
            }
        }
        if self.generation != self.lineage.number() {
            broken.push("the generation is not the last one of the lineage".to_owned());
        }
        for id in &self.unproven {
            let held = self
                .volumes
                .get(id)
                .is_some_and(|volume| volume.primary.is_none());
            if !held {
                broken.push(format!(
                    "{id} is unproven, and has a primary or does not exist"
                ));
            }
        }
        for node in &self.diskless {
            let mut volumes = self.volumes.values();
            if volumes.any(|volume| volume.replicas.contains(node)) {
                broken.push(format!("{node} is diskless, and holds a replica"));
            }
            if !self.nodes.contains_key(node) {
                broken.push(format!("{node} is diskless, and no member"));
            }
        }
        let placed = self.published.keys().chain(self.relocations.keys());
        for id in placed.filter(|id| !self.volumes.contains_key(id)) {
            broken.push(format!("{id} is placed, and does not exist"));
        }
        broken
    }

    fn check_volume_rules(&self, id: VolumeId, volume: &VolumeRecord, broken: &mut Vec<String>) {
        let mut rule = |holds: bool, text: &str| {
            if !holds {
                broken.push(format!("{id}: {text}: {volume:?}"));
            }
        };
        rule(!volume.in_sync.is_empty(), "a set is never empty");
        rule(
            volume.in_sync.is_subset(&volume.opened_set),
            "the set is a part of the last opened one",
        );
        rule(
            !volume.opened || volume.in_sync == volume.opened_set,
            "an opened set is the last opened one",
        );
        rule(
            volume
                .opened_set
                .iter()
                .all(|replica| volume.replicas.contains(&replica.node)),
            "only replicas are in the set",
        );
        rule(
            volume.opened_set.is_subset(&volume.complete),
            "who is in the set is complete",
        );
        rule(
            volume.unprotected_since_ms.is_none() == self.is_protected(volume),
            "a set that lacks a domain says since when",
        );
        rule(
            !volume.opened || volume.primary.is_none() || volume.granted_set == volume.in_sync,
            "the next primary sees out the grants that this one needs",
        );
        rule(id.0 < self.next_volume, "volume ids are never used again");
        rule(
            volume.served || !volume.opened || volume.primary.is_none(),
            "a primary that opened it has served the volume",
        );
        if let Some(rebooted) = self.rebooted.get(&id) {
            rule(
                !rebooted.is_empty() && rebooted.is_subset(&volume.opened_set),
                "only members are rebooted",
            );
            rule(
                *rebooted != volume.opened_set,
                "where all members are rebooted, none is",
            );
            rule(
                volume.policy.durability == Durability::Flush,
                "only where acknowledged writes may be lost with power does a reboot count",
            );
            rule(
                volume
                    .primary
                    .is_none_or(|primary| !rebooted.contains(&primary)),
                "a rebooted replica is not primary",
            );
        }
        if let Some(primary) = volume.primary {
            rule(
                volume.in_sync.contains(&primary),
                "the primary is in the set",
            );
            rule(
                self.in_active_domain(primary.node),
                "the primary's domain is active",
            );
            rule(
                self.is_registered(primary),
                "the primary's store is the registered one",
            );
        }
    }
}

//! The operator, who deactivates and activates sites at any time, also the wrong one, also against what was asked just before; and the
//! domain updates that this begins, each of which ends only with its proof, by the rules of `isthmusd`'s driver.

use super::{Event, Simulation};
use crate::scenario::Wish;
use crate::schedule::{MICROSECOND, MILLISECOND, SECOND};
use isthmus_catalog::{
    Catalog, Command, DomainState, Handover, UpdateAction, UpdateStatus, VolumePolicy,
};
use isthmus_engine::{BLOCK_BYTES, DomainId, NodeId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

const LOOK: u64 = 100 * MILLISECOND;
/// How long a move lasts.
const MOVE: u64 = 3 * SECOND;

/// What is known of a domain update under way, on the node that leads kvdb.
#[derive(Debug)]
struct Update {
    revision: u64,
    ending: BTreeSet<VolumeId>,
    ending_since: Option<u64>,
}

/// The operator's side of the cluster.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// By the update's name.
    updates: BTreeMap<String, Update>,
    /// Where each volume is being moved, and since when that is known.
    moves: BTreeMap<VolumeId, (NodeId, u64)>,
    /// Faults are over: everything is to be active.
    pub heals: bool,
}

impl Simulation {
    pub(super) fn plan_wishes(&mut self) {
        for (index, planned) in self.scenario.wishes.iter().enumerate() {
            self.schedule
                .at(planned.at_us * MICROSECOND, Event::Wish(index));
        }
    }

    pub(super) fn wish(&mut self, index: usize) {
        let Some(planned) = self.scenario.wishes.get(index) else {
            return;
        };
        if self.operator.heals {
            return;
        }
        let wish = planned.wish;
        self.note("operator", || format!("{wish:?}"));
        match wish {
            Wish::Deactivate { domain } => self.deactivate(DomainId(domain), false),
            Wish::DeactivateAcceptingLoss { domain } => self.deactivate(DomainId(domain), true),
            Wish::Activate { domain } => self.ask_kvdb(Command::Activate {
                domain: DomainId(domain),
            }),
            Wish::DeleteVolume { volume } => {
                if let Some(volume) = self.volume_numbered(volume) {
                    self.ask_kvdb(Command::DeleteVolume { volume });
                }
            }
            Wish::ExpandVolume { volume, blocks } => {
                if let Some(volume) = self.volume_numbered(volume) {
                    let bytes = blocks * BLOCK_BYTES;
                    self.ask_kvdb(Command::ExpandVolume { volume, bytes });
                }
            }
            Wish::RelocateVolume { volume, node } => {
                let to = self.nodes.get(node).map(|node| node.id);
                if let Some((volume, to)) = self.volume_numbered(volume).zip(to) {
                    self.ask_kvdb(Command::Relocate { volume, to });
                }
            }
            Wish::CreateVolume { blocks } => self.ask_kvdb(Command::CreateVolume {
                name: format!("w{index}"),
                bytes: blocks * BLOCK_BYTES,
                block_bytes: 512,
                policy: VolumePolicy::default(),
            }),
        }
    }

    /// The volume with this index, unless it was deleted.
    fn volume_numbered(&self, index: usize) -> Option<VolumeId> {
        let name = format!("v{}", index + 1);
        let mut volumes = self.kvdb.catalog().volumes.iter();
        let found = volumes.find(|(_, record)| record.name == name);
        found.map(|(volume, _)| *volume)
    }

    /// What `isthmusd`'s leader does about moves: they end after a while, whatever came of them.
    fn end_moves(&mut self, catalog: &Catalog) {
        let now = self.schedule.now();
        let wanted = &catalog.relocations;
        self.operator
            .moves
            .retain(|volume, (to, _)| wanted.get(volume).is_some_and(|now| now.to == *to));
        for (volume, relocation) in wanted {
            let to = relocation.to;
            let (_, since) = *self.operator.moves.entry(*volume).or_insert((to, now));
            if now - since >= MOVE {
                let volume = *volume;
                self.ask_kvdb(Command::EndRelocation { volume, to });
            }
        }
    }

    fn deactivate(&mut self, domain: DomainId, accept_data_loss: bool) {
        let mut answering: BTreeSet<NodeId> = [NodeId(3)].into();
        for node in &self.nodes {
            if node.answers() && node.reaches_kvdb && node.registered {
                answering.insert(node.id);
            }
        }
        self.ask_kvdb(Command::Deactivate {
            domain,
            answering,
            accept_data_loss,
        });
    }

    pub(super) fn carry_domain_updates_on(&mut self) {
        self.schedule.after(LOOK, Event::DomainUpdates);
        let Some(catalog) = self.leaders_catalog() else {
            return;
        };
        let under_way: Vec<_> = catalog
            .updates
            .iter()
            .filter(|update| {
                matches!(
                    update.status,
                    UpdateStatus::Pending | UpdateStatus::InProgress
                )
            })
            .cloned()
            .collect();
        self.operator
            .updates
            .retain(|name, _| under_way.iter().any(|update| update.name == *name));
        for record in under_way {
            let fresh = Update {
                revision: catalog.revision,
                ending: BTreeSet::new(),
                ending_since: None,
            };
            let mut update = self.operator.updates.remove(&record.name).unwrap_or(fresh);
            let domain = record.domain;
            let command = match record.action {
                UpdateAction::Deactivate => {
                    self.is_fenced(&catalog, domain, &mut update)
                        .then(|| Command::Deactivated {
                            domain,
                            proof: "simulated".to_owned(),
                        })
                }
                UpdateAction::Activate => self
                    .has_caught_up(domain, update.revision)
                    .then_some(Command::Activated { domain }),
            };
            self.operator.updates.insert(record.name, update);
            if let Some(command) = command
                && self.votes_have_moved(&catalog)
            {
                self.ask_kvdb(command);
            }
        }
        self.end_moves(&catalog);
        if self.operator.heals {
            self.activate_all(&catalog);
        }
    }

    /// The same proof as `node/src/domains/fence.rs`: every node of the domain says that it serves nothing, or a giver of each
    /// volume outside has acted on the deactivation, and a lease has passed since.
    fn is_fenced(&self, catalog: &Catalog, domain: DomainId, update: &mut Update) -> bool {
        let now = self.schedule.now();
        let Some(inside) = self.nodes.iter().find(|node| node.domain == domain) else {
            return true;
        };
        let acted = |id: NodeId| {
            self.nodes.iter().any(|node| {
                node.id == id
                    && node.answers()
                    && node.reaches_kvdb
                    && node.acted_on >= update.revision
            })
        };
        if acted(inside.id) && inside.serves_nothing(now) {
            return true;
        }
        for (volume, record) in &catalog.volumes {
            if update.ending.contains(volume) {
                continue;
            }
            let opened_elsewhere = record.opened
                && record
                    .primary
                    .is_some_and(|primary| primary.node != inside.id);
            let mut givers = record
                .granted_set
                .iter()
                .filter(|replica| replica.node != inside.id)
                .peekable();
            let nobody_gives = givers.peek().is_none();
            if !opened_elsewhere
                && record.handover != Handover::Released
                && !nobody_gives
                && !givers.any(|replica| acted(replica.node))
            {
                return false;
            }
            update.ending.insert(*volume);
        }
        let since = *update.ending_since.get_or_insert(now);
        // The witness leads, by its own clock.
        let rate = 1_000_000u64.saturating_add_signed(self.scenario.world.drift_millionths[2]);
        let waited = (now - since) / 1_000 * rate / 1_000;
        waited >= self.scenario.world.settings().lease_of_giver().as_nanos() as u64
    }

    fn has_caught_up(&self, domain: DomainId, revision: u64) -> bool {
        let mut nodes = self
            .nodes
            .iter()
            .filter(|node| node.domain == domain)
            .peekable();
        nodes.peek().is_none()
            || nodes.all(|node| node.answers() && node.reaches_kvdb && node.acted_on >= revision)
    }

    fn activate_all(&mut self, catalog: &Catalog) {
        let pending: Vec<DomainId> = catalog
            .domains
            .iter()
            .filter(|(_, domain)| domain.state == DomainState::Inactive)
            .map(|(id, _)| *id)
            .collect();
        for domain in pending {
            if self.random.below(SECOND) < LOOK {
                self.ask_kvdb(Command::Activate { domain });
            }
        }
    }
}

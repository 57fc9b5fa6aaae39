//! kvdb, as the cluster meets it. Either its three members as they ship, or an atomic stand-in: the scenario says which. The rest of the
//! simulation knows this file only.
//!
//! Modules: `replicated` (a [`crate::group::Group`] whose data members live and die with the cluster's nodes), `stand_in`.

mod replicated;
mod stand_in;

use super::Simulation;
use super::node::Node;
use crate::scenario::{KvdbKind, Scenario};
use crate::schedule::SECOND;
use isthmus_catalog::{BootId, Catalog, Command, DomainState, Durability};
use isthmus_engine::{Incarnation, NodeId, Proposal, ReplicaId, Time, VolumeId};
use replicated::{Replicated, WitnessEnding};
use std::sync::Arc;

/// After how long an asker gives up.
const PATIENCE: u64 = 5 * SECOND;

/// What happens at kvdb.
#[derive(Debug)]
pub(super) enum Event {
    /// A request arrives at the leader. The answer goes to a node's process, if one waits for it.
    Apply {
        command: Command,
        from: Option<(usize, u64)>,
        answer: Option<(usize, u64, VolumeId)>,
    },
    /// A linearizable read.
    Read { node: usize, life: u64, begun: Time },
    /// A node's process asks again to be noted.
    Register { node: usize, life: u64 },
    /// Nodes can be reached again.
    Reachable(usize),
    /// kvdb has a leader again.
    Up,
    /// Something happens inside the group.
    Group,
    /// Something that befell the witness, or its ways, is over.
    Witness(WitnessEnding),
}

/// kvdb.
#[derive(Debug)]
pub(super) struct Kvdb {
    versions: Vec<Arc<Catalog>>,
    /// The stand-in's requests so far.
    requests: u64,
    /// Processes up to this life of each node have nothing on its way to the stand-in any more.
    forgotten: [u64; 2],
    /// Nobody reaches anybody.
    pub is_down: bool,
    replicated: Option<Box<Replicated>>,
}

impl Kvdb {
    /// A formed cluster with its volumes, all nodes registered once (before their first real start).
    pub fn new(scenario: &Scenario, nodes: &[Node; 2]) -> (Kvdb, Vec<(VolumeId, u64)>) {
        match scenario.world.kvdb {
            KvdbKind::Replicated => Replicated::form(scenario, nodes),
            KvdbKind::StandIn => Kvdb::stand_in(scenario, nodes),
        }
    }

    /// The newest version.
    pub fn catalog(&self) -> &Arc<Catalog> {
        self.versions.last().expect("there is a first version")
    }
}

fn started(node: NodeId, incarnation: Incarnation, starts: u64, boot: u128) -> Command {
    Command::NodeStartedIn {
        node,
        incarnation,
        starts,
        boot: BootId(boot),
    }
}

impl Simulation {
    /// A node's host proposes.
    pub(super) fn propose(&mut self, index: usize, volume: VolumeId, proposal: Proposal) {
        if self.kvdb.replicated.is_some() {
            self.propose_to_group(index, volume, &proposal);
        } else {
            self.propose_to_stand_in(index, volume, proposal);
        }
    }

    /// A node's host wants a linearizable read.
    pub(super) fn confirm(&mut self, index: usize) {
        if self.kvdb.replicated.is_some() {
            self.confirm_at_group(index);
        } else {
            self.confirm_at_stand_in(index);
        }
    }

    /// A node's process has started.
    pub(super) fn register(&mut self, index: usize) {
        if self.kvdb.replicated.is_some() {
            self.start_member(index);
        } else {
            self.register_at_stand_in(index);
        }
    }

    /// The operator, or whoever leads kvdb, asks for something.
    pub(super) fn ask_kvdb(&mut self, command: Command) {
        if self.kvdb.replicated.is_some() {
            self.ask_group(command);
        } else {
            self.ask_stand_in(command);
        }
    }

    pub(super) fn at_kvdb(&mut self, event: Event) {
        if self.kvdb.replicated.is_some() {
            self.at_group(event);
        } else {
            self.at_stand_in(event);
        }
    }

    /// What the node that leads kvdb has confirmed of the catalog, for whoever carries domain updates on there.
    pub(super) fn leaders_catalog(&mut self) -> Option<Arc<Catalog>> {
        if self.kvdb.replicated.is_some() {
            self.groups_leaders_catalog()
        } else {
            (!self.kvdb.is_down).then(|| Arc::clone(self.kvdb.catalog()))
        }
    }

    /// Whether kvdb knows each node's present disk, and would survive the loss of one.
    pub(super) fn all_disks_are_known(&self) -> bool {
        let now = self.schedule.now();
        let replicated = self.kvdb.replicated.as_ref();
        replicated.is_none_or(|group| group.survives_a_lost_disk(now))
            && self.disks_are_registered()
    }

    /// Whether kvdb knows each node's present disk.
    pub(super) fn disks_are_registered(&self) -> bool {
        let catalog = self.kvdb.catalog();
        self.nodes.iter().all(|node| {
            catalog
                .nodes
                .get(&node.id)
                .is_some_and(|record| record.incarnation == Some(node.incarnation))
        })
    }

    /// What the node's processes have asked so far and is still on its way never arrives.
    pub(super) fn forget_requests_of(&mut self, index: usize) {
        self.kvdb.forgotten[index] = self.nodes[index].life;
    }

    fn committed(&mut self, before: &Catalog, after: &Catalog) {
        for (volume, record) in &after.volumes {
            let Some(old) = before.volumes.get(volume) else {
                self.checkers.created(*volume, record.bytes);
                continue;
            };
            if has_lost_all_kernels(before, after, *volume) {
                self.checkers.all_kernels_lost(*volume);
                self.summary.kernels_lost += 1;
            }
            if record.opened
                && !old.opened
                && let Some(primary) = record.primary
            {
                self.summary.opened += 1;
                self.checkers.opened(*volume, record.epoch, primary.node);
            }
            if record.opened
                && old.opened
                && record.primary.is_some()
                && record.primary == old.primary
            {
                self.summary.shrunk += u64::from(record.in_sync.len() < old.in_sync.len());
                self.summary.grown += u64::from(record.in_sync.len() > old.in_sync.len());
            }
        }
        for node in [0, 1] {
            let domain = self.nodes[node].domain;
            let state = |catalog: &Catalog| catalog.domains.get(&domain).map(|domain| domain.state);
            if state(before) != state(after) {
                let inactive = state(after) == Some(DomainState::Inactive);
                self.summary.deactivated +=
                    u64::from(inactive && state(before) == Some(DomainState::Deactivating));
                self.checkers
                    .domain_state(self.nodes[node].id, state(after));
            }
        }
    }
}

/// Whether the last member of a set that had not lost power has: then what nobody flushed may be gone.
fn has_lost_all_kernels(before: &Catalog, after: &Catalog, volume: VolumeId) -> bool {
    let (Some(old), Some(record)) = (before.volumes.get(&volume), after.volumes.get(&volume))
    else {
        return false;
    };
    record.policy.durability == Durability::Flush
        && after.boots.iter().any(|(node, boot)| {
            let known = before.boots.get(node);
            let replica = |catalog: &Catalog| {
                let incarnation = catalog.nodes.get(node)?.incarnation?;
                Some(ReplicaId {
                    node: *node,
                    incarnation,
                })
            };
            known.is_some_and(|known| known != boot)
                && replica(before) == replica(after)
                && replica(after).is_some_and(|replica| {
                    old.opened_set.contains(&replica) && !after.is_rebooted(volume, replica)
                })
        })
}

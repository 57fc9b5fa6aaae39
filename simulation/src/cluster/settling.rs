//! The end of a run: faults stop, everything heals, and within a bounded time the cluster must be well again. Every volume is opened
//! at one site until both replicas are in sync, and read whole; then at the other site, and read whole: both must show the same, and
//! nothing that was acknowledged may be missing (which the reads' checker says). `restoring`: what to do about blocks without a good copy.

mod restoring;

use super::node::Input;
use super::{Event, Simulation};
use crate::checkers::Kind;
use crate::content::SECTOR_BYTES;
use crate::schedule::{MILLISECOND, SECOND};
use isthmus_engine::VolumeId;
use isthmus_host::{ClientError, Outcome};
use restoring::Restoring;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const LOOK: u64 = 100 * MILLISECOND;
/// How long clients have to finish what they do.
const CLIENTS_TIME_MAX: u64 = 40 * SECOND;
/// How long each visit may take, from the end of the one before to the last byte read.
const VISIT_TIME_MAX: u64 = 60 * SECOND;
const READ_SECTORS: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visit {
    Away,
    Attaching(u64),
    /// Waits until both replicas are in sync.
    Attached,
    Reading,
    Done,
}

/// One volume's inspection.
#[derive(Debug)]
struct Inspection {
    sectors: u64,
    node: usize,
    visit: Visit,
    reads: BTreeSet<u64>,
    first_site_done: bool,
    restoring: Restoring,
}

/// How far settling is.
#[derive(Debug)]
pub(super) struct Settling {
    since: u64,
    visits_since: Option<u64>,
    inspections: BTreeMap<VolumeId, Inspection>,
    waiting: BTreeMap<u64, VolumeId>,
    second_visits: bool,
}

impl Simulation {
    /// Faults end, everything heals.
    pub(super) fn settle(&mut self) {
        let now = self.schedule.now();
        self.note("FAULT", || "faults end".into());
        self.operator.heals = true;
        self.clients.go_home = true;
        self.heal_all();
        self.at_kvdb(super::kvdb::Event::Up);
        for index in [0, 1] {
            self.at_kvdb(super::kvdb::Event::Reachable(index));
            self.set_slowness(index, 1);
            self.mend_disk(index);
            self.nodes[index].disk_mut().heal();
            self.nodes[index].dies_at = None;
            if let Some(since) = self.nodes[index].slow_since {
                self.find_fast(index, since);
            }
            if let Some(pause) = self.nodes[index].paused {
                self.resume(index, pause);
            }
            if self.nodes[index].host.is_none() {
                self.schedule
                    .after(self.random.below(SECOND), Event::Start(index));
            }
        }
        let mut inspections = BTreeMap::new();
        for (volume, record) in &self.kvdb.catalog().clone().volumes {
            let inspection = Inspection {
                sectors: record.bytes / SECTOR_BYTES,
                node: self.random.below(2) as usize,
                visit: Visit::Away,
                reads: BTreeSet::new(),
                first_site_done: false,
                restoring: Restoring::default(),
            };
            inspections.insert(*volume, inspection);
        }
        self.settling = Some(Settling {
            since: now,
            visits_since: None,
            inspections,
            waiting: BTreeMap::new(),
            second_visits: false,
        });
        self.schedule.after(LOOK, Event::Settling);
    }

    pub(super) fn look_at_settling(&mut self) {
        self.schedule.after(LOOK, Event::Settling);
        let now = self.schedule.now();
        let home = self.clients.all_are_home();
        let catalog = Arc::clone(self.kvdb.catalog());
        let Some(settling) = &mut self.settling else {
            return;
        };
        // A deletion that was asked for before may be committed now.
        let inspections = &mut settling.inspections;
        inspections.retain(|volume, _| catalog.volumes.contains_key(volume));
        let Some(visits_since) = settling.visits_since else {
            if home {
                settling.visits_since = Some(now);
                self.checkers.all_is_well();
            } else if now - settling.since > CLIENTS_TIME_MAX {
                self.not_well("clients still wait for answers");
            }
            return;
        };
        if settling
            .inspections
            .values()
            .all(|inspection| inspection.visit == Visit::Done)
        {
            if settling.second_visits {
                self.finished = true;
                return;
            }
            settling.second_visits = true;
            settling.visits_since = Some(now);
            for inspection in settling.inspections.values_mut() {
                inspection.visit = Visit::Away;
                inspection.node = 1 - inspection.node;
                inspection.first_site_done = true;
            }
        } else if now - visits_since > VISIT_TIME_MAX {
            self.not_well("a volume is not well");
            return;
        }
        let volumes: Vec<VolumeId> = self
            .settling
            .as_ref()
            .map(|settling| settling.inspections.keys().copied().collect())
            .unwrap_or_default();
        for volume in volumes {
            self.inspect(volume);
        }
    }

    fn inspect(&mut self, volume: VolumeId) {
        let number = self.clients.number();
        let both = self
            .kvdb
            .catalog()
            .volumes
            .get(&volume)
            .is_some_and(|record| record.opened && record.in_sync.len() == record.replicas.len());
        let Some(settling) = &mut self.settling else {
            return;
        };
        let Some(inspection) = settling.inspections.get_mut(&volume) else {
            return;
        };
        let (node, sectors) = (inspection.node, inspection.sectors);
        match inspection.visit {
            Visit::Away if self.nodes[node].host.is_some() => {
                inspection.visit = Visit::Attaching(number);
                settling.waiting.insert(number, volume);
                self.send_to(node, 0, Input::Attach { volume, number });
            }
            Visit::Attached if both => {
                inspection.visit = Visit::Reading;
                let mut first = 0;
                while first < sectors {
                    let number = self.clients.number();
                    if let Some(settling) = &mut self.settling {
                        settling.waiting.insert(number, volume);
                        if let Some(inspection) = settling.inspections.get_mut(&volume) {
                            inspection.reads.insert(number);
                        }
                    }
                    let count = READ_SECTORS.min(sectors - first);
                    let life = self.nodes[node].life;
                    self.submit(node, life, volume, (number, Kind::Read, first, count));
                    first += count;
                }
            }
            Visit::Attached => self.restore(volume),
            _ => {}
        }
    }

    fn inspection(&mut self, volume: VolumeId) -> Option<&mut Inspection> {
        self.settling.as_mut()?.inspections.get_mut(&volume)
    }

    pub(super) fn settling_hears(&mut self, node: usize, number: u64, outcome: Outcome) {
        let Some(settling) = &mut self.settling else {
            return;
        };
        let Some(volume) = settling.waiting.remove(&number) else {
            return;
        };
        if self.restoring_hears(node, volume, number, &outcome) {
            return;
        }
        let Some(settling) = &mut self.settling else {
            return;
        };
        let Some(inspection) = settling.inspections.get_mut(&volume) else {
            return;
        };
        if inspection.visit == Visit::Attaching(number) {
            inspection.visit = match &outcome {
                Outcome::Attached => Visit::Attached,
                _ => {
                    // The set may not hold this site's replica yet: whoever does brings it back.
                    if !inspection.first_site_done {
                        inspection.node = 1 - inspection.node;
                    }
                    Visit::Away
                }
            };
            self.note("inspect", || {
                format!("{volume} at n{}: {outcome:?}", node + 1)
            });
            return;
        }
        let is_rotten = self.checkers.may_be_unreadable(volume);
        if is_rotten && matches!(outcome, Outcome::Failed(ClientError::Unreadable(_))) {
            // The primary may not have heard yet that the other one is in the set, and has its good copies: all is read again.
            inspection.reads.clear();
            inspection.visit = Visit::Attached;
            self.checkers.failed(number);
            return;
        }
        inspection.reads.remove(&number);
        let all_read = inspection.reads.is_empty() && inspection.visit == Visit::Reading;
        if all_read {
            inspection.visit = Visit::Done;
        }
        if matches!(outcome, Outcome::Failed(_)) {
            self.fail(
                "liveness",
                format!(
                    "a healthy {volume} can't be read at n{}: {outcome:?}",
                    node + 1
                ),
            );
            return;
        }
        self.operation_ends(node, volume, number, outcome);
        self.checkers.inspected(node, number);
        if all_read {
            self.send_to(node, 0, Input::Detach(volume));
        }
    }

    pub(super) fn settling_demoted(&mut self, node: usize, volume: VolumeId) {
        let Some(settling) = &mut self.settling else {
            return;
        };
        let Some(inspection) = settling.inspections.get_mut(&volume) else {
            return;
        };
        if inspection.node == node && matches!(inspection.visit, Visit::Attached | Visit::Reading) {
            inspection.visit = Visit::Away;
            inspection.reads.clear();
            self.send_to(node, 0, Input::Detach(volume));
        }
    }

    pub(super) fn settling_lost(&mut self, _node: usize) {
        assert!(self.settling.is_none(), "nothing dies while all heals");
    }

    fn not_well(&mut self, what: &str) {
        let now = self.schedule.now();
        let mut text = format!(
            "{what} though all faults ended {} s ago",
            (now - self.scenario.faults_end()) / SECOND
        );
        for node in &self.nodes {
            text.push_str(&format!(
                "\n  {} (session {:?}, registered {}):",
                node.id, node.session, node.registered
            ));
            for status in node
                .host
                .iter()
                .flat_map(|host| host.status(node.clock.at(now)))
            {
                text.push_str(&format!("\n    {status:?}"));
            }
        }
        for (volume, record) in &self.kvdb.catalog().volumes {
            text.push_str(&format!("\n  kvdb {volume}: {record:?}"));
        }
        for (domain, record) in &self.kvdb.catalog().domains {
            text.push_str(&format!("\n  kvdb {domain}: {record:?}"));
        }
        self.fail("liveness", text);
    }
}

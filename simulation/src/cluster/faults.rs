//! Faults: what the scenario lets come, when, where and for how long.

use super::kvdb::Event as KvdbEvent;
use super::link::Cut;
use super::{Event, Simulation};
use crate::scenario::Fault;
use crate::schedule::{MILLISECOND, SECOND};

impl Simulation {
    pub(super) fn next_fault(&mut self) {
        if self.settling.is_some() {
            return;
        }
        let every = self.scenario.fault_every;
        // Troubles come in company: half of the faults follow the one before closely.
        let pause = if self.random.chance(1, 2) {
            every / 20 + 1
        } else {
            4 * every
        };
        self.schedule
            .after(self.random.below(pause) + 1, Event::Fault);
        let total: u64 = self.scenario.faults.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.below(total);
        for (fault, weight) in self.scenario.faults.clone() {
            if at < weight {
                self.summary.faults += 1;
                self.strike(fault);
                return;
            }
            at -= weight;
        }
    }

    fn strike(&mut self, fault: Fault) {
        let node = self.random.below(2) as usize;
        let id = self.nodes[node].id;
        let long = self.random.chance(1, 3);
        let duration = self.random.below(if long { 12 * SECOND } else { SECOND }) + MILLISECOND;
        self.note(|| format!("FAULT {fault:?} at {id} for {} ms", duration / MILLISECOND));
        match fault {
            Fault::Kill => self.die(node, false, duration),
            Fault::Crash => self.die(node, true, duration),
            Fault::CrashBoth => {
                let other = self.random.below(12 * SECOND);
                self.die(node, true, duration);
                self.die(1 - node, true, other);
            }
            Fault::Pause => {
                if self.nodes[node].answers() {
                    let pause = self.pause(node);
                    self.schedule.after(duration, Event::Resume { node, pause });
                }
            }
            Fault::Cut => self.cut(Cut([true, true]), duration),
            Fault::CutOneWay => self.cut(Cut([node == 0, node == 1]), duration),
            Fault::Flap => self.doom(),
            Fault::Isolate => {
                self.cut(Cut([true, true]), duration);
                self.lose_kvdb(node, duration);
            }
            Fault::KvdbUnreachable => self.lose_kvdb(node, duration),
            Fault::KvdbDown => {
                self.kvdb.is_down = true;
                self.schedule.after(duration, Event::Kvdb(KvdbEvent::Up));
            }
            Fault::SlowDisk => {
                let factor = 2 + self.random.below(60);
                self.set_slowness(node, factor);
                self.schedule.after(duration, Event::DiskFast(node));
            }
            Fault::ReplaceDisk => self.lose_disk(node, duration),
        }
    }

    fn die(&mut self, node: usize, power_lost: bool, duration: u64) {
        if self.nodes[node].host.is_none() {
            return;
        }
        self.stop(node, power_lost);
        self.schedule.after(duration, Event::Start(node));
    }

    fn lose_kvdb(&mut self, node: usize, duration: u64) {
        self.nodes[node].reaches_kvdb = false;
        self.schedule
            .after(duration, Event::Kvdb(KvdbEvent::Reachable(node)));
    }

    pub(super) fn set_slowness(&mut self, node: usize, factor: u64) {
        self.nodes[node].disk_mut().set_slowness(factor);
        self.slow_members_disk(node, factor);
    }

    /// A disk is lost for good: only where every volume has another replica in its set, or nothing could be promised. Its
    /// other end is left alone until kvdb has heard of the new disk: two disks lost at once are data lost.
    fn lose_disk(&mut self, node: usize, duration: u64) {
        let other = self.nodes[1 - node].id;
        let catalog = self.kvdb.catalog();
        let safe = self.all_disks_are_known()
            && catalog.volumes.values().all(|volume| {
                volume
                    .opened_set
                    .iter()
                    .any(|replica| replica.node == other)
                    && volume.in_sync.iter().any(|replica| replica.node == other)
            });
        if !safe || self.nodes[node].host.is_none() {
            return;
        }
        self.die(node, true, duration);
        self.forget_requests_of(node);
        self.replace_disk(node);
    }
}

//! Faults: what the scenario planned strikes at its time, where it still makes sense.

use super::kvdb::Event as KvdbEvent;
use super::link::Cut;
use super::node::Input;
use super::{Event, Simulation};
use crate::scenario::{Fault, Micros};
use crate::schedule::MICROSECOND;
use isthmus_engine::{BLOCK_BYTES, VolumeId};

/// Data nodes; a fault may name the witness, too.
const DATA_NODES: usize = 2;

impl Simulation {
    pub(super) fn plan_faults(&mut self) {
        for (index, planned) in self.scenario.faults.iter().enumerate() {
            self.schedule
                .at(planned.at_us * MICROSECOND, Event::Fault(index));
        }
    }

    pub(super) fn fault(&mut self, index: usize) {
        if self.settling.is_some() {
            return;
        }
        let Some(planned) = self.scenario.faults.get(index) else {
            return;
        };
        let fault = planned.fault;
        self.summary.faults += 1;
        self.note("FAULT", || describe(fault));
        self.strike(fault);
    }

    fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { node, for_us } => self.die(node, false, for_us),
            Fault::PowerLoss { node, for_us } => self.die(node, true, for_us),
            Fault::PowerLossAtBoth { for_us } => {
                for (node, for_us) in for_us.into_iter().enumerate() {
                    self.die(node, true, for_us);
                }
            }
            Fault::Pause { node, for_us } => {
                if node >= DATA_NODES {
                    self.pause_witness(for_us * MICROSECOND);
                } else if self.nodes[node].answers() {
                    let pause = self.pause(node);
                    self.after(for_us, Event::Resume { node, pause });
                }
            }
            Fault::Cut { for_us } => self.cut(Cut([true, true]), for_us * MICROSECOND),
            Fault::CutOneWay { from, for_us } => {
                self.cut(Cut([from == 0, from == 1]), for_us * MICROSECOND);
            }
            Fault::Flap => self.doom(),
            Fault::SlowLink { by_us, for_us } => {
                self.link.slower_by = by_us * MICROSECOND;
                self.after(for_us, Event::LinkFast);
            }
            Fault::Isolate { node, for_us } => {
                self.cut(Cut([true, true]), for_us * MICROSECOND);
                self.lose_kvdb(node, for_us);
            }
            Fault::KvdbUnreachable { node, for_us } => self.lose_kvdb(node, for_us),
            Fault::CutWitness { node, both, for_us } => {
                self.cut_witness(node, both, for_us * MICROSECOND);
            }
            Fault::KvdbLoss { per_mille, for_us } => {
                self.lose_messages(per_mille, for_us * MICROSECOND);
            }
            Fault::KvdbDown { for_us } => {
                self.kvdb.is_down = true;
                self.after(for_us, Event::Kvdb(KvdbEvent::Up));
            }
            Fault::PowerLossInCheckpoint {
                node,
                changes,
                commit,
                for_us,
            } => {
                if node < DATA_NODES {
                    let all = ["/headers", "/map", "/superblock"];
                    let watched = if commit { &all[2..] } else { &all };
                    self.nodes[node].disk_mut().watch(watched);
                    self.nodes[node].dies_at = Some((changes, for_us));
                }
            }
            Fault::FlipBits { node, count } => self.flip_bits(node, count),
            Fault::StrayWrites {
                node,
                count,
                blocks,
            } => self.let_writes_stray(node, count, blocks),
            Fault::FullDisk { node, for_us } => {
                if node < DATA_NODES {
                    let disk = self.nodes[node].disk_mut();
                    let bytes = disk.allocated_bytes();
                    disk.set_capacity_bytes(Some(bytes));
                    self.nodes[node].disk_is_bad = true;
                    self.after(for_us, Event::DiskMended(node));
                }
            }
            Fault::ReadOnlyDisk { node, for_us } => {
                if node < DATA_NODES {
                    self.nodes[node].disk_mut().set_read_only(true);
                    self.nodes[node].disk_is_bad = true;
                    self.after(for_us, Event::DiskMended(node));
                }
            }
            Fault::SlowDisk {
                node,
                times,
                for_us,
            } => {
                self.set_slowness(node, times.max(1));
                self.after(for_us, Event::DiskFast(node));
            }
            Fault::SlowPeer { node, for_us } => {
                if node < DATA_NODES {
                    let since = self.schedule.now();
                    self.nodes[node].slow_since = Some(since);
                    self.after(for_us, Event::PeerFast { node, since });
                    self.send_to(node, 0, Input::SlowPeer(true));
                }
            }
            Fault::ReplaceDisk { node, for_us } => self.lose_disk(node, for_us),
        }
    }

    fn after(&mut self, for_us: Micros, event: Event) {
        self.schedule.after(for_us * MICROSECOND, event);
    }

    pub(super) fn die(&mut self, node: usize, power_lost: bool, for_us: Micros) {
        if node >= DATA_NODES {
            self.kill_witness(power_lost, for_us * MICROSECOND);
            return;
        }
        if self.nodes[node].host.is_none() {
            return;
        }
        // A disk lost and power lost at the other end: for what only kernels had, that is both sites at once, and the operator's word
        // is asked for.
        let power_lost = power_lost && (self.disks_are_registered() || !self.has_flush_volumes());
        self.stop(node, power_lost);
        self.after(for_us, Event::Start(node));
    }

    /// The other node's link is fast enough for its replicas, from a node's point of view, unless it was found too slow after `since`.
    pub(super) fn find_fast(&mut self, node: usize, since: u64) {
        if self.nodes[node].slow_since == Some(since) {
            self.nodes[node].slow_since = None;
            self.send_to(node, 0, Input::SlowPeer(false));
        }
    }

    fn lose_kvdb(&mut self, node: usize, for_us: Micros) {
        if node < DATA_NODES {
            self.nodes[node].reaches_kvdb = false;
            self.after(for_us, Event::Kvdb(KvdbEvent::Reachable(node)));
        }
    }

    pub(super) fn set_slowness(&mut self, node: usize, factor: u64) {
        if node < DATA_NODES {
            self.nodes[node].disk_mut().set_slowness(factor);
        }
        self.slow_members_disk(node, factor);
    }

    fn flip_bits(&mut self, node: usize, count: u64) {
        for (volume, path) in self.some_extents(node, count) {
            self.nodes[node].disk_mut().flip_random_bit(&path);
            self.checkers.rotten(volume);
        }
    }

    fn let_writes_stray(&mut self, node: usize, count: u64, blocks: u64) {
        for (volume, path) in self.some_extents(node, count) {
            let disk = self.nodes[node].disk_mut();
            match blocks {
                0 => disk.lose_next_write(&path),
                _ => disk.misdirect_next_write(&path, blocks * BLOCK_BYTES),
            }
            self.checkers.rotten(volume);
        }
    }

    /// Files with extents or their headers at a node, one after the other from any on.
    fn some_extents(&mut self, node: usize, count: u64) -> Vec<(VolumeId, String)> {
        if node >= DATA_NODES {
            return Vec::new();
        }
        let volume_of = |path: &str| {
            let rest = path.strip_prefix("volumes/")?;
            let number = rest
                .strip_suffix("/data")
                .or_else(|| rest.strip_suffix("/headers"))?;
            Some((VolumeId(number.parse().ok()?), path.to_owned()))
        };
        let disk = self.nodes[node].disk_mut();
        let paths: Vec<_> = disk.paths().filter_map(volume_of).collect();
        if paths.is_empty() {
            return paths;
        }
        let first = self.random.below(paths.len() as u64) as usize;
        let from_there = paths.iter().cycle().skip(first).take(count as usize);
        from_there.cloned().collect()
    }

    /// The disk is well again. A process that found it failing goes on only after a restart.
    pub(super) fn mend_disk(&mut self, node: usize) {
        if !std::mem::take(&mut self.nodes[node].disk_is_bad) {
            return;
        }
        let disk = self.nodes[node].disk_mut();
        disk.set_capacity_bytes(None);
        disk.set_read_only(false);
        if self.settling.is_none() {
            self.die(node, false, 50_000);
        }
    }

    fn has_flush_volumes(&self) -> bool {
        self.scenario.volumes.iter().any(|volume| volume.flush)
    }

    /// Whether this node runs, and kvdb knows that it lacks nothing that it held.
    fn has_kept_memory(&self, node: usize) -> bool {
        let id = self.nodes[node].id;
        let rebooted = self.kvdb.catalog().rebooted.values().flatten();
        self.nodes[node].host.is_some()
            && self.nodes[node].registered
            && rebooted.into_iter().all(|replica| replica.node != id)
    }

    /// A disk is lost for good: only where every volume has another replica in its set, or nothing could be promised. Its
    /// other end is left alone until kvdb has heard of the new disk: two disks lost at once are data lost.
    fn lose_disk(&mut self, node: usize, for_us: Micros) {
        if node >= DATA_NODES {
            return;
        }
        let other = self.nodes[1 - node].id;
        let catalog = self.kvdb.catalog();
        let safe = self.all_disks_are_known()
            && catalog.volumes.values().all(|volume| {
                volume
                    .opened_set
                    .iter()
                    .any(|replica| replica.node == other)
                    && volume.in_sync.iter().any(|replica| replica.node == other)
            })
            && (!self.has_flush_volumes() || self.has_kept_memory(1 - node));
        if !safe || self.nodes[node].host.is_none() {
            return;
        }
        self.die(node, true, for_us);
        self.forget_requests_of(node);
        self.replace_disk(node);
    }
}

fn describe(fault: Fault) -> String {
    serde_json::to_string(&fault).unwrap_or_else(|_| format!("{fault:?}"))
}

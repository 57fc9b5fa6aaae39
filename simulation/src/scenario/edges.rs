//! What strikes in a narrow window, and would be met by chance in thousands of seeds only: the end of a grant with clocks that run as far
//! apart as they may, the moment in which a restarted node hears its peer before kvdb, the steps of a checkpoint, a disk that now and
//! then takes long or does not keep what it was given. Each is drawn for some seeds, with numbers of its own.

use super::{
    ClientPlan, Fault, Micros, PlannedFault, PlannedOperation, PlannedWish, Scenario, Visit, Wish,
};
use crate::checkers::Kind;
use crate::clock::DRIFT_MILLIONTHS_MAX;
use isthmus_simulated_disk::Random;

const MS: Micros = 1_000;
const SECOND: Micros = 1_000_000;

/// Adds what the seed has of these.
pub fn sharpen(scenario: &mut Scenario, random: &mut Random) {
    if random.chance(1, 3) {
        scenario.world.disk_slow_per_mille = 1 + random.below(20);
    }
    if random.chance(1, 8) {
        volumes_come_and_go(scenario, random);
    }
    if random.chance(1, 6) {
        volumes_grow(scenario, random);
    }
    if random.chance(1, 6) {
        volumes_move(scenario, random);
    }
    match random.below(16) {
        0 | 1 => grants_run_out(scenario, random),
        2 | 3 => peer_is_heard_first(scenario, random),
        4 | 5 => checkpoints_are_cut(scenario, random),
        6 | 7 => disk_rots(scenario, random),
        8..=10 => resync_takes_long(scenario, random),
        _ => {}
    }
    scenario.faults.sort_by_key(|planned| planned.at_us);
    scenario.wishes.sort_by_key(|planned| planned.at_us);
}

impl Scenario {
    fn fault(&mut self, at_us: Micros, fault: Fault) {
        self.faults.push(PlannedFault { at_us, fault });
    }

    fn wish(&mut self, at_us: Micros, wish: Wish) {
        self.wishes.push(PlannedWish { at_us, wish });
    }

    /// Clients come to this node, if it lets them.
    fn settle_at(&mut self, node: usize) {
        let visits = self.clients.iter_mut().flat_map(|one| &mut one.visits);
        visits.for_each(|visit| visit.node = node);
    }

    /// A client that is at a node from one time to another, and reads a little every few milliseconds.
    fn watcher(&mut self, random: &mut Random, node: usize, from: Micros, until: Micros) {
        let volume = random.below(self.volumes.len() as u64) as usize;
        let every = (1 + random.below(4)) * MS;
        let sectors = self.volumes[volume].blocks * 8;
        let read = |random: &mut Random| PlannedOperation {
            after_us: every,
            kind: Kind::Read,
            first: random.below(sectors),
            count: 1,
        };
        let visit = Visit {
            after_us: from,
            node,
            depth: 2,
            rude: false,
            operations: (0..(until - from) / every).map(|_| read(random)).collect(),
        };
        self.clients.push(ClientPlan {
            volume,
            visits: vec![visit],
        });
    }
}

/// Primaries are cut off, and their site deactivated at once, while somebody reads there to the last moment and somebody else waits at
/// the other site. The giver's clock is as fast as may be, the holder's as slow.
fn grants_run_out(scenario: &mut Scenario, random: &mut Random) {
    let node = random.below(2) as usize;
    let drift = DRIFT_MILLIONTHS_MAX.cast_signed();
    scenario.world.drift_millionths = [drift; 3];
    scenario.world.drift_millionths[node] = -drift;
    scenario.world.lease_ms = [3_000, 10_000][random.below(2) as usize];
    scenario.world.link_delay_us = scenario.world.link_delay_us.min(2_000);
    scenario.world.link_jitter_us = scenario.world.link_jitter_us.min(1_000);
    let lease = scenario.world.lease_ms * MS;
    // Little else: what else befalls the two would end the grants in other ways.
    scenario.faults.clear();
    scenario.wishes.clear();
    scenario.settle_at(node);
    let domain = node as u32 + 1;
    let mut at = 2 * SECOND + random.below(3 * SECOND);
    while at < scenario.world.faults_end_us {
        let for_us = lease + lease / 2;
        scenario.fault(at, Fault::Isolate { node, for_us });
        scenario.wish(at + random.below(lease / 4), Wish::Deactivate { domain });
        scenario.wish(at + for_us + SECOND, Wish::Activate { domain });
        let end = at + lease;
        scenario.watcher(random, node, at - SECOND, end + lease / 8);
        scenario.watcher(random, 1 - node, end - lease / 2, end + SECOND);
        at += for_us + 6 * SECOND + random.below(4 * SECOND);
    }
}

/// A giver of grants restarts when it has just heard that its primary's site was deactivated, and meets the primary again, which has
/// not heard of it, before kvdb.
fn peer_is_heard_first(scenario: &mut Scenario, random: &mut Random) {
    let node = random.below(2) as usize;
    let giver = 1 - node;
    // Long enough for the proof to come while a promise is out that was given too late.
    scenario.world.lease_ms = 3_000;
    if random.chance(1, 2) {
        scenario.faults.clear();
        scenario.wishes.clear();
    }
    scenario.settle_at(node);
    let domain = node as u32 + 1;
    let mut at = 2 * SECOND + random.below(3 * SECOND);
    while at < scenario.world.faults_end_us {
        let for_us = 4 * SECOND + random.below(6 * SECOND);
        scenario.fault(at, Fault::KvdbUnreachable { node, for_us });
        let asked = at + random.below(200 * MS);
        scenario.wish(asked, Wish::Deactivate { domain });
        let gone = asked + 100 * MS + random.below(400 * MS);
        let down = random.below(100 * MS) + MS;
        let kill = Fault::Kill {
            node: giver,
            for_us: down,
        };
        scenario.fault(gone, kill);
        let alone = Fault::KvdbUnreachable {
            node: giver,
            for_us: down + SECOND / 2 + random.below(3 * SECOND / 2),
        };
        scenario.fault(gone, alone);
        scenario.wish(at + for_us + SECOND, Wish::Activate { domain });
        at += for_us + 6 * SECOND + random.below(4 * SECOND);
    }
}

/// Power is lost between a checkpoint's steps, again and again.
fn checkpoints_are_cut(scenario: &mut Scenario, random: &mut Random) {
    scenario.world.disk_slow_per_mille = 20 + random.below(200);
    let mut at = random.below(3 * SECOND) + SECOND;
    while at < scenario.world.faults_end_us {
        let commit = random.chance(1, 2);
        let fault = Fault::PowerLossInCheckpoint {
            node: random.below(2) as usize,
            changes: 1 + random.below(if commit { 3 } else { 30 }),
            commit,
            for_us: random.below(SECOND) + MS,
        };
        scenario.fault(at, fault);
        at += random.below(4 * SECOND) + SECOND / 2;
    }
}

/// One node's disk does not keep what it was given; the other one's does.
fn disk_rots(scenario: &mut Scenario, random: &mut Random) {
    forgive_rot(scenario);
    let node = random.below(2) as usize;
    let every = (1 + random.below(5)) * SECOND;
    let mut at = random.below(every) + SECOND;
    while at < scenario.world.faults_end_us {
        let count = 1 + random.below(8);
        let fault = match random.below(4) {
            0 => Fault::StrayWrites {
                node,
                count,
                blocks: 0,
            },
            1 => Fault::StrayWrites {
                node,
                count,
                blocks: 1 + random.below(64),
            },
            _ => Fault::FlipBits { node, count },
        };
        scenario.fault(at, fault);
        at += random.below(2 * every) + 1;
    }
}

/// A replica comes back to a copying that does not end, because what it has to copy is rotten at the source: it is begun anew, and the
/// target dies in between. (The volumes here are small: without that, all is copied in a moment.)
fn resync_takes_long(scenario: &mut Scenario, random: &mut Random) {
    forgive_rot(scenario);
    let node = random.below(2) as usize;
    let source = 1 - node;
    // Nothing else: it must come to a second join, and to a crash before what was copied is in a checkpoint.
    scenario.faults.clear();
    scenario.wishes.clear();
    scenario.world.faults_end_us = scenario.world.faults_end_us.max(30 * SECOND);
    scenario.settle_at(source);
    let domain = node as u32 + 1;
    let mut at = SECOND + random.below(3 * SECOND);
    while at < scenario.world.faults_end_us {
        let for_us = 2 * SECOND + random.below(2 * SECOND);
        scenario.fault(at, Fault::Isolate { node, for_us });
        scenario.wish(at + random.below(SECOND), Wish::Deactivate { domain });
        at += for_us;
        scenario.wish(at, Wish::Activate { domain });
        let count = 10 + random.below(60);
        let rot = Fault::FlipBits {
            node: source,
            count,
        };
        scenario.fault(at, rot);
        for _ in 0..1 + random.below(2) {
            at += 2 * SECOND + random.below(3 * SECOND);
            scenario.fault(at, Fault::Flap);
            at += SECOND + random.below(3 * SECOND);
            let for_us = random.below(300 * MS) + MS;
            let death = if random.chance(1, 2) {
                Fault::Kill { node, for_us }
            } else {
                Fault::PowerLoss { node, for_us }
            };
            scenario.fault(at, death);
        }
        at += SECOND + random.below(4 * SECOND);
    }
}

/// The operator deletes volumes, insisting because they are in use mostly, and makes others, which may get their places.
fn volumes_come_and_go(scenario: &mut Scenario, random: &mut Random) {
    let every = (1 + random.below(6)) * SECOND;
    let mut at = random.below(scenario.world.faults_end_us / 2) + SECOND;
    while at < scenario.world.faults_end_us {
        let volume = random.below(scenario.volumes.len() as u64) as usize;
        let wish = if random.chance(3, 4) {
            Wish::DeleteVolume { volume }
        } else {
            let blocks = 1 + random.below(512);
            Wish::CreateVolume { blocks }
        };
        scenario.wish(at, wish);
        at += random.below(2 * every) + 1;
    }
}

/// Volumes begin small, and grow step by step while they are used; clients ask for the whole of them from the beginning.
fn volumes_grow(scenario: &mut Scenario, random: &mut Random) {
    for volume in 0..scenario.volumes.len() {
        let blocks = scenario.volumes[volume].blocks;
        let mut size = 1 + random.below(blocks);
        scenario.volumes[volume].made_with_blocks = Some(size);
        let mut at = random.below(scenario.world.faults_end_us / 2);
        while size < blocks {
            // Also by a block, and to where an extent, or a granule of a map, ends.
            let step = [1, 16, 256, blocks][random.below(4) as usize];
            size = (size + 1 + random.below(step)).min(blocks);
            let wish = Wish::ExpandVolume {
                volume,
                blocks: size,
            };
            scenario.wish(at, wish);
            at += random.below(4 * SECOND) + 1;
        }
    }
}

/// Primaries are moved to and fro by plan, also in the middle of everything else.
fn volumes_move(scenario: &mut Scenario, random: &mut Random) {
    let every = (1 + random.below(5)) * SECOND;
    let mut at = random.below(every) + SECOND;
    while at < scenario.world.faults_end_us {
        let volume = random.below(scenario.volumes.len() as u64) as usize;
        let node = random.below(2) as usize;
        scenario.wish(at, Wish::RelocateVolume { volume, node });
        at += random.below(2 * every) + 1;
    }
}

/// No disk is replaced and no loss accepted: what rots at one place while the other is thrown away is lost.
fn forgive_rot(scenario: &mut Scenario) {
    let is_replaced = |planned: &PlannedFault| matches!(planned.fault, Fault::ReplaceDisk { .. });
    scenario.faults.retain(|planned| !is_replaced(planned));
    let accepts =
        |planned: &PlannedWish| matches!(planned.wish, Wish::DeactivateAcceptingLoss { .. });
    scenario.wishes.retain(|planned| !accepts(planned));
}

//! The scenario of a seed. Each seed leaves some kinds of fault out and lets others come often ("swarm testing": Groce and others,
//! 2012): what always happens hides what happens only in its absence.

use super::troubles::Troubles;
use super::{
    ClientPlan, Fault, KvdbKind, Micros, PlannedFault, PlannedOperation, PlannedWish, Scenario,
    Visit, VolumePlan, Wish, World, edges,
};
use crate::checkers::Kind;
use crate::clock::DRIFT_MILLIONTHS_MAX;
use isthmus_simulated_disk::Random;

const MS: Micros = 1_000;
const SECOND: Micros = 1_000_000;

/// Makes a fault hit a node for a while.
type Make = fn(&mut Random, usize, Micros) -> Fault;

/// All kinds of fault, with how much more often than others they come when they come at all.
const FAULTS: [(Make, u64); 13] = [
    (|_, node, for_us| Fault::Kill { node, for_us }, 4),
    (|_, node, for_us| Fault::PowerLoss { node, for_us }, 6),
    (
        |random, _, for_us| Fault::PowerLossAtBoth {
            for_us: [for_us, random.below(12 * SECOND)],
        },
        3,
    ),
    (|_, node, for_us| Fault::Pause { node, for_us }, 4),
    (|_, _, for_us| Fault::Cut { for_us }, 5),
    (|_, from, for_us| Fault::CutOneWay { from, for_us }, 3),
    (|_, _, _| Fault::Flap, 5),
    (
        |random, _, for_us| Fault::SlowLink {
            by_us: random.below(100 * MS),
            for_us,
        },
        2,
    ),
    (|_, node, for_us| Fault::Isolate { node, for_us }, 4),
    (|_, node, for_us| Fault::KvdbUnreachable { node, for_us }, 3),
    (|_, _, for_us| Fault::KvdbDown { for_us }, 2),
    (
        |random, node, for_us| Fault::SlowDisk {
            node,
            times: 2 + random.below(60),
            for_us,
        },
        3,
    ),
    (|_, node, for_us| Fault::ReplaceDisk { node, for_us }, 1),
];

/// What kind of scenarios are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Everything, in proportions of the seed.
    Swarm,
    /// For measuring the simulator's speed: 60 s with three volumes, 200 operations a second of 4 KiB on average, and a fault every
    /// few seconds.
    Speed,
}

/// How busy clients are.
struct Load {
    operations_max: u64,
    sectors_max: u64,
    reads_percent: u64,
}

fn pick(random: &mut Random, from: &[u64]) -> u64 {
    from[random.below(from.len() as u64) as usize]
}

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn drawn(seed: u64, style: Style) -> Scenario {
        let mut random = Random::new(seed);
        let mut world = draw_world(&mut random);
        if style == Style::Speed {
            world.faults_end_us = 60 * SECOND;
            world.link_delay_us = 500;
            world.drift_millionths = [-400, 100, 900];
        }
        let count = match style {
            Style::Swarm => pick(&mut random, &[1, 1, 2, 3]),
            Style::Speed => 3,
        };
        let mut volumes: Vec<VolumePlan> = (0..count).map(|_| draw_volume(&mut random)).collect();
        // Numbers of their own, so that all the rest of a seed is as it was.
        let mut random_of_flush = Random::new(seed ^ 0x66_6c75_7368);
        if style == Style::Swarm && random_of_flush.chance(1, 2) {
            for volume in &mut volumes {
                volume.flush = random_of_flush.chance(2, 3);
            }
        }
        let mut faults = draw_faults(&mut random, world.faults_end_us, style);
        let mut wishes = draw_wishes(&mut random, world.faults_end_us, style);
        if style == Style::Swarm {
            let troubles = Troubles::drawn(&mut random, world.faults_end_us);
            faults.extend(troubles.faults);
            wishes.extend(troubles.wishes);
            add_disk_faults(&mut random, world.faults_end_us, &mut faults, &mut wishes);
            faults.sort_by_key(|planned| planned.at_us);
            wishes.sort_by_key(|planned| planned.at_us);
        }
        // Numbers of their own, so that all the rest of a seed is the same with either kind of kvdb.
        let mut random_of_kvdb = Random::new(seed ^ 0x6b_7664);
        if style == Style::Speed || random_of_kvdb.chance(3, 4) {
            world.kvdb = KvdbKind::Replicated;
            faults.extend(draw_kvdb_faults(&mut random_of_kvdb, world.faults_end_us));
            faults.sort_by_key(|planned| planned.at_us);
        }
        // Numbers of their own, so that all other faults of a seed are as they were.
        let mut random_of_pace = Random::new(seed ^ 0x7061_6365);
        if style == Style::Swarm && random_of_pace.chance(1, 3) {
            faults.extend(draw_slow_peers(&mut random_of_pace, world.faults_end_us));
            faults.sort_by_key(|planned| planned.at_us);
        }
        let load = match style {
            Style::Swarm => Load {
                operations_max: pick(&mut random, &[400, 1_000, 2_500]),
                sectors_max: pick(&mut random, &[8, 32, 128, 400]),
                reads_percent: pick(&mut random, &[10, 30, 60]),
            },
            Style::Speed => Load {
                operations_max: 28_000,
                sectors_max: 16,
                reads_percent: 50,
            },
        };
        let clients = draw_clients(&mut random, &volumes, world.faults_end_us, &load);
        let mut scenario = Scenario {
            seed,
            world,
            volumes,
            faults,
            wishes,
            clients,
        };
        if style == Style::Swarm {
            edges::sharpen(&mut scenario, &mut Random::new(seed ^ 0x6564_6765));
        }
        scenario
    }
}

fn draw_world(random: &mut Random) -> World {
    let (lease_ms, replica_timeout_ms) = match random.below(3) {
        0 => (3_000, 2_000),
        1 => (1_500, 1_000),
        _ => (800, 600),
    };
    let link_delay_us = pick(random, &[50, 500, 2_000, 10_000]);
    // Some clocks run far outside of what promise 3 allows: all other promises hold without any clock.
    let bound = if random.chance(1, 12) {
        300_000
    } else {
        DRIFT_MILLIONTHS_MAX
    };
    let mut drift = || match random.below(3) {
        0 => bound.cast_signed(),
        1 => -bound.cast_signed(),
        _ => random.below(2 * bound + 1).cast_signed() - bound.cast_signed(),
    };
    World {
        lease_ms,
        replica_timeout_ms,
        drift_millionths: [drift(), drift(), drift()],
        segment_kib: pick(random, &[512, 512, 768, 1024]),
        segments: pick(random, &[12, 16]) as u32,
        link_delay_us,
        link_jitter_us: link_delay_us / 2 + pick(random, &[10, 200, 5_000]),
        session_timeout_ms: pick(random, &[300, 800, 2_000]),
        disk_slow_per_mille: 0,
        faults_end_us: (10 + random.below(40)) * SECOND,
        kvdb: KvdbKind::StandIn,
    }
}

fn draw_volume(random: &mut Random) -> VolumePlan {
    VolumePlan {
        blocks: pick(random, &[64, 128, 300, 512]),
        made_with_blocks: None,
        degrade: random.chance(3, 4),
        preferred: match random.below(4) {
            0 => Some(1),
            1 => Some(2),
            _ => None,
        },
        flush: false,
    }
}

fn draw_faults(random: &mut Random, end: Micros, style: Style) -> Vec<PlannedFault> {
    let mut kinds: Vec<(Make, u64)> = Vec::new();
    for (make, weight) in FAULTS {
        if random.chance(2, 3) {
            kinds.push((make, weight * pick(random, &[1, 1, 1, 4])));
        }
    }
    let total: u64 = kinds.iter().map(|(_, weight)| weight).sum();
    let every = match style {
        Style::Swarm => pick(random, &[300, 1_000, 3_000]) * MS,
        Style::Speed => 3 * SECOND,
    };
    let mut faults = Vec::new();
    let mut at_us = random.below(2 * every) + 1;
    while at_us < end && total > 0 {
        let mut chosen = random.below(total);
        let make = kinds.iter().find(|(_, weight)| {
            let is_it = chosen < *weight;
            chosen = chosen.wrapping_sub(*weight);
            is_it
        });
        let node = random.below(2) as usize;
        let long = random.chance(1, 3);
        let for_us = random.below(if long { 12 * SECOND } else { SECOND }) + MS;
        if let Some((make, _)) = make {
            let fault = make(random, node, for_us);
            faults.push(PlannedFault { at_us, fault });
        }
        // Troubles come in company: half of the faults follow the one before closely.
        let close = random.chance(1, 2);
        at_us += random.below(if close { every / 20 + 1 } else { 4 * every }) + 1;
    }
    faults
}

/// What befalls the witness, and kvdb's messages.
fn draw_kvdb_faults(random: &mut Random, end: Micros) -> Vec<PlannedFault> {
    let mut faults = Vec::new();
    let mut at_us = random.below(10 * SECOND);
    while at_us < end {
        let node = 2;
        let long = random.chance(1, 3);
        let for_us = random.below(if long { 12 * SECOND } else { SECOND }) + MS;
        let fault = match random.below(6) {
            0 => Fault::Kill { node, for_us },
            1 => Fault::PowerLoss { node, for_us },
            2 => Fault::Pause { node, for_us },
            3 | 4 => Fault::CutWitness {
                node: random.below(2) as usize,
                both: random.chance(1, 2),
                for_us,
            },
            _ => Fault::KvdbLoss {
                per_mille: 10 + random.below(300),
                for_us,
            },
        };
        faults.push(PlannedFault { at_us, fault });
        at_us += random.below(10 * SECOND) + MS;
    }
    faults
}

/// A node finds its link too slow and good again, often or seldom; then, some time, the other one does, too, or something happens to one of the two.
fn draw_slow_peers(random: &mut Random, end: Micros) -> Vec<PlannedFault> {
    let mut faults = Vec::new();
    let every = pick(random, &[1, 4, 12]) * SECOND;
    let mut at_us = random.below(every) + 1;
    while at_us < end {
        let node = random.below(2) as usize;
        let long = random.chance(1, 2);
        let for_us = random.below(if long { 8 * SECOND } else { SECOND }) + MS;
        let fault = Fault::SlowPeer { node, for_us };
        faults.push(PlannedFault { at_us, fault });
        let soon = at_us + random.below(SECOND);
        let company = match random.below(6) {
            0 => Some(Fault::SlowPeer {
                node: 1 - node,
                for_us,
            }),
            1 => Some(Fault::Flap),
            2 => Some(Fault::Kill {
                node: random.below(2) as usize,
                for_us: random.below(SECOND) + MS,
            }),
            3 => Some(Fault::KvdbUnreachable { node, for_us }),
            _ => None,
        };
        faults.extend(company.map(|fault| PlannedFault { at_us: soon, fault }));
        at_us += random.below(2 * every) + MS;
    }
    faults
}

/// One node's disk fills up or fails (for what rots, see `edges`). What only the other one holds must stay there: no disk is replaced, no loss accepted.
fn add_disk_faults(
    random: &mut Random,
    end: Micros,
    faults: &mut Vec<PlannedFault>,
    wishes: &mut Vec<PlannedWish>,
) {
    if !random.chance(1, 4) {
        return;
    }
    faults.retain(|planned| !matches!(planned.fault, Fault::ReplaceDisk { .. }));
    wishes.retain(|planned| !matches!(planned.wish, Wish::DeactivateAcceptingLoss { .. }));
    let node = random.below(2) as usize;
    let kinds = 1 + random.below(7);
    let every = (2 + random.below(8)) * SECOND;
    let mut at_us = random.below(every) + SECOND;
    while at_us < end {
        let for_us = random.below(5 * SECOND) + 100 * MS;
        let fault = match random.below(3) {
            1 if kinds & 2 != 0 => Some(Fault::FullDisk { node, for_us }),
            2 if kinds & 4 != 0 => Some(Fault::ReadOnlyDisk { node, for_us }),
            _ => None,
        };
        faults.extend(fault.map(|fault| PlannedFault { at_us, fault }));
        at_us += random.below(2 * every) + 1;
    }
}

fn draw_wishes(random: &mut Random, end: Micros, style: Style) -> Vec<PlannedWish> {
    let mut wishes = Vec::new();
    if style == Style::Swarm && random.chance(1, 3) {
        return wishes;
    }
    let every = match style {
        Style::Swarm => pick(random, &[1_000, 4_000, 10_000]) * MS,
        Style::Speed => 10 * SECOND,
    };
    let mut at_us = random.below(2 * every) + 1;
    while at_us < end {
        let witness_too = random.chance(1, 10);
        let domain = 1 + random.below(2 + u64::from(witness_too)) as u32;
        let wish = if random.chance(1, 2) {
            Wish::Deactivate { domain }
        } else {
            Wish::Activate { domain }
        };
        wishes.push(PlannedWish { at_us, wish });
        let soon = random.chance(1, 4);
        at_us += random.below(if soon { 100 * MS } else { 2 * every }) + 1;
    }
    wishes
}

fn draw_clients(
    random: &mut Random,
    volumes: &[VolumePlan],
    end: Micros,
    load: &Load,
) -> Vec<ClientPlan> {
    let mut clients = Vec::new();
    for (volume, plan) in volumes.iter().enumerate() {
        for _ in 0..pick(random, &[1, 2, 3, 4]) {
            clients.push((
                ClientPlan {
                    volume,
                    visits: Vec::new(),
                },
                plan.blocks * 8,
            ));
        }
    }
    let each = load.operations_max / clients.len() as u64;
    // So that there is something to do until the end.
    let pause = end / each.max(1);
    for (client, sectors) in &mut clients {
        let mut node = random.below(2) as usize;
        // Who only reads is not held up by writes that wait for a lost peer: such a client sees what is stale.
        let reads_percent = if random.chance(1, 3) {
            100
        } else {
            load.reads_percent
        };
        let (mut time, mut issued) = (0, 0);
        // Visits beyond the end don't take place; operations take at least their think time.
        while time < end && issued < each {
            if random.chance(1, 3) {
                node = 1 - node;
            }
            let after_us = random.below(SECOND / 2);
            let count = (1 + random.below(120)).min(each - issued);
            let operations: Vec<PlannedOperation> = (0..count)
                .map(|_| draw_operation(random, (*sectors, load.sectors_max), pause, reads_percent))
                .collect();
            time += after_us + operations.iter().map(|one| one.after_us).sum::<Micros>();
            issued += count;
            client.visits.push(Visit {
                after_us,
                node,
                depth: 1 + random.below(8) as usize,
                rude: random.chance(1, 10),
                operations,
            });
        }
    }
    clients.into_iter().map(|(client, _)| client).collect()
}

fn draw_operation(
    random: &mut Random,
    (sectors, sectors_max): (u64, u64),
    pause: Micros,
    reads_percent: u64,
) -> PlannedOperation {
    let kind = if random.chance(reads_percent, 100) {
        Kind::Read
    } else {
        match random.below(20) {
            0 => Kind::Zero,
            1 => Kind::Trim,
            2 => Kind::Flush,
            _ => Kind::Write,
        }
    };
    let mut count = 1 + random.below(sectors_max.min(sectors));
    let mut first = random.below(sectors);
    if random.chance(1, 2) {
        // Whole blocks.
        first -= first % 8;
        count = count.next_multiple_of(8);
    } else if random.chance(1, 2) {
        count = count.min(1 + random.below(8));
    }
    // Bursts: half of the operations follow at once.
    let after_us = if random.chance(1, 2) {
        0
    } else {
        random.below(4 * pause + 1)
    };
    PlannedOperation {
        after_us,
        kind,
        first,
        count: count.min(sectors - first),
    }
}

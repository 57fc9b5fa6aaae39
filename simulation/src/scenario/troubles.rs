//! Faults and wishes that belong together, because each alone does little: a site is lost and then deactivated, a giver of grants
//! restarts just then, a resync is interrupted again and again. The kinds follow how such systems have lost data (generation handling,
//! quorum races, forgotten resyncs, writes not mirrored during a handshake); what a seed lets come and when is drawn.

use super::{Fault, Micros, PlannedFault, PlannedWish, Wish};
use isthmus_simulated_disk::Random;

const MS: Micros = 1_000;
const SECOND: Micros = 1_000_000;

/// What was drawn.
#[derive(Debug, Default)]
pub struct Troubles {
    pub faults: Vec<PlannedFault>,
    pub wishes: Vec<PlannedWish>,
}

type Kind = fn(&mut Troubles, &mut Random, Micros, usize);

const KINDS: [Kind; 8] = [
    site_is_lost,
    records_reach_only_one,
    giver_restarts,
    news_do_not_come,
    resync_is_interrupted,
    loss_is_accepted,
    read_is_frozen,
    isolated_and_replaced,
];

impl Troubles {
    /// The troubles of a scenario that lasts until `end`.
    pub fn drawn(random: &mut Random, end: Micros) -> Troubles {
        let mut troubles = Troubles::default();
        if random.chance(1, 4) {
            return troubles;
        }
        // Some seeds see one kind again and again.
        let only = random.below(2 * KINDS.len() as u64) as usize;
        let every = (3 + random.below(12)) * SECOND;
        let mut at = random.below(every) + 1;
        while at < end {
            let any = random.below(KINDS.len() as u64) as usize;
            let kind = KINDS.get(only).unwrap_or(&KINDS[any]);
            let node = random.below(2) as usize;
            kind(&mut troubles, random, at, node);
            at += random.below(2 * every) + SECOND;
        }
        troubles
    }

    fn fault(&mut self, at_us: Micros, fault: Fault) {
        self.faults.push(PlannedFault { at_us, fault });
    }

    fn wish(&mut self, at_us: Micros, wish: Wish) {
        self.wishes.push(PlannedWish { at_us, wish });
    }

    /// A node goes down for a moment.
    fn restart(&mut self, random: &mut Random, (at, within): (Micros, Micros), node: usize) {
        let at_us = at + random.below(within + 1);
        let for_us = random.below(300 * MS) + 10 * MS;
        let fault = if random.chance(1, 2) {
            Fault::Kill { node, for_us }
        } else {
            Fault::PowerLoss { node, for_us }
        };
        self.fault(at_us, fault);
    }
}

fn domain_of(node: usize) -> u32 {
    node as u32 + 1
}

/// A site goes away in one of several ways, and the operator takes it out and, later, back.
fn site_is_lost(troubles: &mut Troubles, random: &mut Random, at: Micros, node: usize) {
    let for_us = random.below(9 * SECOND) + SECOND;
    let fault = match random.below(4) {
        0 => Fault::Kill { node, for_us },
        1 => Fault::PowerLoss { node, for_us },
        2 => Fault::Pause { node, for_us },
        _ => Fault::Isolate { node, for_us },
    };
    let domain = domain_of(node);
    troubles.fault(at, fault);
    troubles.wish(at + random.below(2 * SECOND), Wish::Deactivate { domain });
    let back = at + for_us + random.below(3 * SECOND);
    troubles.wish(back, Wish::Activate { domain });
}

/// What a primary sends is lost while its own journal takes it; then it dies and comes back.
fn records_reach_only_one(troubles: &mut Troubles, random: &mut Random, at: Micros, node: usize) {
    let for_us = random.below(2 * SECOND) + 100 * MS;
    troubles.fault(at, Fault::CutOneWay { from: node, for_us });
    let at = at + random.below(400 * MS);
    troubles.restart(random, (at, 0), node);
    if random.chance(1, 2) {
        troubles.wish(
            at + random.below(SECOND),
            Wish::Deactivate {
                domain: domain_of(node),
            },
        );
    }
}

/// A primary is isolated and its site deactivated, while who gave it grants restarts.
fn giver_restarts(troubles: &mut Troubles, random: &mut Random, at: Micros, node: usize) {
    let for_us = random.below(6 * SECOND) + SECOND;
    troubles.fault(at, Fault::Isolate { node, for_us });
    let domain = domain_of(node);
    let asked = at + random.below(600 * MS);
    troubles.wish(asked, Wish::Deactivate { domain });
    troubles.restart(random, (at, SECOND), 1 - node);
    troubles.wish(at + for_us + 2 * SECOND, Wish::Activate { domain });
}

/// A primary does not hear that its site was deactivated; its link to the other one is well.
fn news_do_not_come(troubles: &mut Troubles, random: &mut Random, at: Micros, node: usize) {
    let for_us = random.below(8 * SECOND) + 2 * SECOND;
    troubles.fault(at, Fault::KvdbUnreachable { node, for_us });
    let domain = domain_of(node);
    let asked = at + random.below(SECOND);
    troubles.wish(asked, Wish::Deactivate { domain });
    if random.chance(1, 2) {
        troubles.restart(random, (asked, SECOND), 1 - node);
    }
    troubles.wish(at + for_us + 2 * SECOND, Wish::Activate { domain });
}

/// A replica is away until it is shrunk out; its resync is interrupted several times.
fn resync_is_interrupted(troubles: &mut Troubles, random: &mut Random, at: Micros, node: usize) {
    let for_us = random.below(3 * SECOND) + 2 * SECOND;
    troubles.fault(at, Fault::Cut { for_us });
    let mut at = at + for_us;
    for _ in 0..1 + random.below(4) {
        at += random.below(600 * MS) + MS;
        match random.below(4) {
            0 => troubles.fault(at, Fault::Flap),
            1 => troubles.restart(random, (at, 0), 1 - node),
            _ => troubles.restart(random, (at, 0), node),
        }
    }
}

/// A site is given up together with what only it holds; it comes back with that.
fn loss_is_accepted(troubles: &mut Troubles, random: &mut Random, at: Micros, node: usize) {
    let for_us = random.below(6 * SECOND) + 4 * SECOND;
    troubles.fault(at, Fault::Cut { for_us });
    // By then the other site was shrunk out.
    let gone = at + random.below(4 * SECOND);
    let fault = match random.below(4) {
        0 => Fault::Kill { node, for_us },
        1 => Fault::Pause { node, for_us },
        _ => Fault::Isolate { node, for_us },
    };
    troubles.fault(gone, fault);
    let domain = domain_of(node);
    troubles.wish(
        gone + random.below(SECOND),
        Wish::DeactivateAcceptingLoss { domain },
    );
    let back = gone + for_us + random.below(2 * SECOND);
    troubles.wish(back, Wish::Activate { domain });
    if random.chance(1, 2) {
        troubles.restart(random, (back, SECOND), node);
    }
}

/// A primary is stopped in the middle of slow reads, and goes on when another one serves.
fn read_is_frozen(troubles: &mut Troubles, random: &mut Random, at: Micros, node: usize) {
    let times = 20 + random.below(200);
    troubles.fault(
        at,
        Fault::SlowDisk {
            node,
            times,
            for_us: 10 * SECOND,
        },
    );
    let stopped = at + random.below(500 * MS);
    let for_us = random.below(4 * SECOND) + 3 * SECOND;
    troubles.fault(stopped, Fault::Pause { node, for_us });
    let domain = domain_of(node);
    troubles.wish(
        stopped + random.below(300 * MS),
        Wish::Deactivate { domain },
    );
    troubles.wish(stopped + for_us + SECOND, Wish::Activate { domain });
}

/// A primary is isolated while its clients go on, and its site deactivated at once: the other one serves as early as it may.
fn isolated_and_replaced(troubles: &mut Troubles, random: &mut Random, at: Micros, node: usize) {
    let for_us = random.below(4 * SECOND) + 4 * SECOND;
    troubles.fault(at, Fault::Isolate { node, for_us });
    let domain = domain_of(node);
    troubles.wish(at + random.below(100 * MS), Wish::Deactivate { domain });
    troubles.wish(at + for_us + SECOND, Wish::Activate { domain });
}

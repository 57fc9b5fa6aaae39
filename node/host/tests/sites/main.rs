//! Four hosts, two in each site, under faults: kills, losses of power, cuts between any two, a kvdb that is late or out of reach, and an
//! operator who adds and removes replicas and deactivates sites. The simulator of whole clusters has one replica in each site; this world is smaller
//! (no drifting clocks, no failing disks, an atomic kvdb) and has more replicas.
//!
//! What is checked: a read gives what a register may hold (acknowledged writes survive, nothing is stale, nothing read is taken back), the catalog's
//! rules after each commit, and at the end, when all is healed, that every volume becomes whole and all its replicas hold the same.

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail loudly in its helpers, too"
)]

mod register;
mod world;

use world::{Counts, World};

/// Seeds that every run tries.
const SEEDS: u64 = 40;

fn run(seeds: impl Iterator<Item = u64>) -> Counts {
    let mut all = Counts::default();
    for seed in seeds {
        let counts = World::new(seed).run();
        all.add(&counts);
    }
    all
}

#[test]
fn two_replicas_in_each_site_lose_nothing_and_become_whole_again() {
    let from = std::env::var("SITES_FROM").ok();
    let from: u64 = from.map_or(1, |text| text.parse().unwrap());
    let count = std::env::var("SITES_SEEDS").ok();
    let count: u64 = count.map_or(SEEDS, |text| text.parse().unwrap());
    let counts = run(from..from + count);
    println!("seeds {from} to {}: {counts:?}", from + count - 1);
    // A world in which nothing happens shows nothing.
    assert!(counts.written > count * 100, "{counts:?}");
    assert!(counts.read > count * 100, "{counts:?}");
    assert!(
        counts.taken_over > 0 && counts.removed > 0 && counts.deactivated > 0,
        "{counts:?}"
    );
}

//! Seeds: some fresh ones, the ones that failed once, and the same one twice.

#![allow(clippy::unwrap_used)]

use simulation::timeline::Recording;
use simulation::{Failure, Simulation, Summary};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

const FRESH: std::ops::Range<u64> = 100_000..100_150;
const THREADS: usize = 2;

fn run(seed: u64) -> Summary {
    match Simulation::new(seed, Recording::Last).run() {
        Ok(summary) => summary,
        Err(Failure { seed, what, lines }) => panic!(
            "{}\nseed {seed} broke a rule: {what}\nshow it: cargo run --release -p simulation -- run --seed {seed} --trace",
            lines.join("\n")
        ),
    }
}

fn run_all(seeds: &[u64]) -> Summary {
    let next = AtomicUsize::new(0);
    let totals = std::sync::Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let summary = run(*seed);
                    totals.lock().unwrap().add(&summary);
                }
            });
        }
    });
    totals.into_inner().unwrap()
}

#[test]
fn fresh_seeds_break_no_rule() {
    println!("seeds {FRESH:?}");
    let totals = run_all(&FRESH.collect::<Vec<u64>>());
    println!("{totals:?}");
    // A run in which nothing happens proves nothing.
    assert!(totals.answered > 8_000 && totals.faults > 500, "{totals:?}");
    assert!(totals.opened > 200 && totals.shrunk > 10, "{totals:?}");
    assert!(totals.grown > 30 && totals.deactivated > 10, "{totals:?}");
}

#[test]
fn seeds_that_failed_once_break_no_rule() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut seeds = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let text = fs::read_to_string(&path).unwrap();
            let first = text.lines().next().unwrap_or_default();
            let seed = first
                .strip_prefix("seed = ")
                .and_then(|seed| seed.parse().ok());
            seeds.push(seed.unwrap_or_else(|| panic!("{} begins with `seed = N`", path.display())));
        }
    }
    assert!(!seeds.is_empty(), "there are seeds that failed once");
    seeds.sort_unstable();
    println!("seeds {seeds:?}");
    run_all(&seeds);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [7, 8, 9] {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first, second, "seed {seed}");
        assert!(first.events > 1_000, "{first:?}");
    }
}

//! Seeds: some fresh ones, transcripts of what failed once, and the same seed twice.

#![allow(clippy::unwrap_used)]

use simulation::scenario::{Scenario, Style};
use simulation::timeline::Recording;
use simulation::{Failure, Simulation, Summary};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const FRESH: u64 = 200;
const THREADS: usize = 2;

fn run(name: &str, scenario: &Scenario) -> Summary {
    match Simulation::new(scenario.clone(), Recording::Last(160)).run() {
        Ok(summary) => summary,
        Err(Failure {
            rule, what, lines, ..
        }) => panic!("{}\n{name} broke a rule: {rule}: {what}", lines.join("\n")),
    }
}

fn run_all(scenarios: &[(String, Scenario)]) -> Summary {
    let next = AtomicUsize::new(0);
    let totals = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((name, scenario)) =
                    scenarios.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let summary = run(name, scenario);
                    totals.lock().unwrap().add(&summary);
                }
            });
        }
    });
    totals.into_inner().unwrap()
}

#[test]
fn fresh_seeds_break_no_rule() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = now.as_secs() % 1_000_000_000 * 1000;
    println!("{FRESH} seeds from {first}");
    let scenarios: Vec<(String, Scenario)> = (first..first + FRESH)
        .map(|seed| {
            let name = format!("seed {seed}");
            (name, Scenario::drawn(seed, Style::Swarm))
        })
        .collect();
    let totals = run_all(&scenarios);
    println!("{totals:?}");
    // A run in which nothing happens proves nothing.
    assert!(
        totals.answered > 30_000 && totals.faults > 4_000,
        "{totals:?}"
    );
    assert!(totals.opened > 600 && totals.shrunk > 30, "{totals:?}");
    assert!(totals.grown > 120 && totals.deactivated > 50, "{totals:?}");
}

fn transcripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

#[test]
fn what_failed_once_breaks_no_rule() {
    let scenarios: Vec<(String, Scenario)> = transcripts()
        .iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let scenario = Scenario::parse(&fs::read_to_string(path).unwrap());
            let scenario = scenario.unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, scenario)
        })
        .collect();
    assert!(!scenarios.is_empty(), "there are transcripts");
    run_all(&scenarios);
}

/// In two processes: what differs between processes (addresses, hash seeds, threads) must not matter.
#[test]
fn the_same_seed_gives_the_same_run_to_the_last_byte() {
    let hash = |seed: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_simulation"))
            .args(["run", "--trace", "--seed", seed])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    for seed in ["7", "8", "9"] {
        let (first, second) = (hash(seed), hash(seed));
        assert!(first.len() > 10_000, "{} bytes", first.len());
        assert!(first == second, "seed {seed} differs between two processes");
    }
}

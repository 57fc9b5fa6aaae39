//! How fast the simulator is.

use super::run::{describe, headline};
use simulation::scenario::{Scenario, Style};
use simulation::timeline::Recording;
use simulation::{Simulation, Summary};
use std::process::ExitCode;
use std::time::Instant;

/// Runs the first `seeds` seeds of the measuring kind, on one core.
pub fn speed(seeds: u64) -> ExitCode {
    let mut all = Summary::default();
    let mut spent = 0.0;
    for seed in 0..seeds {
        let scenario = Scenario::drawn(seed, Style::Speed);
        let begun = Instant::now();
        let summary = match Simulation::new(scenario, Recording::Off).run() {
            Ok(summary) => summary,
            Err(failure) => {
                println!("seed {seed} {}", headline(&failure));
                return ExitCode::FAILURE;
            }
        };
        let seconds = begun.elapsed().as_secs_f64();
        let simulated = summary.nanoseconds as f64 / 1e9;
        println!(
            "run {seed}: {simulated:.1} s in {seconds:.2} s: {:.0} simulated seconds a second, {:.0} operations a simulated second",
            simulated / seconds,
            summary.operations as f64 / simulated,
        );
        spent += seconds;
        all.add(&summary);
    }
    println!(
        "all: {:.0} simulated seconds a second, {:.1} us for each operation; {}",
        all.nanoseconds as f64 / 1e9 / spent,
        spent * 1e6 / all.operations as f64,
        describe(&all)
    );
    ExitCode::SUCCESS
}

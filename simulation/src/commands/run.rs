//! One run: of a seed, or of a transcript.

use super::mutations::{break_rule, turn_on};
use simulation::scenario::{Scenario, Style};
use simulation::timeline::Recording;
use simulation::{Failure, Simulation, Summary};
use std::path::Path;
use std::process::ExitCode;

/// Lines of the timeline that are shown after a failure.
const LINES: usize = 160;

/// Runs a seed.
pub fn run(seed: u64, trace: bool) -> ExitCode {
    run_scenario(Scenario::drawn(seed, Style::Swarm), trace, "seed")
}

/// Writes a seed's scenario to a file.
pub fn write(seed: u64, file: &Path) -> ExitCode {
    let text = Scenario::drawn(seed, Style::Swarm).to_text();
    match std::fs::write(file, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} can't be written: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}

/// Runs a transcript.
pub fn replay(file: &Path, trace: bool, mutation: Option<&str>) -> ExitCode {
    if let Some(name) = mutation
        && let Err(error) = break_rule(name)
    {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    turn_on(mutation);
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{} can't be read: {error}", file.display());
            return ExitCode::from(2);
        }
    };
    match Scenario::parse(&text) {
        Ok(scenario) => run_scenario(scenario, trace, "transcript of seed"),
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            ExitCode::from(2)
        }
    }
}

fn run_scenario(scenario: Scenario, trace: bool, what: &str) -> ExitCode {
    let seed = scenario.seed;
    let recording = if trace {
        Recording::Print
    } else {
        Recording::Last(LINES)
    };
    match Simulation::new(scenario, recording).run() {
        Ok(summary) => {
            println!("{what} {seed}: fine; {}", describe(&summary));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            for line in &failure.lines {
                println!("{line}");
            }
            println!("{what} {seed} {}", headline(&failure));
            ExitCode::FAILURE
        }
    }
}

/// What a failure is, in the form that `search` reads from a process of its own: rule and time come first.
pub fn headline(failure: &Failure) -> String {
    format!(
        "BROKE A RULE: {} at {} us: {}",
        failure.rule,
        failure.at / 1000,
        failure.what
    )
}

/// A run's numbers.
pub fn describe(summary: &Summary) -> String {
    format!(
        "{:.1} s of virtual time, {} events, {} of {} operations answered, {} faults, {} promotions, {} shrinks, {} growths, {} deactivations, {} losses of all kernels, hash {:016x}",
        summary.nanoseconds as f64 / 1e9,
        summary.events,
        summary.answered,
        summary.operations,
        summary.faults,
        summary.opened,
        summary.shrunk,
        summary.grown,
        summary.deactivated,
        summary.kernels_lost,
        summary.hash
    )
}

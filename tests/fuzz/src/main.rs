//! `cargo run --release -p fuzz -- --cases N [--target NAME] [--seed N]`, or `-- --replay FILE --target NAME`.

use clap::Parser;
use fuzz::random::Random;
use fuzz::runner::{self, Runner};
use fuzz::targets;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Feeds decoders bytes that nobody meant; stops at the first broken rule")]
struct Arguments {
    /// Cases in all
    #[arg(long, default_value_t = 1_000_000)]
    cases: u64,
    /// Only this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Where the random numbers begin; a fresh one without it
    #[arg(long)]
    seed: Option<u64>,
    /// Run the input of this file once
    #[arg(long, value_name = "FILE", requires = "target")]
    replay: Option<PathBuf>,
    /// List the targets
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(Random::fresh_seed);
    let mut runners: Vec<Runner> = targets::all()
        .into_iter()
        .filter(|target| {
            arguments
                .target
                .as_deref()
                .is_none_or(|name| name == target.name())
        })
        .map(|target| Runner::new(target, seed))
        .collect();
    if runners.is_empty() {
        eprintln!("there is no such target: see --list");
        return ExitCode::from(2);
    }
    if arguments.list {
        for runner in &runners {
            println!("{}", runner.target().name());
        }
        return ExitCode::SUCCESS;
    }
    runner::watch_for_endless_cases();
    if let Some(file) = arguments.replay {
        return match runner::replay(&mut runners[0], &file) {
            Ok(verdict) => {
                println!("{}: {verdict:?}, and no rule is broken", file.display());
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                ExitCode::from(2)
            }
        };
    }
    let mode = if runners[0].is_measured() {
        "guided by coverage of our own crates"
    } else {
        "without coverage (tests/fuzz/run measures it)"
    };
    println!("seed {seed}, {} cases, {mode}", arguments.cases);
    runner::run_all(&mut runners, arguments.cases);
    print_table(&runners);
    ExitCode::SUCCESS
}

fn print_table(runners: &[Runner]) {
    println!(
        "{:<20} {:>11} {:>11} {:>11} {:>7} {:>7} {:>9} {:>9}",
        "target", "cases", "accepted", "refused", "corpus", "edges", "cases/s", "peak KiB"
    );
    for runner in runners {
        let tally = runner.tally();
        println!(
            "{:<20} {:>11} {:>11} {:>11} {:>7} {:>7} {:>9.0} {:>9}",
            runner.target().name(),
            tally.cases,
            tally.accepted,
            tally.refused,
            tally.corpus,
            tally.edges_hit,
            tally.cases as f64 / tally.elapsed.as_secs_f64().max(0.001),
            tally.memory_bytes.div_ceil(1024)
        );
    }
    let total = |of: fn(&Runner) -> u64| -> u64 { runners.iter().map(of).sum() };
    println!(
        "{:<20} {:>11} {:>11} {:>11}   in {:.0} s; no rule was broken",
        "all",
        total(|runner| runner.tally().cases),
        total(|runner| runner.tally().accepted),
        total(|runner| runner.tally().refused),
        runners
            .iter()
            .map(|runner| runner.tally().elapsed.as_secs_f64())
            .sum::<f64>()
    );
}

//! Runs the simulator: one seed, or one after the other until a rule breaks.

use clap::{Parser, Subcommand};
use simulation::timeline::Recording;
use simulation::{Failure, Simulation, Summary};
use std::process::{Command as Process, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Whole clusters in one thread from one seed.
#[derive(Debug, Parser)]
#[command(name = "simulation")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one seed, and shows what happened.
    Run {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// Print everything as it happens, not only the end.
        #[arg(long)]
        trace: bool,
    },
    /// Runs many seeds, until one breaks a rule.
    Search {
        /// How many.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        jobs: u64,
        /// Go on after a broken rule, and show one line for each.
        #[arg(long)]
        all: bool,
    },
}

std::thread_local! {
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { seed, trace } => run(seed, trace),
        Command::Search {
            seeds,
            from,
            jobs,
            all,
        } => search(seeds, from, jobs, all),
    }
}

fn run(seed: u64, trace: bool) -> ExitCode {
    let recording = if trace {
        Recording::Print
    } else {
        Recording::Last
    };
    match Simulation::new(seed, recording).run() {
        Ok(summary) => {
            println!("seed {seed}: {}", describe(&summary));
            ExitCode::SUCCESS
        }
        Err(Failure { seed, what, lines }) => {
            for line in lines {
                println!("{line}");
            }
            println!("seed {seed} BROKE A RULE: {what}");
            ExitCode::FAILURE
        }
    }
}

fn describe(summary: &Summary) -> String {
    format!(
        "fine; {:.1} s of virtual time, {} events, {} operations answered, {} faults, {} promotions, {} shrinks, {} growths, {} deactivations, hash {:016x}",
        summary.nanoseconds as f64 / 1e9,
        summary.events,
        summary.answered,
        summary.faults,
        summary.opened,
        summary.shrunk,
        summary.grown,
        summary.deactivated,
        summary.hash
    )
}

fn search(seeds: u64, from: u64, jobs: u64, all: bool) -> ExitCode {
    // A panic in any thread is a broken rule, too: it names its seed before the process ends.
    std::panic::set_hook(Box::new(move |panic| {
        let seed = SEED.get();
        println!("\nseed {seed} BROKE A RULE: panic: {panic}");
        println!("show it: cargo run --release -p simulation -- run --seed {seed} --trace");
        if !(all && cfg!(panic = "unwind")) {
            std::process::exit(1);
        }
    }));
    let (next, done, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let totals: Mutex<Summary> = Mutex::new(Summary::default());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds {
                        return;
                    }
                    let seed = from + number;
                    SEED.set(seed);
                    let run = || Simulation::new(seed, Recording::Off).run();
                    let Ok(ended) = std::panic::catch_unwind(run) else {
                        continue;
                    };
                    match ended {
                        Ok(summary) => {
                            if let Ok(mut totals) = totals.lock() {
                                totals.add(&summary);
                            }
                        }
                        Err(failure) => {
                            stop.store(!all, Ordering::Relaxed);
                            if all {
                                let first = failure.what.lines().next().unwrap_or_default();
                                println!("\rseed {seed} BROKE A RULE: {first}");
                            }
                            if let Ok(mut failed) = failed.lock() {
                                failed.get_or_insert(failure);
                            }
                        }
                    }
                    progress(begun, done.fetch_add(1, Ordering::Relaxed) + 1, seeds);
                }
            });
        }
    });
    let done = done.load(Ordering::Relaxed);
    if let Ok(totals) = totals.lock() {
        println!(
            "\n{done} seeds in {:.1} s: {}",
            begun.elapsed().as_secs_f64(),
            describe(&totals)
        );
    }
    let failed = failed.into_inner().ok().flatten();
    match failed {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            if !all {
                println!("seed {} BROKE A RULE: {}", failure.seed, failure.what);
                show(failure.seed);
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs a seed again in a process of its own, with its timeline.
fn show(seed: u64) {
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    println!("the last events of seed {seed}:");
    if let Err(error) = Process::new(program)
        .args(["run", "--seed", &seed.to_string()])
        .status()
    {
        println!("(can't be shown: {error})");
    }
}

fn progress(begun: Instant, done: u64, seeds: u64) {
    if done.is_multiple_of(10) || done == seeds {
        let elapsed = begun.elapsed().max(Duration::from_millis(1));
        let rate = done as f64 / elapsed.as_secs_f64();
        let left = (seeds - done) as f64 / rate;
        print!("\r{done} of {seeds} seeds, {rate:.1} seeds/s, {left:.0} s left   ");
        let _ = std::io::Write::flush(&mut std::io::stdout());
    }
}

//! Many seeds, until one breaks a rule.

use super::failures::{self, Found};
use super::mutations::{break_rule, turn_on};
use super::run::describe;
use clap::Args;
use simulation::scenario::{Scenario, Style};
use simulation::timeline::Recording;
use simulation::{Simulation, Summary};
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seeds between two lines of progress that is not shown on a terminal.
const LINE_EVERY: u64 = 500;

#[derive(Debug, Args)]
pub struct Options {
    /// How many.
    #[arg(long, default_value_t = 1000)]
    pub seeds: u64,
    /// The first one; without it, one that was not used before (the time).
    #[arg(long)]
    pub from: Option<u64>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    pub jobs: u64,
    /// Go on after a broken rule, and show one line for each; nothing is made small.
    #[arg(long)]
    pub all: bool,
    /// Break this rule on purpose (needs the feature `mutations`).
    #[arg(long, value_name = "NAME")]
    pub mutation: Option<String>,
    /// How long to spend on making a failure small, in seconds.
    #[arg(long, default_value_t = 120)]
    pub shrink_s: u64,
}

std::thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

struct Search<'a> {
    options: &'a Options,
    from: u64,
    begun: Instant,
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
    failed: Mutex<Vec<Found>>,
    totals: Mutex<Summary>,
}

/// Searches, and says how it ended.
pub fn search(options: &Options) -> ExitCode {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    if let Some(name) = &options.mutation
        && let Err(error) = break_rule(name)
    {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    let search = Search {
        options,
        from: options.from.unwrap_or(now.as_secs() % 1_000_000_000 * 1000),
        begun: Instant::now(),
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        failed: Mutex::default(),
        totals: Mutex::default(),
    };
    report_panics(options);
    println!(
        "seeds {} to {}, {} threads",
        search.from,
        search.from + options.seeds.saturating_sub(1),
        options.jobs.max(1)
    );
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| search.work());
        }
    });
    search.conclude()
}

/// A panic in any thread is a broken rule, too: it names its seed, and is made small, before the process ends.
fn report_panics(options: &Options) {
    let (all, shrink_s, mutation) = (options.all, options.shrink_s, options.mutation.clone());
    std::panic::set_hook(Box::new(move |panic| {
        let found = Found {
            seed: SEED.get(),
            rule: failures::PANIC.to_owned(),
            what: panic.to_string().replace('\n', " "),
            mutation: mutation.clone(),
        };
        println!(
            "\nseed {} BROKE A RULE: {}: {}",
            found.seed, found.rule, found.what
        );
        if !all && shrink_s > 0 {
            failures::explain(&found, Duration::from_secs(shrink_s));
        }
        if !(all && cfg!(panic = "unwind")) {
            std::process::exit(1);
        }
    }));
}

impl Search<'_> {
    fn work(&self) {
        turn_on(self.options.mutation.as_deref());
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.options.seeds {
                return;
            }
            let seed = self.from + number;
            SEED.set(seed);
            let run = || {
                let scenario = Scenario::drawn(seed, Style::Swarm);
                Simulation::new(scenario, Recording::Off).run()
            };
            // Without unwinding, a panic ends the process in its hook.
            let Ok(ended) = std::panic::catch_unwind(run) else {
                continue;
            };
            match ended {
                Ok(summary) => {
                    if let Ok(mut totals) = self.totals.lock() {
                        totals.add(&summary);
                    }
                }
                Err(failure) => {
                    self.stop.store(!self.options.all, Ordering::Relaxed);
                    let first = failure.what.lines().next().unwrap_or_default();
                    println!("\nseed {seed} BROKE A RULE: {}: {first}", failure.rule);
                    if let Ok(mut failed) = self.failed.lock() {
                        failed.push(Found {
                            seed,
                            rule: failure.rule.to_owned(),
                            what: failure.what,
                            mutation: self.options.mutation.clone(),
                        });
                    }
                }
            }
            self.progress(self.done.fetch_add(1, Ordering::Relaxed) + 1);
        }
    }

    fn progress(&self, done: u64) {
        let seeds = self.options.seeds;
        let terminal = std::io::stdout().is_terminal();
        let due = if terminal {
            done.is_multiple_of(5)
        } else {
            done.is_multiple_of(LINE_EVERY)
        };
        if !due {
            return;
        }
        let elapsed = self.begun.elapsed().max(Duration::from_millis(1));
        let rate = done as f64 / elapsed.as_secs_f64();
        let left = seeds.saturating_sub(done) as f64 / rate;
        if terminal {
            let filled = (done * 30 / seeds.max(1)) as usize;
            let bar = format!("{}{}", "#".repeat(filled), ".".repeat(30 - filled.min(30)));
            print!("\r[{bar}] {done} of {seeds} seeds, {rate:.1} seeds/s, {left:.0} s left   ");
            let _ = std::io::stdout().flush();
        } else {
            println!("{done} of {seeds} seeds, {rate:.1} seeds/s, {left:.0} s left");
        }
    }

    fn conclude(&self) -> ExitCode {
        let elapsed = self.begun.elapsed().as_secs_f64();
        let failed = self.failed.lock().map(|failed| failed.clone());
        let failed = failed.unwrap_or_default();
        if let Ok(totals) = self.totals.lock() {
            let (done, broken) = (self.done.load(Ordering::Relaxed), failed.len());
            println!(
                "\n{done} seeds in {elapsed:.1} s, {broken} broke a rule; {}",
                describe(&totals)
            );
        }
        let explained = !self.options.all && self.options.shrink_s > 0;
        if let Some(found) = failed.first().filter(|_| explained) {
            failures::explain(found, Duration::from_secs(self.options.shrink_s));
        }
        if failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

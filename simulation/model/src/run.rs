//! Explores configurations to their end, and shows how mutations are refuted: what `simulation model` does.

use crate::action::Action;
use crate::configurations::{Configuration, FULL, QUICK, refuting};
use crate::mutation::Mutation;
use crate::properties::{PROPERTIES, SITUATION_NAMES, SITUATIONS};
use crate::protocol::Protocol;
use crate::state::{Broken, State};
use clap::ValueEnum;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Path, Property};
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// States between two lines of progress.
const PROGRESS_STATES: u64 = 50_000;

impl<const N: usize> Model for Protocol<N> {
    type State = State<N>;
    type Action = Action;

    fn init_states(&self) -> Vec<State<N>> {
        vec![State::first()]
    }

    fn actions(&self, state: &State<N>, actions: &mut Vec<Action>) {
        if self.shows_progress {
            let states = self.expanded.fetch_add(1, Ordering::Relaxed) + 1;
            if states.is_multiple_of(PROGRESS_STATES) {
                progress(states, self.begun.elapsed());
            }
        }
        // Behind a broken rule nothing is of interest.
        if state.broken == Broken::Nothing {
            self.candidates(state, actions);
        }
    }

    fn next_state(&self, state: &State<N>, action: Action) -> Option<State<N>> {
        let mut next = state.clone();
        self.step(&mut next, action).then(|| {
            next.settle();
            next
        })
    }

    fn properties(&self) -> Vec<Property<Protocol<N>>> {
        Self::all_properties()
    }
}

fn progress(states: u64, elapsed: Duration) {
    let rate = states as f64 / elapsed.as_secs_f64().max(0.001);
    print!("\r  {states} states looked at, {rate:.0} states/s   ");
    // A progress line that can't be shown is no reason to stop.
    let _ = std::io::stdout().flush();
}

/// What `simulation model` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Explore the small configurations only.
    #[arg(long)]
    quick: bool,
    /// Explore only the configuration of this name.
    #[arg(long)]
    only: Option<String>,
    /// Break this rule, and show how that is refuted.
    #[arg(long)]
    mutation: Option<Mutation>,
    /// Break every rule, one after the other, and print a table.
    #[arg(long, conflicts_with = "mutation")]
    mutations: bool,
    /// Threads. Only one finds the shortest way to what is broken.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// How an exploration ended.
#[derive(Debug)]
pub struct Outcome {
    /// Different states.
    pub unique: usize,
    /// States with repetitions: the steps taken.
    pub total: usize,
    /// The longest shortest way to a state.
    pub depth: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// The first broken property, if any.
    pub broken: Option<Counterexample>,
    /// Which situations were reached.
    pub reached: [bool; SITUATIONS],
}

/// The way to a broken property.
#[derive(Debug)]
pub struct Counterexample {
    /// The property.
    pub property: &'static str,
    /// How many steps.
    pub steps: usize,
    /// The steps and states, for people.
    pub text: String,
}

/// Explores a configuration to its end, or to the first broken property.
#[must_use]
pub fn explore(
    configuration: &Configuration,
    mutation: Option<Mutation>,
    threads: usize,
    shows_progress: bool,
) -> Outcome {
    if configuration.replicas == 2 {
        explore_with::<2>(configuration, mutation, threads, shows_progress)
    } else {
        explore_with::<4>(configuration, mutation, threads, shows_progress)
    }
}

fn explore_with<const N: usize>(
    configuration: &Configuration,
    mutation: Option<Mutation>,
    threads: usize,
    shows_progress: bool,
) -> Outcome {
    let mut protocol = Protocol::<N>::new(configuration.bounds, mutation);
    protocol.shows_progress = shows_progress;
    let checker = protocol
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let elapsed = checker.model().begun.elapsed();
    let properties = checker.model().properties();
    assert_eq!(
        properties.len(),
        PROPERTIES,
        "every property is decided apart"
    );
    let discoveries = checker.discoveries();
    let mut reached = [false; SITUATIONS];
    for (at, name) in SITUATION_NAMES.iter().enumerate() {
        reached[at] = discoveries.contains_key(name);
    }
    let broken = properties
        .iter()
        .filter(|property| matches!(property.expectation, Expectation::Always))
        .filter_map(|property| Some((property.name, discoveries.get(property.name)?)))
        .min_by_key(|(_, path)| (*path).clone().into_actions().len())
        .map(|(property, path)| tell::<N>(checker.model(), property, path.clone()));
    Outcome {
        unique: checker.unique_state_count(),
        total: checker.state_count(),
        depth: checker.max_depth(),
        elapsed,
        broken,
        reached,
    }
}

/// A path in words: each step, and what it changed.
fn tell<const N: usize>(
    protocol: &Protocol<N>,
    property: &'static str,
    path: Path<State<N>, Action>,
) -> Counterexample {
    let mut text = String::new();
    let mut before: Vec<String> = Vec::new();
    let mut steps = 0;
    for (state, action) in path.into_vec() {
        let lines: Vec<String> = state.describe().lines().map(str::to_owned).collect();
        for line in lines.iter().filter(|line| !before.contains(line)) {
            text.push_str(&format!("         {line}\n"));
        }
        before = lines;
        if let Some(action) = action {
            steps += 1;
            text.push_str(&format!("    {steps:2}. {}\n", protocol.describe(action)));
        }
    }
    Counterexample {
        property,
        steps,
        text,
    }
}

/// Does what the arguments say. The exit code is true: it says whether everything held that should, and broke that should.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    let fine = match (arguments.mutation, arguments.mutations) {
        (Some(mutation), _) => refute(mutation, true),
        (None, true) => {
            println!(
                "{:26} {:52} {:>5} {:>9} {:>8}",
                "mutation", "refuted by", "steps", "states", "seconds"
            );
            let refuted: Vec<bool> = Mutation::value_variants()
                .iter()
                .map(|mutation| refute(*mutation, false))
                .collect();
            refuted.iter().all(|refuted| *refuted)
        }
        (None, false) => explore_all(arguments),
    };
    if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn explore_all(arguments: &Arguments) -> bool {
    let configurations: &[Configuration] = if arguments.quick { &QUICK } else { &FULL };
    let chosen: Vec<&Configuration> = configurations
        .iter()
        .filter(|configuration| {
            arguments
                .only
                .as_deref()
                .is_none_or(|only| only == configuration.name)
        })
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = configurations
            .iter()
            .map(|configuration| configuration.name)
            .collect();
        println!(
            "there is no such configuration; choose one of: {}",
            names.join(", ")
        );
        return false;
    }
    let mut fine = true;
    for configuration in chosen {
        println!(
            "{}: {} replicas; at most {}",
            configuration.name, configuration.replicas, configuration.bounds
        );
        let outcome = explore(configuration, None, arguments.threads, true);
        println!(
            "\r  explored to the end: {} states ({} with repetitions), depth {}, {:.1} s{}",
            outcome.unique,
            outcome.total,
            outcome.depth,
            outcome.elapsed.as_secs_f64(),
            peak_memory(),
        );
        fine &= report(configuration, &outcome);
    }
    fine
}

fn report(configuration: &Configuration, outcome: &Outcome) -> bool {
    if let Some(counterexample) = &outcome.broken {
        println!(
            "  BROKEN after {} steps: {}",
            counterexample.steps, counterexample.property
        );
        println!("{}", counterexample.text);
        return false;
    }
    println!("  held: all {} properties", PROPERTIES - SITUATIONS);
    let mut fine = true;
    for (at, name) in SITUATION_NAMES.iter().enumerate() {
        let must = configuration.reaches.contains(&at);
        if outcome.reached[at] {
            println!("  reached: {name}");
        } else if must {
            println!("  NEVER REACHED, so the exploration is worth less than it says: {name}");
            fine = false;
        }
    }
    fine
}

/// Shows that a mutation is refuted, or not where it is known that it can't be. Returns whether it is as it should be.
fn refute(mutation: Mutation, shows_trace: bool) -> bool {
    let name = mutation
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default();
    let (configuration, redundant) = refuting(mutation);
    // One thread: only then the first way found is a shortest one.
    let outcome = explore(&configuration, Some(mutation), 1, false);
    let seconds = outcome.elapsed.as_secs_f64();
    match (&outcome.broken, redundant) {
        (Some(counterexample), None) => {
            println!(
                "{name:26} {:52} {:>5} {:>9} {seconds:>8.1}",
                counterexample.property, counterexample.steps, outcome.unique
            );
            if shows_trace {
                println!(
                    "  at most {}:\n{}",
                    configuration.bounds, counterexample.text
                );
            }
            true
        }
        (None, Some(why)) => {
            println!(
                "{name:26} {:52} {:>5} {:>9} {seconds:>8.1}",
                "(nothing: explored to the end)", "-", outcome.unique
            );
            println!("  {why}");
            true
        }
        (Some(counterexample), Some(_)) => {
            println!(
                "{name}: REFUTED by {}, which was thought impossible\n{}",
                counterexample.property, counterexample.text
            );
            false
        }
        (None, None) => {
            println!(
                "{name}: NOT REFUTED within {} ({} states)",
                configuration.bounds, outcome.unique
            );
            false
        }
    }
}

/// The most memory that this process has had, where the system tells.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| {
        peak.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    kib.map_or(String::new(), |kib| {
        format!(", at most {} MiB so far", kib / 1024)
    })
}

//! Runs the simulator: one seed, many, or a transcript; and measures how fast it is.

mod commands {
    pub mod failures;
    pub mod mutations;
    pub mod run;
    pub mod search;
    pub mod speed;
}

use clap::{Parser, Subcommand};
use commands::{mutations, run, search, speed};
use std::path::PathBuf;
use std::process::ExitCode;

/// Whole clusters in one thread from one seed: finds, shrinks, replays and explains broken rules.
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
        /// Write the scenario of the seed to this file, for `replay`, instead of running it.
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
    },
    /// Runs many seeds; stops at the first that breaks a rule, makes it small, and shows what happened.
    Search(search::Options),
    /// Runs a transcript: the scenario in a file, as `search` and `run --write` leave it.
    Replay {
        /// The file.
        file: PathBuf,
        /// Print everything as it happens, not only the end.
        #[arg(long)]
        trace: bool,
        /// Break this rule on purpose (needs the feature `mutations`).
        #[arg(long, value_name = "NAME")]
        mutation: Option<String>,
    },
    /// Breaks rules on purpose, and counts the seeds until that is seen.
    Mutations(mutations::Options),
    /// Measures how many simulated seconds pass in one second, with 200 operations in each.
    Speed {
        /// Runs.
        #[arg(long, default_value_t = 5)]
        seeds: u64,
    },
    /// Explores the protocol's model.
    Model(isthmus_model::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run {
            seed,
            trace,
            write: None,
        } => run::run(seed, trace),
        Command::Run {
            seed,
            write: Some(file),
            ..
        } => run::write(seed, &file),
        Command::Search(options) => search::search(&options),
        Command::Replay {
            file,
            trace,
            mutation,
        } => run::replay(&file, trace, mutation.as_deref()),
        Command::Mutations(options) => mutations::mutations(&options),
        Command::Speed { seeds } => speed::speed(seeds),
        Command::Model(arguments) => isthmus_model::run(&arguments),
    }
}

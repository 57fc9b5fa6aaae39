//! `isthmusd`: one node of an Isthmus cluster, and `quickstart`, a whole one on this machine.
//!
//! Reading order: `run` (a node's life), [`store`], [`membership`], [`peers`], [`cluster`], [`serve`] (the data
//! path's seam), [`replicas`] (the data path), [`api`], [`domains`], [`failover`], [`quickstart`].

mod api;
mod boot;
mod clock;
mod cluster;
mod data_thread;
mod domains;
mod failover;
mod logging;
mod membership;
mod peers;
mod quickstart;
mod random;
mod replicas;
mod run;
mod serve;
mod store;

use clap::{Parser, Subcommand};
use logging::LogFormat;
use std::path::PathBuf;
use std::process::ExitCode;

/// A node of an Isthmus cluster: synchronous block storage over two sites
#[derive(Debug, Parser)]
#[command(name = "isthmusd", version, propagate_version = true)]
struct Arguments {
    /// How log lines are written (to standard error; RUST_LOG selects which)
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Run {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run a whole cluster on this machine, to try it: two data nodes and a witness
    Quickstart(quickstart::Options),
    /// Look at configuration files
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether a configuration file is sound
    Check {
        /// The file
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match act(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Run { config } => {
            let config = isthmus_config::Config::load(&config)?;
            logging::start(arguments.log_format)?;
            run::run(config)
        }
        Command::Quickstart(options) => quickstart::run(&options, arguments.log_format),
        Command::Config {
            command: ConfigCommand::Check { file },
        } => {
            let config = isthmus_config::Config::load(&file)?;
            println!(
                "{}: sound; node {} of cluster {}",
                file.display(),
                config.node,
                config.cluster.name
            );
            Ok(())
        }
    }
}

//! `isthmusd`: one node of an Isthmus cluster, and `quickstart`, a whole one on this machine.
//!
//! Reading order: `run` (a node's life), [`store`], [`membership`], [`peers`], [`cluster`], [`proposing`], [`serve`] (the data
//! path's seam), [`replicas`] (the data path), [`forwarding`] (of a node without a store), [`api`], [`domains`], [`failover`],
//! [`generation`], [`links`], [`metrics`], [`quickstart`].

mod api;
mod boot;
mod clock;
mod cluster;
mod data_thread;
mod domains;
mod failover;
mod forwarding;
mod generation;
mod links;
mod logging;
mod membership;
mod metrics;
mod peers;
mod proposing;
mod quickstart;
mod random;
mod replicas;
mod run;
mod serve;
mod store;

use clap::{Parser, Subcommand};
use logging::LogFormat;
use std::io::Write as _;
use std::path::{Path, PathBuf};
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
    /// List what a node tells Prometheus (this is docs/metrics.md)
    Metrics,
    /// Look at configuration files
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say everything that is wrong with a configuration file, one line each; fail when something is
    Check {
        /// The file
        file: PathBuf,
    },
    /// List all keys with type, default and meaning (this is docs/configuration.md)
    Reference,
}

fn main() -> ExitCode {
    match act(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where even this can't be written, the exit code says it.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
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
        } => check(&file),
        Command::Config {
            command: ConfigCommand::Reference,
        } => {
            print!("{}", isthmus_config::document());
            Ok(())
        }
        Command::Metrics => {
            print!("{}", metrics::table::document());
            Ok(())
        }
    }
}

/// Prints what is in a configuration file, or everything that is wrong with it.
fn check(file: &Path) -> anyhow::Result<()> {
    let config = match isthmus_config::Config::examine(file) {
        Ok(config) => config,
        Err(problems) => {
            for problem in &problems {
                println!("{}: {problem}", file.display());
            }
            anyhow::bail!("{}: {} to correct", file.display(), problems.len());
        }
    };
    let member = config.this_member();
    println!(
        "{}: sound\nnode {} (id {}) of cluster {} in {}, {} members in {} domains\ndata in {}\npeers at {}, API at {}, NBD at {}, metrics at {}",
        file.display(),
        config.node,
        member.id,
        config.cluster.name,
        member.domain,
        config.members.len(),
        config.domains.len(),
        config.data_dir.display(),
        config.listen.peer,
        config.listen.api,
        config
            .listen
            .nbd
            .map_or_else(|| "none".to_owned(), |address| address.to_string()),
        config.metrics.listen.map_or_else(
            || format!("{}/metrics", config.listen.api),
            |address| format!("{address}/metrics")
        ),
    );
    Ok(())
}

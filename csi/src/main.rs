//! `isthmus-csi`: the CSI driver, as controller, as node service, or both, on one Unix socket.
//!
//! Reading order: [`server`], [`identity`], [`controller`], [`node`], [`attach`]; what they share: [`cluster`] (the admin API),
//! [`names`], [`parameters`], [`capabilities`], [`sizes`], [`refusals`], [`log`].

mod attach;
mod capabilities;
mod cluster;
mod controller;
mod identity;
mod log;
mod names;
mod node;
mod parameters;
mod refusals;
mod server;
mod sizes;

use clap::{Parser, Subcommand, ValueEnum};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// The CSI driver of Isthmus: mirrored volumes for Kubernetes and other orchestrators
#[derive(Debug, Parser)]
#[command(name = "isthmus-csi", version, propagate_version = true)]
struct Arguments {
    /// How log lines are written (to standard error; RUST_LOG selects which)
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the orchestrator
    Run(server::Options),
    /// Keep one volume attached to this machine; the driver starts it by itself
    #[command(hide = true)]
    Attach(attach::process::Options),
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
    start_log(arguments.log_format)?;
    match arguments.command {
        Command::Run(options) => server::run(options),
        Command::Attach(options) => attach::process::run(options),
    }
}

fn start_log(format: LogFormat) -> anyhow::Result<()> {
    let text = std::env::var("RUST_LOG").unwrap_or_default();
    let text = if text.is_empty() {
        "info,fuser=error"
    } else {
        text.as_str()
    };
    let filter =
        EnvFilter::try_new(text).map_err(|error| anyhow::anyhow!("RUST_LOG '{text}': {error}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

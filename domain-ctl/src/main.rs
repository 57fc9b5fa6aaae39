//! `domain-ctl`: the command line of an Isthmus cluster, over the admin API only.
//!
//! Grammar, columns and texts of the cluster-domain commands are storkctl's; the exit code tells the truth: 0 done, 1 failed
//! (refused, timed out, nobody answers), 2 wrong usage.
//!
//! Reading order: [`arguments`], [`client`], [`commands`], then how things are printed: [`output`], [`table`], [`timestamp`].

mod arguments;
mod client;
mod commands;
mod failure;
mod output;
mod table;
mod timestamp;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    match commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure.to_string());
            failure.exit_code()
        }
    }
}

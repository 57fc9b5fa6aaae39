//! Runs programs of others (fio, nbdcopy, mkfs …), each with an end to its time.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A program, ended by force after `limit`; in a network namespace if there is one.
pub fn command(namespace: Option<&str>, limit: Duration, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command
        .arg("--kill-after=2")
        .arg(limit.as_secs().max(1).to_string());
    if let Some(namespace) = namespace {
        command
            .arg("nsenter")
            .arg(format!("--net=/run/netns/{namespace}"));
    }
    command.arg(program);
    command.stdin(Stdio::null());
    command
}

/// Runs a program to its end; what it printed to standard output.
///
/// # Panics
/// When it can't be run, fails, or takes longer than a minute and a half.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = attempt(program, arguments);
    assert!(
        output.status.success(),
        "{program} {}: {}\n{}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program to its end, whatever that is.
///
/// # Panics
/// When it can't be run.
#[track_caller]
pub fn attempt(program: &str, arguments: &[&str]) -> Output {
    match command(None, Duration::from_secs(90), program)
        .args(arguments)
        .output()
    {
        Ok(output) => output,
        Err(error) => panic!("{program} can't be run: {error}"),
    }
}

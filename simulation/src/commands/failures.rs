//! What is done with a failure: it is made small, written down as a transcript, and shown.
//!
//! Each trial runs in a process of its own: a broken rule may be a panic, or a run that never ends.

use simulation::scenario::{Scenario, Style};
use simulation::shrink::{Trial, shrink};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The rule that a panic breaks.
pub const PANIC: &str = "panic";
/// A trial that takes longer breaks nothing.
const TRIAL_MAX: Duration = Duration::from_secs(30);

/// A failure.
#[derive(Clone, Debug)]
pub struct Found {
    /// Of this seed.
    pub seed: u64,
    /// The broken rule.
    pub rule: String,
    /// What was found.
    pub what: String,
    /// The name of the mutation that was on.
    pub mutation: Option<String>,
}

/// Makes it small, and writes the transcript to `file`. Returns how many faults, wishes and operations there were and are.
///
/// # Errors
/// When the file can't be written.
pub fn make_small(
    found: &Found,
    file: &Path,
    shrink_for: Duration,
) -> std::io::Result<(usize, usize)> {
    let scenario = Scenario::drawn(found.seed, Style::Swarm);
    let mut trial = Trials {
        found,
        file: file.with_extension("trial"),
        until: Instant::now() + shrink_for,
        runs: 0,
    };
    let small = shrink(&scenario, &mut trial);
    let _ = std::fs::remove_file(&trial.file);
    let first = found.what.lines().next().unwrap_or_default();
    let mutation = found.mutation.iter();
    let mutation: String = mutation
        .map(|name| format!("# mutation: {name}\n"))
        .collect();
    let text = format!("{mutation}# {}: {first}\n{}", found.rule, small.to_text());
    std::fs::write(file, text)?;
    Ok((scenario.length(), small.length()))
}

/// Makes it small, writes the transcript into the present folder, and shows what happens in it.
pub fn explain(found: &Found, shrink_for: Duration) {
    let file = PathBuf::from(format!("seed-{}.txt", found.seed));
    println!("making it small, for at most {} s", shrink_for.as_secs());
    match make_small(found, &file, shrink_for) {
        Ok((before, after)) => {
            println!("\r{after} of {before} faults, wishes and operations are left");
        }
        Err(error) => {
            println!("{} can't be written: {error}", file.display());
            return;
        }
    }
    show(&file, found.mutation.as_deref());
    println!("seed {} BROKE A RULE: {}", found.seed, found.rule);
    println!("transcript:    {}", file.display());
    println!(
        "show it again: cargo run --release -p simulation -- replay {} --trace",
        file.display()
    );
    println!(
        "the whole run: cargo run --release -p simulation -- run --seed {} --trace",
        found.seed
    );
}

fn replay(file: &Path, mutation: Option<&str>) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("replay").arg(file);
    if let Some(name) = mutation {
        command.args(["--mutation", name]);
    }
    Ok(command)
}

fn show(file: &Path, mutation: Option<&str>) {
    let shown = replay(file, mutation).and_then(|mut command| command.status());
    if let Err(error) = shown {
        println!("(can't be shown: {error})");
    }
}

struct Trials<'a> {
    found: &'a Found,
    file: PathBuf,
    until: Instant,
    runs: u64,
}

impl Trials<'_> {
    fn run(&self, scenario: &Scenario) -> std::io::Result<String> {
        std::fs::write(&self.file, scenario.to_text())?;
        let mut process = replay(&self.file, self.found.mutation.as_deref())?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let watched = process.id();
        let (ended, end) = std::sync::mpsc::channel::<()>();
        // A trial that hangs is killed; its output then ends.
        let watch = std::thread::spawn(move || {
            if end.recv_timeout(TRIAL_MAX).is_err() {
                let _ = Command::new("kill")
                    .args(["-9", &watched.to_string()])
                    .status();
            }
        });
        let mut stdout = process.stdout.take();
        let reading = std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(stdout) = &mut stdout {
                let _ = std::io::Read::read_to_end(stdout, &mut text);
            }
            text
        });
        let mut errors = Vec::new();
        if let Some(stderr) = &mut process.stderr {
            std::io::Read::read_to_end(stderr, &mut errors)?;
        }
        let output = reading.join().unwrap_or_default();
        let _ = ended.send(());
        let _ = watch.join();
        process.wait()?;
        let (output, errors) = (
            String::from_utf8_lossy(&output),
            String::from_utf8_lossy(&errors),
        );
        Ok(format!("{output}\n{errors}"))
    }
}

impl Trial for Trials<'_> {
    fn breaks(&mut self, scenario: &Scenario) -> Option<u64> {
        self.runs += 1;
        if self.runs.is_multiple_of(20) {
            let left = self.until.saturating_duration_since(Instant::now());
            if std::io::stdout().is_terminal() {
                print!("\r{} runs, {} s left   ", self.runs, left.as_secs());
                let _ = std::io::stdout().flush();
            }
        }
        let text = self.run(scenario).ok()?;
        if self.found.rule == PANIC {
            return text.contains("panicked at").then_some(u64::MAX / 2);
        }
        let headline = format!("BROKE A RULE: {} at ", self.found.rule);
        let (_, rest) = text.split_once(&headline)?;
        rest.split_once(" us")?.0.parse().ok()
    }

    fn may_go_on(&self) -> bool {
        Instant::now() < self.until
    }
}

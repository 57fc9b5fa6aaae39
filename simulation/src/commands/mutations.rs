//! Does the simulator find bugs? Rules are broken on purpose, one after the other, and seeds are counted until a checker says so.
//!
//! Each mutation is searched in a process of its own, since a broken rule may be a panic. Needs a build with the feature `mutations`.

use clap::Args;
use isthmus_mutation::Mutation;
use std::path::PathBuf;
#[cfg(not(feature = "mutations"))]
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct Options {
    /// Only this one; without it, all.
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// Seeds to try for each, at most.
    #[arg(long, default_value_t = 2000)]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Processes.
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
    /// Make what was found small, and write it as a transcript NAME.txt into this folder.
    #[arg(long, value_name = "FOLDER")]
    pub write: Option<PathBuf>,
    /// How long to spend on making one small, in seconds.
    #[arg(long, default_value_t = 60)]
    pub shrink_s: u64,
}

/// The mutation of this name.
pub fn named(name: &str) -> Option<Mutation> {
    Mutation::ALL
        .into_iter()
        .find(|mutation| mutation.name() == name)
}

/// Breaks the named rule in this process's simulations from now on.
///
/// # Errors
/// What to do instead.
pub fn break_rule(name: &str) -> Result<Mutation, String> {
    let Some(mutation) = named(name) else {
        let names: Vec<String> = Mutation::ALL.iter().map(|one| one.name()).collect();
        return Err(format!(
            "there is no mutation {name}; there are: {}",
            names.join(", ")
        ));
    };
    if !cfg!(feature = "mutations") {
        return Err(
            "this build can't break rules: build it with `--features mutations`".to_owned(),
        );
    }
    Ok(mutation)
}

/// Breaks the rule of this name, or none, in this thread.
pub fn turn_on(name: Option<&str>) {
    #[cfg(feature = "mutations")]
    Mutation::turn_on(name.and_then(named));
    let _ = name;
}

#[cfg(not(feature = "mutations"))]
pub fn mutations(_: &Options) -> ExitCode {
    eprintln!(
        "this build can't break rules on purpose; use: cargo run --release -p simulation --features mutations -- mutations"
    );
    ExitCode::from(2)
}

#[cfg(feature = "mutations")]
pub use searching::mutations;

#[cfg(feature = "mutations")]
mod searching {
    use super::{Options, break_rule};
    use crate::commands::failures::{self, Found};
    use isthmus_mutation::Mutation;
    use std::process::{Command, ExitCode, Stdio};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    /// What a search for one came to.
    struct Row {
        mutation: Mutation,
        found: Option<(u64, String, String)>,
        seconds: f64,
    }

    pub fn mutations(options: &Options) -> ExitCode {
        let wanted = match &options.only {
            None => Mutation::ALL.to_vec(),
            Some(name) => match break_rule(name) {
                Ok(mutation) => vec![mutation],
                Err(error) => {
                    eprintln!("{error}");
                    return ExitCode::from(2);
                }
            },
        };
        let next = AtomicUsize::new(0);
        let rows = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..options.jobs.max(1) {
                scope.spawn(|| {
                    while let Some(mutation) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let row = search(*mutation, options);
                        println!("{}", describe(&row, options));
                        write(&row, options);
                        if let Ok(mut rows) = rows.lock() {
                            rows.push(row);
                        }
                    }
                });
            }
        });
        let mut rows = rows.into_inner().unwrap_or_default();
        rows.sort_by_key(|row| row.mutation);
        println!("\n| rule broken on purpose | seeds until it was seen | seen as |");
        println!("| --- | --- | --- |");
        for row in &rows {
            match &row.found {
                Some((seeds, rule, _)) => {
                    println!("| {} | {seeds} | {rule} |", row.mutation.name());
                }
                None => println!("| {} | not in {} | |", row.mutation.name(), options.seeds),
            }
        }
        let missed = rows.iter().filter(|row| row.found.is_none()).count();
        println!("{} of {} were found", rows.len() - missed, rows.len());
        if missed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn search(mutation: Mutation, options: &Options) -> Row {
        let begun = Instant::now();
        let found = search_in_a_process(mutation, options);
        Row {
            mutation,
            found,
            seconds: begun.elapsed().as_secs_f64(),
        }
    }

    fn search_in_a_process(mutation: Mutation, options: &Options) -> Option<(u64, String, String)> {
        let output = Command::new(std::env::current_exe().ok()?)
            .args(["search", "--jobs", "1", "--shrink-s", "0", "--mutation"])
            .arg(mutation.name())
            .args(["--from", &options.from.to_string()])
            .args(["--seeds", &options.seeds.to_string()])
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.contains("BROKE A RULE: "))?;
        let (seed, what) = line.split_once(" BROKE A RULE: ")?;
        let seed: u64 = seed.strip_prefix("seed ")?.parse().ok()?;
        let rule = what.split(':').next().unwrap_or_default();
        Some((seed - options.from + 1, rule.to_owned(), what.to_owned()))
    }

    fn describe(row: &Row, options: &Options) -> String {
        let (name, seconds) = (row.mutation.name(), row.seconds);
        match &row.found {
            Some((seeds, _, what)) => {
                let what: String = what.chars().take(160).collect();
                format!("{name}: found with {seeds} seeds, {seconds:.1} s: {what}")
            }
            None => format!(
                "{name}: NOT FOUND in {} seeds, {seconds:.1} s",
                options.seeds
            ),
        }
    }

    fn write(row: &Row, options: &Options) {
        let (Some((seeds, rule, what)), Some(folder)) = (&row.found, &options.write) else {
            return;
        };
        let found = Found {
            seed: options.from + seeds - 1,
            rule: rule.clone(),
            what: what.clone(),
            mutation: Some(row.mutation.name()),
        };
        let file = folder.join(format!("{}.txt", row.mutation.name()));
        let small = failures::make_small(&found, &file, Duration::from_secs(options.shrink_s));
        match small {
            Ok((before, after)) => println!("{}: {after} of {before} lines left", file.display()),
            Err(error) => println!("{}: {error}", file.display()),
        }
    }
}

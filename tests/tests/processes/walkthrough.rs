//! README's failover walk-through, run as it is written.
//!
//! After a line `<!-- walkthrough: terminal 1 -->` the next fenced block is started and goes on running (it ends with the test);
//! after `<!-- walkthrough -->` the next fenced block is run to its end, with `set -e`; a line of the README that begins with
//! `<!-- walkthrough: expect ` names words that must be in what the last block printed.

use crate::rounds::SOON;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tests::{binaries, patience, tool, turn};

/// A step of the walk-through.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Background(String),
    Run(String),
    Expect(String),
}

fn steps(readme: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        let Some(mark) = line
            .trim()
            .strip_prefix("<!-- walkthrough")
            .and_then(|rest| rest.strip_suffix("-->"))
        else {
            continue;
        };
        if let Some(words) = mark.trim().strip_prefix(": expect ") {
            steps.push(Step::Expect(words.trim().to_owned()));
            continue;
        }
        let block: Vec<&str> = lines
            .by_ref()
            .skip_while(|line| !line.starts_with("```"))
            .skip(1)
            .take_while(|line| !line.starts_with("```"))
            .collect();
        let text = block.join("\n");
        steps.push(if mark.contains("terminal 1") {
            Step::Background(text)
        } else {
            Step::Run(text)
        });
    }
    steps
}

/// A block that goes on running, in a process group of its own; interrupted when dropped.
struct Background(Child);

impl Background {
    fn start(text: &str, log: &std::path::Path) -> Background {
        let log = std::fs::File::create(log).expect("a log in a temporary folder");
        let mut command = Command::new("setsid");
        command
            .args(["bash", "-ec", text])
            .current_dir(binaries::workspace());
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be opened twice"))
            .stderr(log);
        Background(command.spawn().expect("bash is there"))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        // Ctrl-C; cargo and bash pass it on by being in the same group.
        let _ = tool::attempt("kill", &["-INT", "--", &group]);
        if patience::within(SOON, || self.0.try_wait().ok().flatten()).is_none() {
            let _ = tool::attempt("kill", &["-KILL", "--", &group]);
        }
        let _ = self.0.wait();
    }
}

#[test]
fn the_readmes_walk_through_works_as_written() {
    let _turn = turn::take();
    let readme = std::fs::read_to_string(binaries::workspace().join("README.md"))
        .expect("there is a README");
    let steps = steps(&readme);
    assert!(
        steps.iter().any(|step| matches!(step, Step::Run(_))),
        "the README has a walk-through"
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("terminal-1");
    let mut background = Vec::new();
    let mut printed = String::new();
    for step in steps {
        match step {
            Step::Background(text) => {
                background.push(Background::start(&text, &log));
                patience::wait_until(
                    "the first terminal is ready",
                    Duration::from_secs(90),
                    || {
                        std::fs::read_to_string(&log)
                            .ok()?
                            .contains("Ctrl-C")
                            .then_some(())
                    },
                );
            }
            Step::Run(text) => {
                let mut command = tool::command(None, Duration::from_secs(120), "bash");
                let output = command
                    .args(["-ec", &text])
                    .current_dir(binaries::workspace())
                    .output()
                    .expect("bash is there");
                printed = String::from_utf8_lossy(&output.stdout).into_owned();
                let complaints = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{text}\n{printed}{complaints}");
                println!("$ {text}\n{printed}");
            }
            Step::Expect(words) => assert!(printed.contains(&words), "'{words}' in:\n{printed}"),
        }
    }
}

#[test]
fn steps_are_found_in_the_text() {
    let text = "a\n<!-- walkthrough: terminal 1 -->\n```sh\none\n```\n<!-- walkthrough -->\n\n```sh\ntwo\nthree\n```\n\
                <!-- walkthrough: expect some words -->\n```sh\nnot this\n```\n";
    let found = steps(text);
    let expected = [
        Step::Background("one".into()),
        Step::Run("two\nthree".into()),
        Step::Expect("some words".into()),
    ];
    assert_eq!(found, expected);
}

//! README's failover walk-through, run as it stands there: the fenced block after the line `<!-- walkthrough -->`.
//!
//! It runs in a scratch folder with `quickstart` beside it; a `cargo` of its own runs the programs under test, so that no
//! folder of the user's is touched.

use crate::rounds::SOON;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::{binaries, patience, tool, turn};

/// The fenced block after the mark.
fn block(readme: &str) -> Option<String> {
    let (_, rest) = readme.split_once("<!-- walkthrough -->")?;
    let (_, rest) = rest.split_once("```sh\n")?;
    let (block, _) = rest.split_once("```")?;
    Some(block.to_owned())
}

/// A `cargo` that understands `cargo run [-q] --release --bin PROGRAM -- ARGUMENTS`, and notes each process that it becomes.
fn write_cargo(folder: &Path) {
    let binaries = binaries::isthmusd();
    let binaries = binaries
        .parent()
        .expect("the programs are in a folder")
        .display();
    let text = format!(
        "#!/bin/sh\nfound=\nwhile [ $# -gt 0 ] && [ \"$1\" != -- ]; do [ \"$1\" = --bin ] && found=$2; shift; done\n\
         shift\necho $$ >> {}/started\nexec {binaries}/$found \"$@\"\n",
        folder.display()
    );
    let path = folder.join("cargo");
    fs::write(&path, text).expect("a file in a temporary folder");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of our own");
}

/// A shell in the scratch folder that finds our `cargo` first.
fn shell(folder: &Path, limit: Duration, text: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = tool::command(None, limit, "bash");
    command
        .args(["-ec", text])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", folder.display()));
    command
}

/// Ends whatever the walk-through started, quickstart first, whose nodes end with it.
struct Ending<'a>(&'a Path);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let text = fs::read_to_string(self.0.join("started")).unwrap_or_default();
        let started: Vec<Pid> = text
            .lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?))
            .collect();
        for (signal, limit) in [(Signal::TERM, SOON), (Signal::KILL, Duration::from_secs(5))] {
            let ours = || {
                started
                    .iter()
                    .filter(|process| is_ours(**process, self.0))
                    .copied()
                    .collect::<Vec<Pid>>()
            };
            for process in ours() {
                // It may end just now.
                let _ = kill_process(process, signal);
            }
            let _ = patience::within(limit, || ours().is_empty().then_some(()));
        }
    }
}

/// Whether that process id still is a program that was started here: in this folder, and no zombie.
fn is_ours(process: Pid, folder: &Path) -> bool {
    fs::read_link(format!("/proc/{}/cwd", process.as_raw_nonzero()))
        .is_ok_and(|place| place == folder)
}

#[test]
fn the_readmes_walk_through_works_as_written() {
    let _turn = turn::take();
    let readme =
        fs::read_to_string(binaries::workspace().join("README.md")).expect("there is a README");
    let text = block(&readme).expect("the README has a walk-through");
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_cargo(folder.path());
    let ending = Ending(folder.path());
    let log = folder.path().join("quickstart.log");
    let file = File::create(&log).expect("a file in a temporary folder");
    let mut quickstart = shell(
        folder.path(),
        Duration::from_secs(300),
        "exec cargo run --release --bin isthmusd -- quickstart",
    );
    quickstart
        .stdout(file.try_clone().expect("a file can be opened twice"))
        .stderr(file)
        .stdin(Stdio::null());
    let mut quickstart = quickstart.spawn().expect("bash is there");
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let ready = patience::within(SOON, || {
        assert!(
            quickstart
                .try_wait()
                .expect("a child can be waited for")
                .is_none(),
            "quickstart ended: {}",
            said()
        );
        said().contains("Ctrl-C").then_some(())
    });
    assert!(ready.is_some(), "quickstart is not ready: {}", said());
    let output = shell(folder.path(), Duration::from_secs(120), &text)
        .output()
        .expect("bash is there");
    let printed = [&output.stdout[..], &output.stderr[..]]
        .map(String::from_utf8_lossy)
        .concat();
    println!("{printed}");
    assert!(
        output.status.success(),
        "{}\n{printed}\n{}",
        output.status,
        said()
    );
    assert!(
        !printed.contains("Pattern verification failed"),
        "{printed}"
    );
    drop(ending);
    let _ = quickstart.wait();
}

#[test]
fn the_block_after_the_mark_is_the_walk_through() {
    let text = "```sh\nnot this\n```\n<!-- walkthrough -->\n\n```sh\n# two\nthree\n```\n```sh\nnor this\n```\n";
    assert_eq!(block(text).as_deref(), Some("# two\nthree\n"));
    assert_eq!(block("```sh\nnothing marked\n```"), None);
}

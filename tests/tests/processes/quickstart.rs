//! `isthmusd quickstart`, as a user runs it.

use crate::rounds::SOON;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;
use tests::nbd::endpoint::Endpoint;
use tests::{binaries, patience, turn, verify};

/// Ports that this machine's other programs do not usually have.
#[derive(Clone, Copy)]
struct Ports {
    base: u16,
}

impl Ports {
    /// Apart from those of another test process.
    fn own() -> Ports {
        Ports {
            base: 20_000 + (std::process::id() % 1000) as u16 * 10,
        }
    }

    fn arguments(self) -> Vec<String> {
        let flags = [
            "--nbd-port-a",
            "--nbd-port-b",
            "--peer-port-base",
            "--api-port-base",
        ];
        let ports = [self.base, self.base + 1, self.base + 2, self.base + 5];
        flags
            .iter()
            .zip(ports)
            .flat_map(|(flag, port)| [(*flag).to_owned(), port.to_string()])
            .collect()
    }

    fn nbd_a(self) -> Endpoint {
        Endpoint {
            namespace: None,
            address: ([127, 0, 0, 1], self.base).into(),
        }
    }
}

fn command(folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(binaries::isthmusd());
    command
        .arg("quickstart")
        .arg("--data-dir")
        .arg(folder)
        .args(Ports::own().arguments())
        .args(more);
    command.stdin(Stdio::null());
    command
}

/// A running quickstart; stopped when dropped, with its nodes.
struct Quickstart {
    child: Child,
    lines: Receiver<String>,
}

impl Quickstart {
    fn start(folder: &Path, more: &[&str]) -> Quickstart {
        let mut child = command(folder, more)
            .stdout(Stdio::piped())
            .spawn()
            .expect("isthmusd was built");
        let output = child.stdout.take().expect("it is piped");
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody may listen any more.
                let _ = send.send(line);
            }
        });
        Quickstart { child, lines }
    }

    /// What it prints, up to the line with that in it.
    #[track_caller]
    fn until(&self, words: &str) -> String {
        let mut all = String::new();
        loop {
            match self.lines.recv_timeout(SOON) {
                Ok(line) => {
                    all.push_str(&line);
                    all.push('\n');
                    if line.contains(words) {
                        return all;
                    }
                }
                Err(error) => panic!("no line with '{words}' ({error}) in:\n{all}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id() as i32).expect("a process has an id");
        // It may have ended.
        let _ = kill_process(id, signal);
    }

    /// Ctrl-C; its exit code.
    #[track_caller]
    fn stop(mut self) -> Option<i32> {
        self.signal(Signal::INT);
        let ended = patience::wait_until("quickstart ends", SOON, || {
            self.child.try_wait().expect("a child can be waited for")
        });
        ended.code()
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        if patience::within(SOON, || self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn node_process(folder: &Path, name: &str) -> Pid {
    let text = fs::read_to_string(folder.join(format!("{name}.pid")))
        .expect("a node's process id is in its file");
    Pid::from_raw(text.trim().parse().expect("a number")).expect("a process id")
}

fn fails(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.output().expect("isthmusd was built");
    assert!(!status.success());
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(text.trim().lines().count(), 1, "one clear line: {text}");
    text
}

#[test]
fn quickstart_serves_goes_on_with_the_same_data_and_stops_cleanly() {
    let _turn = turn::take();
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("data");
    let more = ["--volume", "demo:1GiB", "--volume", "other:64MiB"];
    let began = Instant::now();
    let quickstart = Quickstart::start(&folder, &more);
    let greeting = quickstart.until("Ctrl-C");
    println!("ready after {:?}", began.elapsed());
    for words in [
        "nbd://127.0.0.1:",
        "site-a",
        "site-b",
        "witness",
        "domain-ctl",
        "demo",
    ] {
        assert!(greeting.contains(words), "'{words}' in:\n{greeting}");
    }
    let mut session = verify::open(&Ports::own().nbd_a(), "demo", SOON);
    assert_eq!(session.bytes, 1 << 30);
    session
        .write(4096, &[0x77; 8192])
        .expect("the volume is served");
    session.close();
    assert_eq!(quickstart.stop(), Some(0));
    for name in ["a1", "b1", "w1"] {
        let alive = rustix::process::test_kill_process(node_process(&folder, name)).is_ok();
        assert!(!alive, "{name} was left behind");
    }

    let began = Instant::now();
    let quickstart = Quickstart::start(&folder, &more);
    quickstart.until("Ctrl-C");
    println!("ready again after {:?}", began.elapsed());
    let mut session = verify::open(&Ports::own().nbd_a(), "demo", SOON);
    let mut data = vec![0; 8192];
    session.read(4096, &mut data).expect("the volume is served");
    assert!(
        data.iter().all(|byte| *byte == 0x77),
        "the data are the same as before"
    );
    assert_eq!(
        verify::open(&Ports::own().nbd_a(), "other", SOON).bytes,
        64 << 20
    );
    session.close();

    let said = fails(command(&folder, &[]));
    assert!(
        said.contains("use") || said.contains("runs"),
        "a second quickstart says what is in its way: {said}"
    );
    assert_eq!(quickstart.stop(), Some(0));
}

#[test]
fn a_node_that_dies_is_reported_and_can_be_started_alone() {
    let _turn = turn::take();
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("data");
    let quickstart = Quickstart::start(&folder, &[]);
    quickstart.until("Ctrl-C");
    kill_process(node_process(&folder, "b1"), Signal::KILL).expect("b1 runs");
    let said = quickstart.until("b1");
    assert!(said.contains("ended"), "{said}");
    let mut alone = Command::new(binaries::isthmusd())
        .args(["run", "--config"])
        .arg(folder.join("b1.toml"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("isthmusd was built");
    let endpoint = Endpoint {
        namespace: None,
        address: ([127, 0, 0, 1], Ports::own().base + 1).into(),
    };
    verify::open(&endpoint, "demo", SOON).close();
    let id = Pid::from_raw(alone.id() as i32).expect("a process has an id");
    kill_process(id, Signal::TERM).expect("it runs");
    let ended = patience::wait_until("the node ends", SOON, || {
        alone.try_wait().expect("a child can be waited for")
    });
    assert_eq!(ended.code(), Some(0));
    assert_eq!(quickstart.stop(), Some(0));
}

#[test]
fn what_is_in_quickstarts_way_is_said_in_one_line_and_left_alone() {
    let _turn = turn::take();
    let parent = tempfile::tempdir().expect("a temporary folder");
    let foreign = parent.path().join("foreign");
    fs::create_dir(&foreign).expect("a folder");
    fs::write(foreign.join("thesis.txt"), "years of work").expect("a file");
    let said = fails(command(&foreign, &[]));
    assert!(said.contains("foreign"), "{said}");
    assert_eq!(
        fs::read_dir(&foreign).expect("a folder").count(),
        1,
        "nothing was added or taken away"
    );

    let folder = parent.path().join("data");
    let taken = TcpListener::bind(("127.0.0.1", Ports::own().base)).expect("the port is free");
    let said = fails(command(&folder, &[]));
    assert!(
        said.contains(&Ports::own().base.to_string()) && said.contains("--nbd-port-a"),
        "{said}"
    );
    drop(taken);

    let said = fails(command(&folder, &["--volume", "no/name:1GiB"]).also_one_line());
    assert!(!said.is_empty());
}

trait AlsoOneLine {
    fn also_one_line(self) -> Command;
}

impl AlsoOneLine for Command {
    /// clap's usage errors have several lines; only the first is of interest.
    fn also_one_line(self) -> Command {
        let mut shell = Command::new("sh");
        let words: Vec<String> = std::iter::once(self.get_program())
            .chain(self.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        shell
            .args(["-c", "\"$@\" 2>&1 >/dev/null | head -n 1 >&2; exit 1", "sh"])
            .args(words);
        shell
    }
}

#[test]
fn a_full_disk_is_said_in_one_line() {
    let _turn = turn::take();
    let parent = tempfile::tempdir().expect("a temporary folder");
    let small = parent.path().join("small");
    fs::create_dir(&small).expect("a folder");
    tests::tool::run(
        "mount",
        &[
            "-t",
            "tmpfs",
            "-o",
            "size=64m",
            "tmpfs",
            small.to_str().expect("a plain path"),
        ],
    );
    let output = command(&small.join("data"), &[]).output();
    let mut left = Vec::new();
    let _ =
        fs::File::open(small.join("data/a1.log")).and_then(|mut log| log.read_to_end(&mut left));
    tests::tool::run("umount", &["-l", small.to_str().expect("a plain path")]);
    let output = output.expect("isthmusd was built");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.trim().lines().count(), 1, "one clear line: {said}");
    assert!(
        said.to_lowercase().contains("space"),
        "{said}\n{}",
        String::from_utf8_lossy(&left)
    );
}

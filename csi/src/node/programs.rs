//! Runs the system's programs (mkfs, mount …), each with an end to its time.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tonic::Status;

/// The volume's I/O may pause meanwhile.
const LIMIT: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes of what a program says that are kept.
const SAID_BYTES_MAX: u64 = 16 << 10;

/// What came of a program.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it printed to standard output.
    pub out: String,
    /// What it complained.
    pub complaints: String,
}

/// Runs a program to its end, whatever that is.
///
/// # Errors
/// INTERNAL when it can't be run, DEADLINE_EXCEEDED when it takes too long.
pub fn attempt(program: &str, arguments: &[&str]) -> Result<Ended, Status> {
    let failed = |error: std::io::Error| {
        Status::internal(format!(
            "{program} can't be run on this node: {error}; install it (packages util-linux, mount, e2fsprogs, xfsprogs)"
        ))
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let out = child.stdout.take().map(listen);
    let complaints = child.stderr.take().map(listen);
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if Instant::now() > end {
            // It may not hear it while the kernel has it; nobody waits for that.
            let _ = child.kill();
            return Err(Status::deadline_exceeded(format!(
                "{program} did not end within {LIMIT:?}"
            )));
        }
        thread::sleep(PAUSE);
    };
    let said = |listener: Option<thread::JoinHandle<String>>| {
        listener
            .and_then(|listener| listener.join().ok())
            .unwrap_or_default()
    };
    Ok(Ended {
        code: status.code(),
        out: said(out),
        complaints: said(complaints),
    })
}

/// Runs a program that has to succeed; what it printed.
///
/// # Errors
/// INTERNAL with its complaints.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, Status> {
    let ended = attempt(program, arguments)?;
    if ended.code == Some(0) {
        return Ok(ended.out);
    }
    Err(Status::internal(ended.told(program)))
}

impl Ended {
    /// What happened, in one sentence.
    pub fn told(&self, program: &str) -> String {
        let how = self
            .code
            .map_or("by a signal".to_owned(), |code| format!("with {code}"));
        format!(
            "{program} ended {how}: {} {}",
            self.complaints.trim(),
            self.out.trim()
        )
    }
}

fn listen(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut said = Vec::new();
        // What can't be read was not said; the rest is let run out, so that the program does not wait.
        let _ = pipe.by_ref().take(SAID_BYTES_MAX).read_to_end(&mut said);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        String::from_utf8_lossy(&said).into_owned()
    })
}

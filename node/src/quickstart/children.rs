//! The nodes as child processes.

use crate::logging::LogFormat;
use anyhow::Context;
use isthmus_config::Config;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// How long a node may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Where the last line of a log is looked for.
const TAIL_BYTES: u64 = 4096;

/// A node that has ended.
pub struct Ended {
    /// Its name.
    pub name: String,
    /// How, in words.
    pub how: String,
}

/// The nodes that run.
pub struct Children {
    processes: Vec<(String, rustix::process::Pid)>,
    ends: mpsc::Receiver<Ended>,
}

impl Children {
    /// Starts a node for each configuration; each writes `<name>.log`, and its process id is in `<name>.pid`.
    ///
    /// # Errors
    /// When one can't be started; those that were are stopped.
    pub fn start(folder: &Path, configs: &[Config], format: LogFormat) -> anyhow::Result<Children> {
        let (end, ends) = mpsc::channel(configs.len().max(1));
        let mut children = Children {
            processes: Vec::new(),
            ends,
        };
        for config in configs {
            match spawn(folder, &config.node, format) {
                Ok((child, id)) => {
                    children.processes.push((config.node.clone(), id));
                    tokio::spawn(watch(config.node.clone(), child, end.clone()));
                }
                Err(error) => {
                    children.signal(rustix::process::Signal::TERM);
                    return Err(error.context(format!("can't start {}", config.node)));
                }
            }
        }
        Ok(children)
    }

    /// Whether any still runs.
    pub fn any(&self) -> bool {
        !self.processes.is_empty()
    }

    /// The next node that ends; never, when none runs.
    pub async fn ended(&mut self) -> Ended {
        let Some(ended) = self.ends.recv().await else {
            return std::future::pending().await;
        };
        self.processes.retain(|(name, _)| *name != ended.name);
        ended
    }

    /// Stops all: politely, then by force.
    pub async fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        let all = async {
            while self.any() {
                self.ended().await;
            }
        };
        if tokio::time::timeout(STOP_WITHIN, all).await.is_err() {
            self.signal(rustix::process::Signal::KILL);
            while self.any() {
                self.ended().await;
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        for (_, id) in &self.processes {
            // It may have ended just now, and is not yet reaped: then this does nothing.
            let _ = rustix::process::kill_process(*id, signal);
        }
    }
}

fn spawn(
    folder: &Path,
    name: &str,
    format: LogFormat,
) -> anyhow::Result<(Child, rustix::process::Pid)> {
    let log = folder.join(format!("{name}.log"));
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("can't open {}", log.display()))?;
    let child =
        Command::new(std::env::current_exe().context("this program's own path is not known")?)
            .args(["--log-format", format.as_str(), "run", "--config"])
            .arg(folder.join(format!("{name}.toml")))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0) // Ctrl-C is for quickstart, which then stops the nodes in order.
            .spawn()?;
    let id = child
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?))
        .context("it has no process id")?;
    let pid = folder.join(format!("{name}.pid"));
    fs::write(&pid, format!("{}\n", id.as_raw_nonzero()))
        .with_context(|| format!("can't write {}", pid.display()))?;
    Ok((child, id))
}

async fn watch(name: String, mut child: Child, end: mpsc::Sender<Ended>) {
    let how = match child.wait().await {
        Ok(status) => words(status),
        Err(error) => error.to_string(),
    };
    // Nobody listens any more when quickstart itself ends.
    let _ = end.send(Ended { name, how }).await;
}

fn words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// One line about a node that has ended, with the last line of its log.
pub fn ended_text(folder: &Path, ended: &Ended) -> String {
    let log = folder.join(format!("{}.log", ended.name));
    let last = match last_line(&log) {
        Some(line) => format!("; its last words: {line}"),
        None if is_full(folder) => format!(
            "; its disk has no space left, not even for its log: make room under {}",
            folder.display()
        ),
        None => String::new(),
    };
    format!(
        "node {} has ended ({}){last}; its log is {}",
        ended.name,
        ended.how,
        log.display()
    )
}

/// Whether the disk that holds the folder has no room for another line.
fn is_full(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|disk| disk.f_bavail == 0)
}

fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .map(str::to_owned)
}

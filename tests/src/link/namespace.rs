//! Network namespaces: made, entered, removed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

const FOLDER: &str = "/run/netns";
const PREFIX: &str = "isthmus-test-";

/// A network namespace, removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace for a node of this process's test, and removes those that killed tests left behind.
    ///
    /// # Errors
    /// Not root, or no `ip`.
    pub fn create(node: &str) -> io::Result<Namespace> {
        remove_stale();
        let name = format!("{PREFIX}{}-{node}", std::process::id());
        // An earlier test of this process may not have got to removing it.
        let _ = ip(&["netns", "del", &name]);
        ip(&["netns", "add", &name])?;
        let namespace = Namespace { name };
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next test.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Runs `ip`.
///
/// # Errors
/// It can't be run or fails; with what it said.
pub fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "ip {}: {}",
        arguments.join(" "),
        said.trim()
    )))
}

/// Runs `act` in a namespace, on a thread of its own.
///
/// # Errors
/// There is no such namespace.
///
/// # Panics
/// When `act` does.
pub fn within<T: Send>(name: &str, act: impl FnOnce() -> T + Send) -> io::Result<T> {
    let folder = PathBuf::from(FOLDER).join(name);
    let entered = File::open(folder)?;
    let on_thread = move || -> io::Result<T> {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&entered), kind)?;
        Ok(act())
    };
    thread::scope(|scope| match scope.spawn(on_thread).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn remove_stale() {
    let Ok(entries) = fs::read_dir(FOLDER) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(process) = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        if !Path::new("/proc").join(process).exists() {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

//! One node's process.

use crate::binaries;
use crate::patience;
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Of Debian's package `libfaketime`; the loader knows what `$LIB` is here.
const FAKE_TIME: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";

/// Where a node finds which run of its machine's kernel it lives in: here each node is a machine of its own.
fn boot_file(folder: &Path, node: &str) -> PathBuf {
    folder.join(format!("{node}.boot"))
}

/// Boots a node's machine for the `count`th time.
///
/// # Panics
/// When the cluster's folder can't be written.
pub fn boot(folder: &Path, node: &str, machine: u32, count: u32) {
    let id = format!("{machine:016x}{count:016x}\n");
    fs::write(boot_file(folder, node), id).expect("a file in the cluster's folder");
}

/// A process that was started and not yet waited for; killed when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts `isthmusd run` for a node; its log goes to the end of `<node>.log`. With a file `clock`, its wall clock (and no
    /// other one) is off by what that file says at any time: `libfaketime` answers for the C library's `clock_gettime`.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(
        folder: &Path,
        node: &str,
        namespace: Option<&str>,
        clock: Option<&Path>,
    ) -> Process {
        let log = folder.join(format!("{node}.log"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log in the cluster's folder");
        let mut command = match namespace {
            None => Command::new(binaries::isthmusd()),
            Some(namespace) => {
                // nsenter becomes the node: the process id is the node's.
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net=/run/netns/{namespace}"))
                    .arg(binaries::isthmusd());
                command
            }
        };
        command
            .arg("run")
            .arg("--config")
            .arg(folder.join(format!("{node}.toml")));
        command.env("ISTHMUS_BOOT_ID_FILE", boot_file(folder, node));
        if let Some(clock) = clock {
            command
                .env("LD_PRELOAD", FAKE_TIME)
                .env("FAKETIME_TIMESTAMP_FILE", clock)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("FAKETIME_DONT_RESET", "1");
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be opened twice"))
            .stderr(log);
        Process(
            command
                .spawn()
                .expect("isthmusd was built and can be started"),
        )
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal. One that has ended takes none, and that is no fault.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // It is not yet waited for, so the id is still its own.
        let _ = id.map(|id| kill_process(id, signal));
    }

    /// Waits for its end; its exit code, none when a signal ended it.
    ///
    /// # Panics
    /// When it does not end within `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let ended = patience::within(limit, || {
            self.0.try_wait().expect("a child can be waited for")
        });
        ended
            .unwrap_or_else(|| panic!("process {} did not end within {limit:?}", self.0.id()))
            .code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

//! Attachments: a volume as a block device of this machine.
//!
//! The kernel's own NBD client would be the shortest way; this driver does not speak its netlink interface yet. So a process of its
//! own, `isthmus-csi attach`, serves the volume as one file by FUSE ([`export`]) from the NBD server of the local node ([`requests`],
//! [`nbd`]), and a loop device ([`loop_device`]) makes a block device of it. That process outlives the driver's, and waits
//! through restarts of `isthmusd`: I/O pauses meanwhile.
//!
//! Nothing is written down: what is attached is asked of the kernel (mounts, loop devices, a lock that only a living process holds).
//!
//! An attachment is of *one* publication. After each interruption the process asks the cluster whether the volume is still the one that was
//! published to this node at that time; if it was unpublished meanwhile, another node may have written to it, and all that waits here
//! fails instead of being written over that.

pub mod export;
pub mod loop_device;
pub mod nbd;
pub mod process;
pub mod requests;

use crate::node::mounts;
use loop_device::LoopDevice;
use rustix::fs::FlockOperation;
use rustix::mount::UnmountFlags;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long a volume may take until it can be opened: the local replica may have to be made, or to be promoted.
const OPEN_LIMIT: Duration = Duration::from_secs(20);
/// How long an attachment may take to begin, or to end.
const PROCESS_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// Why something was not attached or detached.
#[derive(Debug)]
pub enum AttachError {
    /// The local node does not serve the volume now.
    NotServed(String),
    /// Something of this machine does not work.
    System(String),
}

/// What to attach.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The volume.
    pub volume: &'a str,
    /// This node's name.
    pub node: &'a str,
    /// Its NBD server.
    pub nbd: &'a str,
    /// Since when it is published to this node.
    pub since_ms: u64,
}

/// The attachments of this machine.
#[derive(Debug)]
pub struct Attachments {
    /// Holds a folder for each.
    pub folder: PathBuf,
    /// Words before the command that starts an attachment's process.
    pub launcher: Vec<String>,
    /// The program that it runs.
    pub program: PathBuf,
    /// The cluster's API.
    pub api: Vec<String>,
}

impl Attachments {
    fn mount_point(&self, volume: &str) -> PathBuf {
        self.folder.join(volume)
    }

    fn file(&self, volume: &str) -> PathBuf {
        self.mount_point(volume).join(export::FILE)
    }

    fn lock(&self, volume: &str) -> PathBuf {
        self.folder.join(format!("{volume}.lock"))
    }

    /// The volume's block device, if it is attached.
    pub fn device(&self, volume: &str) -> Result<Option<LoopDevice>, AttachError> {
        LoopDevice::of(&self.file(volume)).map_err(|error| system("loop devices", &error))
    }

    /// Whether the process behind an attachment lives.
    pub fn lives(&self, volume: &str) -> bool {
        fs::metadata(self.file(volume)).is_ok_and(|file| file.is_file())
    }

    /// Attaches a volume, or finds it attached; whether it was.
    pub fn attach(&self, wanted: &Wanted<'_>) -> Result<(LoopDevice, bool), AttachError> {
        let volume = wanted.volume;
        if let Some(device) = self.device(volume)? {
            if self.lives(volume) {
                return Ok((device, true));
            }
            warn!(
                volume,
                "the process of this attachment is gone: attaching anew"
            );
            self.detach(volume)?;
        }
        let block_bytes = self.wait_until_served(wanted)?;
        if !self.lives(volume) {
            self.clear(volume)?;
            self.start(wanted)?;
        }
        let device = LoopDevice::over(&self.file(volume), block_bytes)
            .map_err(|error| system("a loop device", &error))?;
        info!(volume, device = %device.path().display(), "attached by FUSE and a loop device");
        Ok((device, false))
    }

    /// Asks the node for the volume, as the attachment will: its refusal says why, better than a process that ends.
    fn wait_until_served(&self, wanted: &Wanted<'_>) -> Result<u32, AttachError> {
        let end = Instant::now() + OPEN_LIMIT;
        loop {
            match nbd::open(wanted.nbd, wanted.volume) {
                Ok((mut stream, export)) => {
                    let goodbye = nbd::header(nbd::command::DISCONNECT, 0, 0, 0, 0);
                    // The connection ends either way.
                    let _ = io::Write::write_all(&mut stream, &goodbye);
                    return Ok(export.block_bytes.clamp(512, 4096));
                }
                Err(error) if Instant::now() > end => {
                    return Err(AttachError::NotServed(format!(
                        "volume {} can't be opened at node {}: {error}",
                        wanted.volume, wanted.node
                    )));
                }
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    fn start(&self, wanted: &Wanted<'_>) -> Result<(), AttachError> {
        let volume = wanted.volume;
        let folder = self.mount_point(volume);
        fs::create_dir_all(&folder).map_err(|error| system("the attachment's folder", &error))?;
        let mut words = self
            .launcher
            .iter()
            .map(|word| word.replace("{volume}", volume));
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command
            .arg("attach")
            .args([
                "--volume",
                volume,
                "--node",
                wanted.node,
                "--nbd",
                wanted.nbd,
            ])
            .arg("--at")
            .arg(&folder)
            .arg("--lock")
            .arg(self.lock(volume))
            .args(["--published-since", &wanted.since_ms.to_string()])
            .args(["--api", &self.api.join(",")]);
        // Signals to the driver's process group are not for it.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command
            .spawn()
            .map_err(|error| system("the attachment's process", &error))?;
        let end = Instant::now() + PROCESS_LIMIT;
        while !self.lives(volume) {
            match child.try_wait() {
                // A launcher may end well as soon as it has launched.
                Ok(Some(status)) if !status.success() || self.launcher.is_empty() => {
                    return Err(AttachError::System(format!(
                        "the process that attaches {volume} ended ({status}); its log says why"
                    )));
                }
                Ok(_) => {}
                Err(error) => return Err(system("the attachment's process", &error)),
            }
            if Instant::now() > end {
                // It can't be left to succeed when nobody waits any more. One that has ended takes no signal.
                let _ = child.kill();
                let _ = child.wait();
                return Err(AttachError::System(format!(
                    "the process that attaches {volume} did not begin within {PROCESS_LIMIT:?}"
                )));
            }
            thread::sleep(PAUSE);
        }
        // Somebody has to take notice of its end, or it stays a zombie.
        let waiting = thread::Builder::new().name("attachment".to_owned());
        waiting
            .spawn(move || child.wait())
            .map_err(|error| system("a thread", &error))?;
        Ok(())
    }

    /// Lets the device have the volume's size, which is at least so many bytes now.
    pub fn grow(&self, volume: &str, bytes: u64) -> Result<(), AttachError> {
        let Some(device) = self.device(volume)? else {
            return Err(AttachError::System(format!("{volume} is not attached")));
        };
        let grown = File::options()
            .write(true)
            .open(self.file(volume))
            .and_then(|file| file.set_len(bytes))
            .and_then(|()| device.take_size());
        grown.map_err(|error| system("the device's new size", &error))
    }

    /// Detaches a volume; nothing may use its device any more.
    pub fn detach(&self, volume: &str) -> Result<(), AttachError> {
        if let Some(device) = self.device(volume)? {
            match device.free() {
                // Nothing that a dead attachment still holds can be made durable.
                Err(error) if self.lives(volume) => return Err(system("the loop device", &error)),
                Err(error) => warn!(volume, %error, "what was not written is lost"),
                Ok(()) => {}
            }
        }
        self.clear(volume)
    }

    /// Ends the process, and leaves nothing behind.
    fn clear(&self, volume: &str) -> Result<(), AttachError> {
        let folder = self.mount_point(volume);
        let end = Instant::now() + PROCESS_LIMIT;
        while mounts::is_mount_point(&folder) {
            match rustix::mount::unmount(&folder, UnmountFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(rustix::io::Errno::BUSY) if Instant::now() < end => thread::sleep(PAUSE),
                Err(error) => return Err(system("the attachment's folder", &error.into())),
            }
        }
        self.wait_for_the_lock(volume, end)?;
        for path in [&folder, &self.lock(volume)] {
            let removed = if path.is_dir() {
                fs::remove_dir(path)
            } else {
                fs::remove_file(path)
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(system("the attachment's folder", &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The process holds it to its very end.
    fn wait_for_the_lock(&self, volume: &str, end: Instant) -> Result<(), AttachError> {
        let path = self.lock(volume);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(system("the attachment's lock", &error)),
        };
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => {
                    thread::sleep(PAUSE);
                }
                Err(error) => {
                    return Err(AttachError::System(format!(
                        "the process that attaches {volume} does not end: {error}"
                    )));
                }
            }
        }
    }
}

fn system(what: &str, error: &io::Error) -> AttachError {
    AttachError::System(format!("{what}: {error}"))
}

/// Whether the kernel has an NBD client of its own.
pub fn kernel_has_nbd() -> bool {
    Path::new("/sys/module/nbd").exists()
}

//! A mounted [`LossyDisk`]: the threads that answer the kernel, and the test's hand on the power switch.

use crate::lossy::faults::Faults;
use crate::lossy::model::{Lost, Model};
use crate::lossy::protocol::{self, HEAD_BYTES, WRITE_BYTES_MAX};
use crate::lossy::serving::{Power, Served};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// As many requests wait at the same time, for a slow disk or for power; the others wait in the kernel.
const THREADS: usize = 8;
const SOURCE: &str = "isthmus-lossy-";

/// A mounted file system, unmounted when dropped.
pub struct LossyDisk {
    served: Arc<Served>,
    folder: PathBuf,
    threads: Vec<JoinHandle<()>>,
}

impl LossyDisk {
    /// Mounts an empty file system of that many bytes over a folder, which is made if need be. What killed tests left mounted
    /// goes.
    ///
    /// # Errors
    /// Not root, or no FUSE here.
    pub fn mount(folder: &Path, bytes: u64) -> io::Result<LossyDisk> {
        unmount_stale();
        fs::create_dir_all(folder)?;
        let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let device = Arc::new(File::from(device));
        let number = std::os::fd::AsRawFd::as_raw_fd(&*device);
        let source = format!("{SOURCE}{}", std::process::id());
        let options = format!(
            "fd={number},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
        );
        let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
        mount(
            source,
            folder,
            "fuse",
            MountFlags::NOSUID | MountFlags::NODEV,
            Some(options.as_c_str()),
        )?;
        let served = Arc::new(Served::new(Model::new(bytes)));
        let answering = |_| {
            let (device, served) = (Arc::clone(&device), Arc::clone(&served));
            thread::spawn(move || answer(&device, &served))
        };
        Ok(LossyDisk {
            threads: (0..THREADS).map(answering).collect(),
            served,
            folder: folder.to_owned(),
        })
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.served.set_faults(faults);
    }

    /// How many actions failed by [`LossyDisk::set_faults`] so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.served.state().refused
    }

    /// Leaves so many bytes free, from now on.
    pub fn set_free(&self, bytes: u64) {
        self.served.state().model.set_free(bytes);
    }

    /// Bytes that are free.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.served.state().model.space().1 * crate::lossy::content::PAGE_BYTES
    }

    /// The power goes by itself after so many changes more.
    pub fn power_off_after(&self, changes: u64) {
        let mut state = self.served.state();
        state.last_change = Some(state.model.order() + changes);
    }

    /// Whether it has power.
    #[must_use]
    pub fn has_power(&self) -> bool {
        self.served.state().power == Power::On
    }

    /// The power goes: nothing changes any more, and nobody gets an answer.
    pub fn power_off(&self) {
        self.served.set_power(Power::Off);
    }

    /// Lets those go who wait for an answer. To be said when all of them are killed: what they get is an error that no disk
    /// without power could give.
    pub fn let_go(&self) {
        self.served.set_power(Power::Dead);
    }

    /// The power is back; what was not synced is there or not, as the seed says.
    pub fn power_on(&self, seed: u64) -> Lost {
        let mut state = self.served.state();
        let lost = state.model.cut(seed);
        state.last_change = None;
        drop(state);
        self.served.set_power(Power::On);
        lost
    }

    /// The places in files below a path where these bytes are.
    #[must_use]
    pub fn find(&self, below: &str, bytes: &[u8]) -> Vec<(String, u64)> {
        let state = self.served.state();
        let files = state.model.files().into_iter();
        let mut found = Vec::new();
        for (path, inode) in files.filter(|(path, _)| path.starts_with(below)) {
            let all = state.model.read(inode, 0, u64::MAX / 2).unwrap_or_default();
            // What we look for begins at a sector.
            for at in (0..all.len()).step_by(512) {
                if all[at..].starts_with(bytes) {
                    found.push((path.clone(), at as u64));
                }
            }
        }
        found
    }

    /// A file's bytes.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn read(&self, path: &str) -> Vec<u8> {
        let state = self.served.state();
        let inode = state.model.at(path);
        inode
            .and_then(|inode| state.model.read(inode, 0, u64::MAX / 2).ok())
            .unwrap_or_else(|| panic!("there is no file {path}"))
    }

    /// The paths of all files.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let files = self.served.state().model.files();
        files.into_iter().map(|(path, _)| path).collect()
    }

    /// Turns one bit over, on the medium itself.
    ///
    /// # Panics
    /// When there is no such file, or it does not reach there.
    pub fn flip(&self, path: &str, offset: u64, bit: u8) {
        let mut state = self.served.state();
        let inode = state.model.at(path);
        inode
            .and_then(|inode| state.model.flip(inode, offset, bit).ok())
            .unwrap_or_else(|| panic!("there is no file {path}"));
    }
}

impl Drop for LossyDisk {
    fn drop(&mut self) {
        // Whoever still waits is let go, or the threads here would wait for power for ever.
        self.served.set_power(Power::Dead);
        // One that is in use goes when it is not any more.
        let _ = unmount(&self.folder, UnmountFlags::DETACH);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Answers the kernel until the file system is unmounted.
fn answer(mut device: &File, served: &Served) {
    let mut buffer = vec![0; WRITE_BYTES_MAX as usize + HEAD_BYTES + 4096];
    loop {
        let length = match device.read(&mut buffer) {
            Ok(length) => length,
            Err(error) => match Errno::from_io_error(&error) {
                // The one who asked is gone, or a signal came.
                Some(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
                _ => return,
            },
        };
        let Some(request) = protocol::decode(&buffer[..length]) else {
            continue;
        };
        if let Some(answer) = served.serve(request) {
            // Nobody may be waiting for it any more.
            let _ = device.write_all(&answer);
        }
    }
}

/// Unmounts what belongs to processes that are gone.
fn unmount_stale() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(source), Some(folder)) = (words.next(), words.next()) else {
            continue;
        };
        if let Some(process) = source.strip_prefix(SOURCE)
            && !Path::new("/proc").join(process).exists()
        {
            let _ = unmount(folder, UnmountFlags::DETACH);
        }
    }
}

#[cfg(test)]
mod tests;

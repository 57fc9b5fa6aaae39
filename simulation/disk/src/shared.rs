//! A disk that outlives who uses it.

use crate::disk::SimulatedDisk;
use isthmus_journal::{Disk, DiskBusy, DiskOp, Done, FileId, OpId};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// A simulated disk that can be looked at, broken and used again while somebody has it, or had it. Clones are the same one.
#[derive(Clone)]
pub struct SharedDisk(Arc<Mutex<SimulatedDisk>>);

impl SharedDisk {
    /// An empty one.
    #[must_use]
    pub fn new(seed: u64) -> SharedDisk {
        SharedDisk(Arc::new(Mutex::new(SimulatedDisk::new(seed))))
    }

    /// As [`SimulatedDisk::crash`], and used anew.
    pub fn crash(&self) {
        let mut disk = self.0.lock();
        disk.crash();
        disk.reopen();
    }

    /// As [`SimulatedDisk::replace_folder`].
    pub fn replace_folder(&self, from: &str, to: &str) {
        self.0.lock().replace_folder(from, to);
    }

    /// Turns one bit of the file.
    pub fn damage(&self, path: &str) {
        self.0.lock().flip_bit(path, 40, 3);
    }

    /// As [`SimulatedDisk::fail_writes`].
    pub fn fail_writes(&self, path: &str) {
        self.0.lock().fail_writes(path);
    }
}

impl Disk for SharedDisk {
    fn open(&mut self, path: &str) -> io::Result<FileId> {
        self.0.lock().open(path)
    }
    fn create(&mut self, path: &str, bytes: u64, reserve: bool) -> io::Result<FileId> {
        self.0.lock().create(path, bytes, reserve)
    }
    fn resize(&mut self, file: FileId, bytes: u64, reserve: bool) -> io::Result<()> {
        self.0.lock().resize(file, bytes, reserve)
    }
    fn reserve(&mut self, file: FileId, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.lock().reserve(file, offset, bytes)
    }
    fn length(&mut self, file: FileId) -> io::Result<u64> {
        self.0.lock().length(file)
    }
    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.0.lock().remove(path)
    }
    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        self.0.lock().list(folder)
    }
    fn read_now(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.lock().read_now(file, offset, buffer)
    }
    fn write_now(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().write_now(file, offset, data)
    }
    fn submit(&mut self, id: OpId, op: DiskOp) -> Result<(), DiskBusy> {
        self.0.lock().submit(id, op)
    }
    fn completed(&mut self, out: &mut Vec<(OpId, io::Result<Done>)>) {
        self.0.lock().completed(out);
    }
}

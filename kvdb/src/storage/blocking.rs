//! A disk whose operations have completed when they are submitted: the thread that owns it has nothing else to do.

use isthmus_journal::{Disk, DiskBusy, DiskOp, Done, FileId, OpId};
use std::io;

/// A disk, and the completions of what was submitted to it.
pub(super) struct Blocking<D> {
    disk: D,
    done: Vec<(OpId, io::Result<Done>)>,
}

impl<D: Disk> Blocking<D> {
    pub(super) fn new(disk: D) -> Blocking<D> {
        Blocking {
            disk,
            done: Vec::new(),
        }
    }

    fn run(&mut self, op: DiskOp) -> io::Result<Done> {
        match op {
            DiskOp::Read {
                file,
                offset,
                length,
            } => {
                let mut buffer = vec![0; length];
                self.disk.read_now(file, offset, &mut buffer)?;
                Ok(Done::Read(buffer.into()))
            }
            DiskOp::Write {
                file,
                offset,
                parts,
                durable: _,
            } => {
                self.disk.write_now(file, offset, &parts.concat())?;
                Ok(Done::Finished)
            }
            // Every write was durable before it completed.
            DiskOp::Sync { .. } => Ok(Done::Finished),
            DiskOp::Punch {
                file,
                offset,
                length,
            } => {
                let length = usize::try_from(length).map_err(io::Error::other)?;
                self.disk.write_now(file, offset, &vec![0; length])?;
                Ok(Done::Finished)
            }
        }
    }
}

impl<D: Disk> Disk for Blocking<D> {
    fn open(&mut self, path: &str) -> io::Result<FileId> {
        self.disk.open(path)
    }
    fn create(&mut self, path: &str, bytes: u64, reserve: bool) -> io::Result<FileId> {
        self.disk.create(path, bytes, reserve)
    }
    fn resize(&mut self, file: FileId, bytes: u64, reserve: bool) -> io::Result<()> {
        self.disk.resize(file, bytes, reserve)
    }
    fn reserve(&mut self, file: FileId, offset: u64, bytes: u64) -> io::Result<()> {
        self.disk.reserve(file, offset, bytes)
    }
    fn length(&mut self, file: FileId) -> io::Result<u64> {
        self.disk.length(file)
    }
    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }
    fn read_now(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_now(file, offset, buffer)
    }
    fn write_now(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write_now(file, offset, data)
    }
    fn submit(&mut self, id: OpId, op: DiskOp) -> Result<(), DiskBusy> {
        let result = self.run(op);
        self.done.push((id, result));
        Ok(())
    }
    fn completed(&mut self, out: &mut Vec<(OpId, io::Result<Done>)>) {
        out.append(&mut self.done);
    }
}

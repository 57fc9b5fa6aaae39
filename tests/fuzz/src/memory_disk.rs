//! A disk in memory without faults: an operation has taken effect when it is submitted. The simulated disk would do as well, but
//! a case in which nothing can tear need not pay for layers of unsynced writes.

use bytes::Bytes;
use isthmus_journal::{Disk, DiskBusy, DiskOp, Done, FileId, OpId};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

#[derive(Clone, Debug, Default)]
struct File {
    length: u64,
    /// Pages that are not all zero; shared with clones of the disk.
    pages: BTreeMap<u64, Arc<Page>>,
}

/// The disk. A clone is cheap, and changes on its own.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    files: BTreeMap<String, File>,
    open: BTreeMap<FileId, String>,
    opened: u32,
    done: Vec<(OpId, Done)>,
}

impl MemoryDisk {
    /// The numbers of a file's pages that hold something, and those pages.
    #[must_use]
    pub fn pages(&self, path: &str) -> Vec<(u64, Vec<u8>)> {
        let pages = self.files.get(path).map(|file| &file.pages);
        pages
            .into_iter()
            .flatten()
            .map(|(number, page)| (*number, page.to_vec()))
            .collect()
    }

    /// Forgets what its last user had open or under way, as a crash does. What was written stays.
    pub fn restart(&mut self) {
        self.open.clear();
        self.done.clear();
    }

    /// Puts a file there, of this length and all zeroes.
    pub fn put(&mut self, path: &str, length: u64) {
        let file = File {
            length,
            pages: BTreeMap::new(),
        };
        self.files.insert(path.to_owned(), file);
    }

    /// Writes to a file that is there; what goes past its end is left out.
    pub fn write(&mut self, path: &str, offset: u64, bytes: &[u8]) {
        if let Some(file) = self.files.get_mut(path) {
            let room = usize::try_from(file.length.saturating_sub(offset)).unwrap_or(usize::MAX);
            file.write(offset, &bytes[..bytes.len().min(room)]);
        }
    }

    /// The length of a file.
    #[must_use]
    pub fn length_of(&self, path: &str) -> Option<u64> {
        self.files.get(path).map(|file| file.length)
    }

    fn file(&mut self, id: FileId) -> io::Result<&mut File> {
        let path = self.open.get(&id).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.files.get_mut(path).ok_or(io::ErrorKind::NotFound)?)
    }

    fn opened(&mut self, path: &str) -> FileId {
        self.opened += 1;
        let id = FileId(self.opened);
        self.open.insert(id, path.to_owned());
        id
    }

    fn perform(&mut self, op: DiskOp) -> io::Result<Done> {
        match op {
            DiskOp::Read {
                file,
                offset,
                length,
            } => {
                let mut buffer = vec![0; length];
                self.file(file)?.read(offset, &mut buffer);
                return Ok(Done::Read(Bytes::from(buffer)));
            }
            DiskOp::Write {
                file,
                mut offset,
                parts,
                durable: _,
            } => {
                let file = self.file(file)?;
                for part in parts {
                    file.write(offset, &part);
                    offset += part.len() as u64;
                }
            }
            DiskOp::Sync { file } => _ = self.file(file)?,
            DiskOp::Punch {
                file,
                offset,
                length,
            } => {
                let length = usize::try_from(length).map_err(io::Error::other)?;
                self.file(file)?.write(offset, &vec![0; length]);
            }
        }
        Ok(Done::Finished)
    }
}

impl File {
    fn read(&self, offset: u64, buffer: &mut [u8]) {
        let mut at = 0;
        while at < buffer.len() {
            let place = offset + at as u64;
            let within = (place % PAGE_BYTES as u64) as usize;
            let count = (PAGE_BYTES - within).min(buffer.len() - at);
            let target = &mut buffer[at..at + count];
            match self.pages.get(&(place / PAGE_BYTES as u64)) {
                Some(page) => target.copy_from_slice(&page[within..within + count]),
                None => target.fill(0),
            }
            at += count;
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let place = offset + at as u64;
            let within = (place % PAGE_BYTES as u64) as usize;
            let count = (PAGE_BYTES - within).min(bytes.len() - at);
            let number = place / PAGE_BYTES as u64;
            let source = &bytes[at..at + count];
            at += count;
            if !self.pages.contains_key(&number) && source.iter().all(|byte| *byte == 0) {
                continue;
            }
            let page = self
                .pages
                .entry(number)
                .or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[within..within + count].copy_from_slice(source);
        }
        self.length = self.length.max(offset + bytes.len() as u64);
    }
}

impl Disk for MemoryDisk {
    fn open(&mut self, path: &str) -> io::Result<FileId> {
        if self.files.contains_key(path) {
            Ok(self.opened(path))
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn create(&mut self, path: &str, bytes: u64, _reserve: bool) -> io::Result<FileId> {
        if self.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.put(path, bytes);
        Ok(self.opened(path))
    }

    fn resize(&mut self, file: FileId, bytes: u64, _reserve: bool) -> io::Result<()> {
        let file = self.file(file)?;
        file.length = bytes;
        file.pages
            .retain(|number, _| number * (PAGE_BYTES as u64) < bytes);
        Ok(())
    }

    fn reserve(&mut self, file: FileId, _offset: u64, _bytes: u64) -> io::Result<()> {
        self.file(file).map(drop)
    }

    fn length(&mut self, file: FileId) -> io::Result<u64> {
        self.file(file).map(|file| file.length)
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        let folder = format!("{path}/");
        let gone = |name: &String| name == path || name.starts_with(&folder);
        self.files.retain(|name, _| !gone(name));
        self.open.retain(|_, name| !gone(name));
        Ok(())
    }

    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        let folder = format!("{folder}/");
        let names = self
            .files
            .keys()
            .filter_map(|path| path.strip_prefix(&folder)?.split('/').next());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.dedup();
        Ok(names)
    }

    fn read_now(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file(file)?.read(offset, buffer);
        Ok(())
    }

    fn write_now(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file(file)?.write(offset, data);
        Ok(())
    }

    fn submit(&mut self, id: OpId, op: DiskOp) -> Result<(), DiskBusy> {
        let done = self.perform(op).expect(
            "this disk fails only where a file is not open, which a test would not survive",
        );
        self.done.push((id, done));
        Ok(())
    }

    fn completed(&mut self, out: &mut Vec<(OpId, io::Result<Done>)>) {
        out.extend(self.done.drain(..).map(|(id, done)| (id, Ok(done))));
    }
}

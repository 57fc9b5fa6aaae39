//! The disk: files by path, operations in flight in an event heap, faults to switch on, and two ways to die.

use crate::failures::{Failures, Operation};
use crate::file::{Change, SimulatedFile};
use crate::random::Random;
use bytes::Bytes;
use isthmus_journal::{Disk, DiskBusy, DiskOp, Done, FileId, OpId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Operations that may be in flight at once.
pub const IN_FLIGHT_MAX: usize = 256;
/// The shortest time that an operation takes, in nanoseconds.
pub const LATENCY_NS_MIN: u64 = 20_000;
/// What the seed adds to it at most, in nanoseconds.
pub const LATENCY_NS_SPREAD: u64 = 400_000;

#[derive(Debug)]
struct InFlight {
    id: OpId,
    path: Arc<str>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Read {
        offset: u64,
        length: usize,
    },
    Change {
        change: Change,
        durable: bool,
        mark: u64,
    },
    Sync {
        mark: u64,
    },
}

/// A disk in memory. It outlives the process that uses it: keep the object, [`SimulatedDisk::crash`] it (power lost) or
/// [`SimulatedDisk::reopen`] it (process killed, cache kept), and give it to the next life.
#[derive(Debug)]
pub struct SimulatedDisk {
    random: Random,
    now: u64,
    files: BTreeMap<String, SimulatedFile>,
    open: BTreeMap<FileId, Arc<str>>,
    opened: u32,
    in_flight: BTreeMap<(u64, u64), InFlight>,
    submitted: u64,
    done: Vec<(OpId, io::Result<Done>)>,
    capacity_bytes: Option<u64>,
    slowness: u64,
    slow_per_mille: u64,
    watched: Vec<String>,
    sightings: u64,
    unreadable: Vec<(String, Range<u64>)>,
    unwritable: BTreeSet<String>,
    failures: Failures,
}

impl SimulatedDisk {
    /// An empty disk whose latencies and crashes come from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> SimulatedDisk {
        SimulatedDisk {
            random: Random::new(seed),
            now: 0,
            files: BTreeMap::new(),
            open: BTreeMap::new(),
            opened: 0,
            in_flight: BTreeMap::new(),
            submitted: 0,
            done: Vec::new(),
            capacity_bytes: None,
            slowness: 1,
            slow_per_mille: 0,
            watched: Vec::new(),
            sightings: 0,
            unreadable: Vec::new(),
            unwritable: BTreeSet::new(),
            failures: Failures::default(),
        }
    }

    /// When the next operation completes, in nanoseconds; `None` with nothing in flight.
    #[must_use]
    pub fn next_event(&self) -> Option<u64> {
        self.in_flight.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets time pass until `now` (nanoseconds; never back): what is due by then completes, in its order.
    pub fn advance(&mut self, now: u64) {
        assert!(
            now >= self.now,
            "time goes forward: {now} after {}",
            self.now
        );
        self.now = now;
        while let Some(entry) = self.in_flight.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let InFlight { id, path, work } = entry.remove();
            let result = self.perform(&path, work);
            self.done.push((id, result));
        }
    }

    /// Loses power: files are closed, operations in flight and completions not yet collected are gone, and of each
    /// change not covered by a completed sync or durable write, the seed keeps all, nothing, or some sectors.
    pub fn crash(&mut self) {
        for (path, change) in self.interrupted() {
            if let Some(file) = self.files.get_mut(&*path) {
                file.change(change);
            }
        }
        for file in self.files.values_mut() {
            file.crash(&mut self.random);
        }
    }

    /// Kills the process but not the machine: files are closed and operations in flight may have been applied in part,
    /// but what was written stays readable, synced or not (and can still be lost by a later [`SimulatedDisk::crash`]).
    pub fn reopen(&mut self) {
        for (path, change) in self.interrupted() {
            for kept in change.torn(&mut self.random) {
                if let Some(file) = self.files.get_mut(&*path) {
                    file.change(kept);
                }
            }
        }
    }

    /// Ends everything in flight, and gives back its changes in an order of the seed.
    fn interrupted(&mut self) -> Vec<(Arc<str>, Change)> {
        self.open.clear();
        self.done.clear();
        let mut waiting: Vec<(Arc<str>, Change)> = Vec::new();
        for (_, InFlight { path, work, .. }) in std::mem::take(&mut self.in_flight) {
            if let Work::Change { change, .. } = work {
                let fits = self
                    .files
                    .get(&*path)
                    .is_some_and(|file| self.has_room(file.growth_bytes(&change)));
                if fits && !self.unwritable.contains(&*path) && !self.failures.read_only {
                    let at = self.random.below(waiting.len() as u64 + 1) as usize;
                    waiting.insert(at, (path, change));
                }
            }
        }
        waiting
    }

    /// Limits the space of all files together, or lifts the limit. What is there stays.
    pub fn set_capacity_bytes(&mut self, bytes: Option<u64>) {
        self.capacity_bytes = bytes;
    }

    /// Space that all files take.
    #[must_use]
    pub fn allocated_bytes(&self) -> u64 {
        self.files
            .values()
            .map(SimulatedFile::allocated_bytes)
            .sum()
    }

    /// Makes operations submitted from now on take `factor` times as long (1 is normal).
    pub fn set_slowness(&mut self, factor: u64) {
        assert!(factor >= 1, "a disk can't be faster than it is");
        self.slowness = factor;
    }

    /// Lets so many of a thousand operations take 10 to 100 times as long as the others: real disks do (garbage collection, retries, a
    /// neighbour), and what mostly comes first then comes last.
    pub fn set_slow_per_mille(&mut self, per_mille: u64) {
        self.slow_per_mille = per_mille;
    }

    /// Counts, from now on, the changes to files whose path ends with one of these.
    pub fn watch(&mut self, path_ends: &[&str]) {
        self.watched = path_ends.iter().map(|&end| end.to_owned()).collect();
        self.sightings = 0;
    }

    /// How many there were since.
    #[must_use]
    pub fn sightings(&self) -> u64 {
        self.sightings
    }

    /// Makes reads that touch the range fail, until [`SimulatedDisk::heal`].
    pub fn fail_reads(&mut self, path: &str, range: Range<u64>) {
        self.unreadable.push((path.to_owned(), range));
    }

    /// Makes writes, punches and syncs of the file fail, until [`SimulatedDisk::heal`].
    pub fn fail_writes(&mut self, path: &str) {
        self.unwritable.insert(path.to_owned());
    }

    /// Ends all failures, and forgets those that were still to come. What was lost, misdirected or turned over stays so.
    pub fn heal(&mut self) {
        self.unreadable.clear();
        self.unwritable.clear();
        self.failures = Failures::default();
    }

    /// The next `times` operations of this kind on files whose path begins with `path` fail with EIO and do nothing.
    pub fn fail_next(&mut self, kind: Operation, path: &str, times: u32) {
        if times > 0 {
            self.failures.next.push((kind, path.to_owned(), times));
        }
    }

    /// The next `times` writes to files whose path begins with `path` find the disk full, reserved space or not: as on a file system that
    /// does not keep its word, or copies on write.
    pub fn find_no_space(&mut self, path: &str, times: u32) {
        if times > 0 {
            self.failures.no_space.push((path.to_owned(), times));
        }
    }

    /// Whether everything that changes anything fails, as on a file system that was remounted read-only.
    pub fn set_read_only(&mut self, read_only: bool) {
        self.failures.read_only = read_only;
    }

    /// The next write to a file whose path begins with `path` is reported as done, durable or not, and changes nothing. A
    /// block's checksum in its header finds that, a header's generation in the map, a journal's successors (they say what was
    /// durable before them). Nothing finds it for the newest write of a file with nothing later to speak of it: the last group of a
    /// journal, or a superblock (then the replica is one checkpoint older, with a journal that may be recycled already).
    pub fn lose_next_write(&mut self, path: &str) {
        self.failures.lost.push(path.to_owned());
    }

    /// The next write to a file whose path begins with `path` is reported as done and lands `distance` bytes further on in the same file
    /// (or before, where that would be past its end, or nowhere, where neither fits): so two places are wrong, the one that lacks it and
    /// the one that has it. Checksums bind a block to its volume and number, a page and a group to its place, so both are found.
    pub fn misdirect_next_write(&mut self, path: &str, distance: u64) {
        self.failures.misdirected.push((path.to_owned(), distance));
    }

    /// Turns over a bit of the seed's choice in what a file holds; gives back where. `None` where it holds nothing.
    pub fn flip_random_bit(&mut self, path: &str) -> Option<(u64, u8)> {
        let pages = self.page_offsets(path);
        let length = self.files.get(path)?.length;
        let pages: Vec<u64> = pages.into_iter().filter(|page| *page < length).collect();
        if pages.is_empty() {
            return None;
        }
        let page = pages[self.random.below(pages.len() as u64) as usize];
        let held = (length - page).min(crate::pages::PAGE_BYTES);
        let place = (page + self.random.below(held), self.random.below(8) as u8);
        self.flip_bit(path, place.0, place.1);
        Some(place)
    }

    /// Turns over bit `bit` (0 to 7) of the byte at `offset`: decay of what is stored.
    ///
    /// # Panics
    /// When there is no such file or byte.
    pub fn flip_bit(&mut self, path: &str, offset: u64, bit: u8) {
        let file = self
            .files
            .get_mut(path)
            .expect("a bit can be flipped only in a file that exists");
        assert!(
            offset < file.length && bit < 8,
            "there is no bit {bit} of byte {offset} in {path}"
        );
        file.flip_bit(offset, bit);
    }

    /// Puts the files of one folder in the place of those of another one, as an operator does while nobody uses either.
    pub fn replace_folder(&mut self, from: &str, to: &str) {
        let lies_in = |path: &str, folder: &str| {
            let rest = path.strip_prefix(folder);
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        self.files.retain(|path, _| !lies_in(path, to));
        let moved: Vec<String> = (self.files.keys())
            .filter(|path| lies_in(path, from))
            .cloned()
            .collect();
        for path in moved {
            if let Some(file) = self.files.remove(&path) {
                self.files
                    .insert(format!("{to}{}", &path[from.len()..]), file);
            }
        }
    }

    /// The paths of all files, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The whole content of a file as a reader sees it; `None` where there is none. For small files.
    #[must_use]
    pub fn dump(&self, path: &str) -> Option<Vec<u8>> {
        let length = self.files.get(path)?.length;
        self.peek(path, 0, usize::try_from(length).ok()?)
    }

    /// Some bytes of a file as a reader sees them; `None` where there is no such file.
    #[must_use]
    pub fn peek(&self, path: &str, offset: u64, length: usize) -> Option<Vec<u8>> {
        let file = self.files.get(path)?;
        let mut bytes = vec![0; length];
        file.read(offset, &mut bytes);
        Some(bytes)
    }

    /// The offsets of the 4 KiB pages of a file that hold something, sorted; all else is zero.
    #[must_use]
    pub fn page_offsets(&self, path: &str) -> Vec<u64> {
        let pages = self.files.get(path).map(SimulatedFile::pages);
        pages
            .map(|pages| {
                pages
                    .numbers()
                    .map(|number| number * crate::pages::PAGE_BYTES)
                    .collect()
            })
            .unwrap_or_default()
    }

    fn has_room(&self, growth: u64) -> bool {
        self.capacity_bytes
            .is_none_or(|capacity| growth == 0 || self.allocated_bytes() + growth <= capacity)
    }

    fn path_of(&self, file: FileId) -> io::Result<Arc<str>> {
        self.open
            .get(&file)
            .cloned()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the file is not open"))
    }

    fn opened(&mut self, path: &str) -> FileId {
        self.opened += 1;
        let id = FileId(self.opened);
        self.open.insert(id, path.into());
        id
    }

    fn read(&mut self, path: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.failures.check(Operation::Read, path)?;
        let end = offset.saturating_add(buffer.len() as u64);
        let bad = |(other, range): &(String, Range<u64>)| {
            other == path && range.start < end && offset < range.end
        };
        if self.unreadable.iter().any(bad) {
            return Err(io::Error::other("simulated read error"));
        }
        self.files
            .get(path)
            .ok_or(io::ErrorKind::NotFound)?
            .read(offset, buffer);
        Ok(())
    }

    fn change(&mut self, path: &str, change: Change, durable: Option<u64>) -> io::Result<()> {
        self.check_writable(path)?;
        self.sightings += u64::from(self.watched.iter().any(|end| path.ends_with(end)));
        let length = self.files.get(path).ok_or(io::ErrorKind::NotFound)?.length;
        let Some(change) = self.failures.led_astray(path, change, length) else {
            return Ok(());
        };
        if self.capacity_bytes.is_some() {
            let file = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
            if !self.has_room(file.growth_bytes(&change)) {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let file = self.files.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
        match durable {
            Some(mark) => file.change_durably(change, mark),
            None => file.change(change),
        }
        Ok(())
    }

    fn check_writable(&mut self, path: &str) -> io::Result<()> {
        if self.unwritable.contains(path) {
            return Err(io::Error::other("simulated write error"));
        }
        self.failures.check(Operation::Write, path)
    }

    fn perform(&mut self, path: &str, work: Work) -> io::Result<Done> {
        match work {
            Work::Read { offset, length } => {
                let mut buffer = vec![0; length];
                self.read(path, offset, &mut buffer)?;
                return Ok(Done::Read(Bytes::from(buffer)));
            }
            Work::Change {
                change,
                durable,
                mark,
            } => self.change(path, change, durable.then_some(mark))?,
            Work::Sync { .. } if self.unwritable.contains(path) => {
                return Err(io::Error::other("simulated sync error"));
            }
            Work::Sync { mark } => {
                self.failures.check(Operation::Sync, path)?;
                self.files
                    .get_mut(path)
                    .ok_or(io::ErrorKind::NotFound)?
                    .sync(mark);
            }
        }
        Ok(Done::Finished)
    }
}

impl Disk for SimulatedDisk {
    fn open(&mut self, path: &str) -> io::Result<FileId> {
        if !self.files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(self.opened(path))
    }

    fn create(&mut self, path: &str, bytes: u64, reserve: bool) -> io::Result<FileId> {
        if self.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.failures.check_read_only()?;
        if reserve && !self.has_room(bytes) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut file = SimulatedFile::with_length(bytes);
        if reserve {
            file.reserve(0..bytes);
        }
        self.files.insert(path.to_owned(), file);
        Ok(self.opened(path))
    }

    fn resize(&mut self, file: FileId, bytes: u64, reserve: bool) -> io::Result<()> {
        let path = self.path_of(file)?;
        self.check_writable(&path)?;
        let before = self
            .files
            .get(&*path)
            .ok_or(io::ErrorKind::NotFound)?
            .length;
        if reserve && bytes > before && !self.has_room(bytes - before) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.files.get_mut(&*path).ok_or(io::ErrorKind::NotFound)?;
        file.resize(bytes);
        if reserve {
            file.reserve(before..bytes);
        }
        Ok(())
    }

    fn reserve(&mut self, file: FileId, offset: u64, bytes: u64) -> io::Result<()> {
        let path = self.path_of(file)?;
        self.check_writable(&path)?;
        let range = offset..offset + bytes;
        let file = self.files.get(&*path).ok_or(io::ErrorKind::NotFound)?;
        if range.end > file.length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if !self.has_room(file.reserve_bytes(&range)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(file) = self.files.get_mut(&*path) {
            file.reserve(range);
        }
        Ok(())
    }

    fn length(&mut self, file: FileId) -> io::Result<u64> {
        let path = self.path_of(file)?;
        Ok(self
            .files
            .get(&*path)
            .ok_or(io::ErrorKind::NotFound)?
            .length)
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.failures.check_read_only()?;
        let folder = format!("{path}/");
        let removed = |other: &str| other == path || other.starts_with(&folder);
        self.files.retain(|other, _| !removed(other));
        self.open.retain(|_, other| !removed(other));
        Ok(())
    }

    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        let prefix = if folder.is_empty() {
            String::new()
        } else {
            format!("{folder}/")
        };
        let below = self
            .files
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix));
        let names: BTreeSet<String> = below
            .filter_map(|rest| rest.split('/').next())
            .map(str::to_owned)
            .collect();
        Ok(names.into_iter().collect())
    }

    fn read_now(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let path = self.path_of(file)?;
        self.read(&path, offset, buffer)
    }

    fn write_now(&mut self, file: FileId, offset: u64, data: &[u8]) -> io::Result<()> {
        let path = self.path_of(file)?;
        let mark = self
            .files
            .get(&*path)
            .ok_or(io::ErrorKind::NotFound)?
            .mark();
        self.change(
            &path,
            Change::Write {
                offset,
                parts: vec![Bytes::copy_from_slice(data)],
            },
            Some(mark),
        )
    }

    fn submit(&mut self, id: OpId, op: DiskOp) -> Result<(), DiskBusy> {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return Err(DiskBusy);
        }
        let file = match &op {
            DiskOp::Read { file, .. }
            | DiskOp::Write { file, .. }
            | DiskOp::Sync { file }
            | DiskOp::Punch { file, .. } => *file,
        };
        let Ok(path) = self.path_of(file) else {
            self.done.push((
                id,
                Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the file is not open",
                )),
            ));
            return Ok(());
        };
        let mark = self.files.get(&*path).map_or(0, SimulatedFile::mark);
        let work = match op {
            DiskOp::Read { offset, length, .. } => Work::Read { offset, length },
            DiskOp::Write {
                offset,
                parts,
                durable,
                ..
            } => Work::Change {
                change: Change::Write { offset, parts },
                durable,
                mark,
            },
            DiskOp::Sync { .. } => Work::Sync { mark },
            DiskOp::Punch { offset, length, .. } => Work::Change {
                change: Change::Punch { offset, length },
                durable: false,
                mark,
            },
        };
        self.submitted += 1;
        let mut latency = LATENCY_NS_MIN + self.random.below(LATENCY_NS_SPREAD);
        if self.slow_per_mille > 0 && self.random.chance(self.slow_per_mille, 1000) {
            latency *= 10 + self.random.below(90);
        }
        self.in_flight.insert(
            (self.now + latency * self.slowness, self.submitted),
            InFlight { id, path, work },
        );
        Ok(())
    }

    fn completed(&mut self, out: &mut Vec<(OpId, io::Result<Done>)>) {
        out.append(&mut self.done);
    }
}

//! What the tests share: a journal over a simulated disk, and what must be true of it after any crash.

#![allow(clippy::unwrap_used)] // all of this is a test, but clippy sees no test function around it

use bytes::Bytes;
use isthmus_journal::{Full, Journal, JournalError, Lsn, Shape, StreamId};
use isthmus_simulated_disk::{Random, SimulatedDisk};
use std::collections::BTreeMap;

use isthmus_journal::Disk;

pub const FOLDER: &str = "journal";
pub const TAG: u16 = 7;
pub const SMALL: Shape = Shape {
    segment_bytes: 64 << 10,
    segments: 5,
};
pub const IDENTITY: u64 = 0x1234_5678_9abc_def0;

/// A record as its owner knows it.
pub type Record = (StreamId, Vec<u8>);

/// How a record is appended.
#[derive(Clone, Copy, Debug)]
pub enum How {
    Durable,
    Reserved,
    /// It is enough that the kernel has it.
    Held,
}

/// A journal, its disk, and what a perfect memory would hold.
pub struct World {
    pub disk: SimulatedDisk,
    pub journal: Journal,
    pub now: u64,
    /// Every record that is appended and was not cut off by a recovery.
    pub appended: BTreeMap<Lsn, Record>,
    /// What each stream has released.
    pub released: BTreeMap<StreamId, Lsn>,
    /// The greatest position that was ever reported durable.
    pub durable: Lsn,
    /// The greatest position that was reported written in this life.
    pub written: Lsn,
}

/// Opens the journal and collects its records, checking that they come in order and without a gap.
pub fn recover(disk: &mut SimulatedDisk) -> Result<(Journal, Vec<(Lsn, Record)>), JournalError> {
    let mut records: Vec<(Lsn, Record)> = Vec::new();
    let journal = Journal::open(disk, FOLDER, TAG, &mut |lsn, stream, payload| {
        if let Some((last, _)) = records.last() {
            assert_eq!(lsn, last.next(), "records are replayed in order, each once");
        }
        records.push((lsn, (stream, payload.to_vec())));
    })?;
    Ok((journal, records))
}

impl World {
    pub fn new(seed: u64, shape: Shape) -> World {
        let mut disk = SimulatedDisk::new(seed);
        Journal::format(&mut disk, FOLDER, shape, IDENTITY).unwrap();
        let (journal, records) = recover(&mut disk).unwrap();
        assert!(records.is_empty());
        World {
            disk,
            journal,
            now: 0,
            appended: BTreeMap::new(),
            released: BTreeMap::new(),
            durable: Lsn(0),
            written: Lsn(0),
        }
    }

    /// Appends a record in a few parts; remembers it.
    pub fn append(
        &mut self,
        stream: u64,
        payload: &[u8],
        parts: usize,
        reserved: bool,
    ) -> Result<Lsn, Full> {
        let how = if reserved {
            How::Reserved
        } else {
            How::Durable
        };
        self.append_as(how, stream, payload, parts)
    }

    /// Appends a record in a few parts; remembers it.
    pub fn append_as(
        &mut self,
        how: How,
        stream: u64,
        payload: &[u8],
        parts: usize,
    ) -> Result<Lsn, Full> {
        let stream = StreamId(stream);
        let size = payload.len().div_ceil(parts).max(1);
        let split: Vec<Bytes> = payload.chunks(size).map(Bytes::copy_from_slice).collect();
        let lsn = match how {
            How::Reserved => self.journal.append_reserved(stream, &split)?,
            How::Durable => self.journal.append(stream, &split)?,
            How::Held => self.journal.append_to_be_held(stream, &split)?,
        };
        let before = self.appended.insert(lsn, (stream, payload.to_vec()));
        assert!(before.is_none(), "position {lsn} was given out twice");
        Ok(lsn)
    }

    /// Hands over completions, steps, and checks that what is durable never goes back.
    pub fn step(&mut self) {
        let mut completed = Vec::new();
        self.disk.completed(&mut completed);
        for (id, result) in completed {
            assert_eq!(id.tag(), TAG);
            self.journal.on_completed(id, result).unwrap();
        }
        assert!(
            self.journal.durable() >= self.durable && self.journal.durable() < self.journal.next()
        );
        self.durable = self.journal.durable();
        assert!(self.journal.written() >= self.written && self.journal.written() >= self.durable);
        self.written = self.journal.written();
        assert!(self.journal.used_bytes() <= self.journal.capacity_bytes());
        self.journal.step(&mut self.disk);
    }

    /// Runs until the next completion, if there is one.
    pub fn advance(&mut self) -> bool {
        let Some(at) = self.disk.next_event() else {
            return false;
        };
        self.now = at;
        self.disk.advance(at);
        self.step();
        true
    }

    /// Runs until nothing is queued or in flight.
    pub fn settle(&mut self) {
        self.journal.sync();
        self.step();
        while self.advance() {}
        assert!(self.journal.is_idle());
        assert_eq!(self.journal.durable().next(), self.journal.next());
    }

    pub fn release(&mut self, stream: u64, before: Lsn) {
        let stream = StreamId(stream);
        self.journal.release(stream, before);
        let released = self.released.entry(stream).or_default();
        *released = before.max(*released);
    }

    /// Opens the journal after its process has ended: all that was written is there.
    pub fn restart_after_kill(&mut self) {
        let written = self.written;
        self.restart();
        assert!(
            self.journal.next() > written,
            "written {written}, recovered below {}",
            self.journal.next()
        );
    }

    /// Opens the journal after a crash and checks everything that it promises.
    pub fn restart(&mut self) {
        let (journal, records) = recover(&mut self.disk).unwrap();
        let end = journal.next();
        assert_eq!(
            journal.durable().next(),
            end,
            "what recovery gives back is durable"
        );
        assert!(
            end > self.durable,
            "durable {}, recovered below {end}",
            self.durable
        );
        let replayed: BTreeMap<Lsn, Record> = records.into_iter().collect();
        for (lsn, record) in &replayed {
            let appended = self.appended.get(lsn);
            assert!(
                appended == Some(record),
                "record {lsn} was never appended like this"
            );
        }
        for (lsn, (stream, _)) in self.appended.range(..end) {
            let released = self.released.get(stream).is_some_and(|before| lsn < before);
            assert!(
                released || replayed.contains_key(lsn),
                "record {lsn} of {stream:?} is lost"
            );
        }
        let cut: Vec<Lsn> = self.appended.range(end..).map(|(lsn, _)| *lsn).collect();
        for lsn in cut {
            self.appended.remove(&lsn);
        }
        // A stream may have released what was cut off; the positions will be given out again.
        for before in self.released.values_mut() {
            *before = end.min(*before);
        }
        self.durable = journal.durable();
        self.written = journal.written();
        self.journal = journal;
    }

    /// Forgets what the checks no longer need: records that every stream released long ago.
    pub fn forget(&mut self) {
        let released = &self.released;
        self.appended.retain(|lsn, (stream, _)| {
            lsn.0 + 2_000 > self.durable.0
                || released.get(stream).is_none_or(|before| lsn >= before)
        });
    }
}

/// A payload that names itself, so that two are never equal by chance.
pub fn payload(random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(bytes + 8);
    while payload.len() < bytes {
        payload.extend_from_slice(&random.next_u64().to_le_bytes());
    }
    payload.truncate(bytes);
    payload
}

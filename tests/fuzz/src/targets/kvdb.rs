//! What kvdb's nodes say to each other, and what is on its disk.

use isthmus_catalog::Catalog;
use isthmus_journal::{Journal, Shape, StreamId};
use isthmus_kvdb::decoders::{self, Form};

use super::{catalog, envelope};
use crate::chunks::{self, Chunk};
use crate::memory_disk::MemoryDisk;
use crate::mutate::mutate_chunks;
use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

struct Bytes {
    name: &'static str,
    form: Form,
}

/// A target for each form of bytes.
#[must_use]
pub fn forms() -> Vec<Box<dyn Target>> {
    let name = |form| match form {
        Form::Message => "kvdb-message",
        Form::Reply => "kvdb-reply",
        Form::LogRecord => "kvdb-record",
        Form::Entry => "kvdb-entry",
        Form::Vote => "kvdb-vote",
        Form::LogId => "kvdb-log-id",
        Form::SnapshotFile => "kvdb-snapshot",
    };
    let target = |form| {
        Box::new(Bytes {
            name: name(form),
            form,
        }) as Box<dyn Target>
    };
    Form::ALL.into_iter().map(target).collect()
}

impl Target for Bytes {
    fn name(&self) -> &'static str {
        self.name
    }

    fn share(&self) -> u64 {
        16
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let catalog = if random.once_in(8) {
            catalog::catalog(random)
        } else {
            Catalog::default()
        };
        let request = catalog::request(random);
        let example = self.form.example(&catalog, &request, random.below(1000));
        example.expect("a small example").to_vec()
    }

    fn reseal(&self, bytes: &mut Vec<u8>, _: &mut Random) {
        match self.form {
            Form::LogRecord => {}
            Form::SnapshotFile => reseal_snapshot(bytes),
            _ => envelope::reseal(bytes),
        }
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        catalog::memory_bytes_max(input_bytes)
    }

    fn is_sealed(&self) -> bool {
        self.form != Form::LogRecord
    }

    fn refuses_prefixes(&self) -> bool {
        self.form != Form::LogRecord
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let again = self.form.again(input);
        if let Some(again) = &again {
            assert_eq!(self.form.again(again).as_ref(), Some(again));
        }
        Verdict::of(&again)
    }
}

fn reseal_snapshot(bytes: &mut [u8]) {
    let Some((length, rest)) = bytes.split_first_chunk_mut::<4>() else {
        return;
    };
    let middle = (u32::from_le_bytes(*length) as usize).min(rest.len());
    *length = (middle as u32).to_le_bytes();
    let (meta, catalog) = rest.split_at_mut(middle);
    envelope::reseal(meta);
    envelope::reseal(catalog);
}

/// A member's whole store: records of its journal (tag 0) and two snapshot files (tags 1 and 2), recovered as at a start.
pub struct Stores;

const RECORD: u8 = 0;
const FOLDER: &str = "raft";
const JOURNAL: &str = "raft/journal";
/// Small, because recovery reads all of it.
const SHAPE: Shape = Shape {
    segment_bytes: 64 << 10,
    segments: 4,
};

impl Target for Stores {
    fn name(&self) -> &'static str {
        "kvdb-store"
    }

    fn share(&self) -> u64 {
        3
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let mut chunks = Vec::new();
        let mut put = |tag, bytes: Vec<u8>| {
            chunks.push(Chunk {
                tag,
                place: 0,
                bytes,
            });
        };
        let request = catalog::request(random);
        let nothing = Catalog::default();
        let example = |form: Form, number| {
            let example = form.example(&nothing, &request, number);
            example.expect("a small example").to_vec()
        };
        for index in 0..random.below(8) {
            let record = decoders::entry_record(&request, index);
            put(RECORD, record.expect("a small entry").to_vec());
            // A vote (0) or a committed position (4).
            if random.once_in(3) {
                put(RECORD, example(Form::LogRecord, random.below(2) * 4));
            }
        }
        if random.once_in(3) {
            // The log is purged up to the snapshot's last entry.
            let index = 9 + 6 * random.below(2);
            put(1, example(Form::SnapshotFile, index));
            put(RECORD, example(Form::LogRecord, index));
            let record = decoders::entry_record(&request, index + 1);
            put(RECORD, record.expect("a small entry").to_vec());
        }
        chunks::join(&chunks)
    }

    fn mutate(&self, bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) -> bool {
        let by_pieces = !random.once_in(8);
        if by_pieces {
            mutate_chunks(bytes, other, |_| true, random);
        }
        by_pieces
    }

    fn reseal(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let mut chunks = chunks::split(bytes);
        for chunk in &mut chunks {
            match (chunk.tag, random.once_in(8)) {
                (_, true) => {}
                (RECORD, _) if chunk.bytes.len() > 16 => envelope::reseal(&mut chunk.bytes[16..]),
                (1 | 2, _) => reseal_snapshot(&mut chunk.bytes),
                _ => {}
            }
        }
        *bytes = chunks::join(&chunks);
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        // The journal is read through a window of 1 MiB.
        (2 << 20) + catalog::memory_bytes_max(input_bytes)
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let mut disk = MemoryDisk::default();
        Journal::format(&mut disk, JOURNAL, SHAPE, 7).expect("the shape is sound");
        let mut journal =
            Journal::open(&mut disk, JOURNAL, 1, &mut |_, _, _| {}).expect("it is new");
        for chunk in chunks::split(input) {
            if chunk.tag == RECORD {
                let fits = chunk.bytes.len() as u64 <= journal.record_bytes_max();
                if !fits || journal.append(StreamId(1), &[chunk.bytes.into()]).is_err() {
                    return Verdict::Refused;
                }
            } else {
                let path = format!("{FOLDER}/snapshot-{}", chunk.tag % 2);
                disk.put(&path, chunk.bytes.len() as u64);
                disk.write(&path, 0, &chunk.bytes);
            }
        }
        super::journal::settle(&mut journal, &mut disk);
        match decoders::recover(disk, FOLDER) {
            Ok(indexes) => {
                let gap = indexes.windows(2).find(|pair| pair[0] + 1 != pair[1]);
                assert_eq!(gap, None, "a log without gaps was announced");
                Verdict::Accepted
            }
            Err(_) => Verdict::Refused,
        }
    }
}

//! The journal: a group by itself, and the recovery of a whole one that nobody wrote like this.

use bytes::Bytes;
use isthmus_journal::layout::{self, ENTRY_BYTES, Entry, GroupHeader, HEADER_BYTES};
use isthmus_journal::{Disk, Journal, JournalError, Lsn, Shape, StreamId};

use crate::chunks::{self, Chunk};
use crate::memory_disk::MemoryDisk;
use crate::mutate::mutate_chunks;
use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

const MAGIC: &[u8] = b"IJGr";
const IDENTITY: u64 = 0x1234_5678_9abc_def0;

/// What a record of this stream at this position holds: whoever reads anything else there was lied to.
fn stamp(stream: StreamId, lsn: Lsn) -> Vec<u8> {
    let pattern = [stream.0.to_le_bytes(), lsn.0.to_le_bytes()].concat();
    pattern.repeat((lsn.0 % 23) as usize)
}

/// Makes everything durable that is queued.
pub(super) fn settle(journal: &mut Journal, disk: &mut MemoryDisk) {
    while !journal.is_idle() {
        journal.step(disk);
        let mut completed = Vec::new();
        disk.completed(&mut completed);
        for (id, result) in completed {
            journal
                .on_completed(id, result)
                .expect("this disk does not fail");
        }
    }
}

/// Repairs the checksums of a group that begins here; those of payloads too, if `deep`.
fn reseal_group(bytes: &mut [u8], deep: bool) {
    if bytes.len() < HEADER_BYTES || !bytes.starts_with(MAGIC) {
        return;
    }
    let word = |bytes: &[u8], at: usize| {
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let records = word(bytes, 56) as usize;
    if let Some(table_end) = records
        .checked_mul(ENTRY_BYTES)
        .and_then(|table| table.checked_add(HEADER_BYTES))
        .filter(|end| *end <= bytes.len())
    {
        let mut at = table_end;
        for entry in (HEADER_BYTES..table_end)
            .step_by(ENTRY_BYTES)
            .filter(|_| deep)
        {
            let end = at.saturating_add(word(bytes, entry + 8) as usize);
            let Some(payload) = bytes.get(at..end) else {
                break;
            };
            let checksum = crc32fast::hash(payload);
            bytes[entry + 12..entry + 16].copy_from_slice(&checksum.to_le_bytes());
            at = end;
        }
        let checksum = crc32fast::hash(&bytes[HEADER_BYTES..table_end]);
        bytes[64..68].copy_from_slice(&checksum.to_le_bytes());
    }
    let checksum = crc32fast::hash(&bytes[..68]);
    bytes[68..72].copy_from_slice(&checksum.to_le_bytes());
}

/// [`GroupHeader::decode`] and [`layout::records`].
pub struct Headers;

impl Target for Headers {
    fn name(&self) -> &'static str {
        "journal-group"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let first = Lsn(random.below(1 << 40) + 1);
        let stream = StreamId(random.number());
        let payloads: Vec<Bytes> = (0..random.below(6))
            .map(|index| stamp(stream, Lsn(first.0 + index)).into())
            .collect();
        let entries: Vec<Entry> = payloads
            .iter()
            .map(|payload| Entry::of(stream, std::slice::from_ref(payload)))
            .collect();
        let payload_bytes = payloads.iter().map(|payload| payload.len() as u64).sum();
        let bytes = layout::group_bytes(entries.len(), payload_bytes);
        let header = GroupHeader {
            identity: IDENTITY,
            sequence: random.below(1 << 50) + 4,
            page: random.below(16) as u32,
            first,
            durable: Lsn(first.0 - 1),
            head_sequence: 4,
            head_first: Lsn(1),
            records: 0,
            bytes: bytes as u32,
            table_checksum: 0,
        };
        [vec![layout::front(header, &entries)], payloads]
            .concat()
            .concat()
    }

    fn reseal(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        reseal_group(bytes, random.once_in(2));
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        // A table's entry of 16 bytes is a record of 40 in memory; the bytes are copied once.
        4096 + 5 * input_bytes
    }

    fn refuses_prefixes(&self) -> bool {
        true
    }

    fn run(&mut self, input: &[u8], expect: Expect) -> Verdict {
        let Some(header) = GroupHeader::decode(input) else {
            return Verdict::Refused;
        };
        assert_eq!(header.encode()[..], input[..HEADER_BYTES]);
        let Ok(records) = layout::records(&header, &Bytes::copy_from_slice(input)) else {
            return Verdict::Refused;
        };
        assert_eq!(records.len(), header.records as usize);
        if expect != Expect::Anything {
            for ((stream, payload), lsn) in records.iter().zip(header.first.0..) {
                assert_eq!(payload[..], stamp(*stream, Lsn(lsn)), "a wrong record");
            }
        }
        Verdict::Accepted
    }
}

/// [`Journal::open`] on what may be left of a journal: pages of the segments (their number is the tag) and of the description.
pub struct Journals;

const DESCRIPTION: u8 = 255;
const FOLDER: &str = "journal";
const SHAPE: Shape = Shape {
    segment_bytes: 64 << 10,
    segments: 4,
};

type Records = Vec<(Lsn, StreamId, Bytes)>;

fn path(tag: u8) -> String {
    if tag == DESCRIPTION {
        format!("{FOLDER}/description")
    } else {
        format!("{FOLDER}/segment-{:04}", u32::from(tag) % SHAPE.segments)
    }
}

fn open(disk: &mut MemoryDisk) -> Result<(Journal, Records), JournalError> {
    let mut records = Vec::new();
    let journal = Journal::open(disk, FOLDER, 1, &mut |lsn, stream, payload| {
        records.push((lsn, stream, Bytes::copy_from_slice(&payload)));
    })?;
    Ok((journal, records))
}

impl Target for Journals {
    fn name(&self) -> &'static str {
        "journal-recovery"
    }

    fn share(&self) -> u64 {
        4
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let mut disk = MemoryDisk::default();
        Journal::format(&mut disk, FOLDER, SHAPE, IDENTITY).expect("the shape is sound");
        let (mut journal, _) = open(&mut disk).expect("it is new");
        journal.set_groups_in_flight(random.below(3) as u32 + 1);
        let rounds_max = if random.once_in(4) { 200 } else { 20 };
        let rounds = random.below(rounds_max);
        for _ in 0..rounds {
            let stream = StreamId(random.below(2));
            let lsn = journal.next();
            // A full journal takes no more before something is released.
            let full = journal
                .append(stream, &[stamp(stream, lsn).into()])
                .is_err();
            if random.once_in(3) {
                settle(&mut journal, &mut disk);
            }
            if full || random.once_in(16) {
                let before = Lsn(random.below(journal.durable().0 + 2));
                journal.release(stream, before);
            }
        }
        settle(&mut journal, &mut disk);
        let mut chunks = Vec::new();
        for tag in (0..SHAPE.segments as u8).chain([DESCRIPTION]) {
            for (number, mut page) in disk.pages(&path(tag)) {
                let used = page
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |last| last + 1);
                page.truncate(used);
                chunks.push(Chunk {
                    tag,
                    place: number as u32,
                    bytes: page,
                });
            }
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
        let deep = random.once_in(2);
        for chunk in &mut chunks {
            if chunk.tag == DESCRIPTION && chunk.bytes.len() >= 36 {
                let checksum = crc32fast::hash(&chunk.bytes[..32]);
                chunk.bytes[32..36].copy_from_slice(&checksum.to_le_bytes());
            } else {
                reseal_group(&mut chunk.bytes, deep);
            }
        }
        *bytes = chunks::join(&chunks);
    }

    fn input_bytes_max(&self) -> usize {
        32 << 10
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        // The disk, a window of 1 MiB, a group of 64 KiB at most here, and the records, which are copied; all of that twice.
        (8 << 20) + 64 * input_bytes
    }

    fn run(&mut self, input: &[u8], expect: Expect) -> Verdict {
        let mut disk = MemoryDisk::default();
        for segment in 0..SHAPE.segments as u8 {
            disk.put(&path(segment), SHAPE.segment_bytes);
        }
        disk.put(&path(DESCRIPTION), 2 * layout::PAGE_BYTES);
        for chunk in chunks::split(input) {
            let offset = u64::from(chunk.place) * layout::PAGE_BYTES;
            disk.write(&path(chunk.tag), offset, &chunk.bytes);
        }
        let Ok((mut journal, records)) = open(&mut disk) else {
            return Verdict::Refused;
        };
        for (index, (lsn, stream, payload)) in records.iter().enumerate() {
            assert_eq!(
                lsn.0,
                records[0].0.0 + index as u64,
                "in order, without gaps"
            );
            if expect != Expect::Anything {
                assert_eq!(payload[..], stamp(*stream, *lsn), "record {lsn} is a lie");
            }
        }
        // What was opened goes on, and the next start finds all of it and no more.
        let added = Bytes::from_static(b"one more");
        let appended = journal.append_reserved(StreamId(9), std::slice::from_ref(&added));
        settle(&mut journal, &mut disk);
        drop(journal);
        let (_, again) = open(&mut disk).expect("a journal that was opened opens again");
        let mut expected = records;
        if let Ok(lsn) = appended {
            expected.push((lsn, StreamId(9), added));
        }
        assert!(again == expected, "{again:?} after {expected:?}");
        Verdict::Accepted
    }
}

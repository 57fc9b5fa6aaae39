//! Bytes on disk: groups. All integers are little-endian.
//!
//! A *group* is what one durable write puts down: a header, a table with one entry for each record, the records'
//! payloads one behind the other, and zeroes up to the next 4096. Groups follow each other without a gap in a segment.
//! A group is valid as a whole or not at all.
//!
//! ```text
//! header, 72 bytes, in one sector:
//!    0  magic "IJGr"            4  page: the group's offset in the segment / 4096
//!    8  identity of the journal 16  sequence: which use of which segment this is
//!   24  lsn of the first record 32  every record up to this lsn was durable when this was written
//!   40  sequence and  48  first lsn of the oldest segment that was still needed when this was written
//!   56  records                60  bytes: the whole group's length, a multiple of 4096
//!   64  CRC-32 of the table    68  CRC-32 of the 68 bytes before
//! table, 16 bytes for each record:
//!    0  stream                  8  payload bytes            12  CRC-32 of the payload
//! ```

use bytes::Bytes;
use isthmus_mutation::Mutation;
use std::fmt;

/// Groups begin and end at multiples of this.
pub const PAGE_BYTES: u64 = 4096;
/// The longest group, header and padding included.
pub const GROUP_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a group's header.
pub const HEADER_BYTES: usize = 72;
/// Bytes of a record's entry in the table.
pub const ENTRY_BYTES: usize = 16;

const MAGIC: [u8; 4] = *b"IJGr";

/// The position of a record in the journal: rises by one with each record. The first record has 1; 0 is before any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// The owner of a record, who alone says when it is no longer needed: a volume, or kvdb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What a group says of itself and of the journal at the time of its writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// The journal's random number.
    pub identity: u64,
    /// Which use of a segment the group belongs to; the file is `sequence % segments`.
    pub sequence: u64,
    /// The group's offset in its segment, in pages.
    pub page: u32,
    /// The first record's position (of the next record, in a group without records).
    pub first: Lsn,
    /// Every record up to this was durable.
    pub durable: Lsn,
    /// The oldest segment use that was still needed.
    pub head_sequence: u64,
    /// The position of that segment's first record.
    pub head_first: Lsn,
    /// Records in the group; a group without any only carries the facts above.
    pub records: u32,
    /// The group's length.
    pub bytes: u32,
    /// CRC-32 of the table.
    pub table_checksum: u32,
}

impl GroupHeader {
    /// The position after the group's last record.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn(self.first.0 + u64::from(self.records))
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.page.to_le_bytes());
        let longs = [
            self.identity,
            self.sequence,
            self.first.0,
            self.durable.0,
            self.head_sequence,
            self.head_first.0,
        ];
        for (place, long) in bytes[8..56].chunks_exact_mut(8).zip(longs) {
            place.copy_from_slice(&long.to_le_bytes());
        }
        bytes[56..60].copy_from_slice(&self.records.to_le_bytes());
        bytes[60..64].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[64..68].copy_from_slice(&self.table_checksum.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..68]);
        bytes[68..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if it is one: magic, checksum and every bound hold.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<GroupHeader> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if bytes[..4] != MAGIC || crc32fast::hash(&bytes[..68]) != word(68) {
            return None;
        }
        let header = GroupHeader {
            identity: long(8),
            sequence: long(16),
            page: word(4),
            first: Lsn(long(24)),
            durable: Lsn(long(32)),
            head_sequence: long(40),
            head_first: Lsn(long(48)),
            records: word(56),
            bytes: word(60),
            table_checksum: word(64),
        };
        let length = u64::from(header.bytes);
        let inner = HEADER_BYTES as u64 + u64::from(header.records) * ENTRY_BYTES as u64;
        let sound = (inner..=GROUP_BYTES_MAX).contains(&length)
            && length.is_multiple_of(PAGE_BYTES)
            && header.first.0 < u64::MAX - u64::from(u32::MAX)
            && header.sequence < 1 << 60
            && header.durable < header.first
            && header.head_first > Lsn(0)
            && header.head_first <= header.first
            && header.head_sequence <= header.sequence.saturating_add(1);
        sound.then_some(header)
    }
}

/// One record's entry in its group's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record's owner.
    pub stream: StreamId,
    /// Bytes of its payload.
    pub bytes: u32,
    /// CRC-32 of its payload.
    pub checksum: u32,
}

impl Entry {
    /// The entry of a record with this payload.
    #[must_use]
    pub fn of(stream: StreamId, parts: &[Bytes]) -> Entry {
        let mut hasher = crc32fast::Hasher::new();
        let mut bytes = 0;
        for part in parts {
            hasher.update(part);
            bytes += part.len();
        }
        let bytes =
            u32::try_from(bytes).expect("a record is far below 4 GiB, which append asserts");
        Entry {
            stream,
            bytes,
            checksum: hasher.finalize(),
        }
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stream.0.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.checksum.to_le_bytes());
    }
}

/// Bytes of a group with so many records and so many bytes of payload.
#[must_use]
pub fn group_bytes(records: usize, payload_bytes: u64) -> u64 {
    ((HEADER_BYTES + records * ENTRY_BYTES) as u64 + payload_bytes).next_multiple_of(PAGE_BYTES)
}

/// Header and table of a group, one behind the other. Sets the header's count and table checksum.
#[must_use]
pub fn front(mut header: GroupHeader, entries: &[Entry]) -> Bytes {
    let mut front = vec![0; HEADER_BYTES];
    front.reserve_exact(entries.len() * ENTRY_BYTES);
    for entry in entries {
        entry.encode(&mut front);
    }
    header.records = u32::try_from(entries.len()).expect("a group has at most a thousand records");
    header.table_checksum = crc32fast::hash(&front[HEADER_BYTES..]);
    front[..HEADER_BYTES].copy_from_slice(&header.encode());
    Bytes::from(front)
}

/// The records of a group, if the whole of it is valid; else what is wrong. The payloads share `group`.
///
/// # Errors
/// A few words on the first thing found wrong.
pub fn records(
    header: &GroupHeader,
    group: &Bytes,
) -> Result<Vec<(StreamId, Bytes)>, &'static str> {
    let table_end = HEADER_BYTES + header.records as usize * ENTRY_BYTES;
    let table = group
        .get(HEADER_BYTES..table_end)
        .ok_or("the group's table is cut off")?;
    if crc32fast::hash(table) != header.table_checksum && !Mutation::TakeTornTail.is_on() {
        return Err("the checksum of the group's table is wrong");
    }
    let mut records = Vec::with_capacity(header.records as usize);
    let mut at = table_end;
    for entry in table.chunks_exact(ENTRY_BYTES) {
        let word = |at: usize| {
            u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
        };
        let stream = StreamId(u64::from(word(0)) | u64::from(word(4)) << 32);
        let end = at.saturating_add(word(8) as usize);
        let payload = group
            .get(at..end)
            .ok_or("a record reaches past the end of its group")?;
        if crc32fast::hash(payload) != word(12) && !Mutation::TakeTornTail.is_on() {
            return Err("the checksum of a record is wrong");
        }
        records.push((stream, group.slice(at..end)));
        at = end;
    }
    Ok(records)
}

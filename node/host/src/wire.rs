//! How records and messages look in bytes: in the journal and between replicas. All integers are little-endian; every decoder is
//! total and bounded.
//!
//! A record's head is the same in the journal and on the wire, so it is made once for both:
//!
//! ```text
//! 0   u8   1 (record)         1   u8   kind: 0 write, 1 clear     2  u16  flags: 1, that it is held is enough
//! 4   u32  generation, 8 u32 number: the sender's epoch           12 u32  generation, 16 u32 number: the record's epoch
//! 20  u64  seq                28  u64  committed                  36 u64  first block      44 u64  blocks
//! 52  u32  checksum of each block (write only), then the blocks
//! ```
//!
//! Everything else is a tag byte and a bincode value: 2 a message between replicas, 3 a change (journal), 4 a question or answer of copying.
//! Behind a message that acknowledges records (`Acked`, `Held`) stands a u32: how many microseconds the newest of them took in the
//! sender's journal. It is for figures only: who does not know it passes over it, and who sends none is not measured.

use bincode::config::{Configuration as Coding, Fixint, Limit, LittleEndian};
use bytes::{BufMut, Bytes, BytesMut};
use isthmus_engine::{
    BLOCK_BYTES, BlockRange, Entry, Epoch, Message, Position, RecordKind, Seq, VolumeId,
    block_checksum,
};
use isthmus_volume::BLOCKS_MAX;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Blocks in a record that carries bytes, at most: 1 MiB.
pub const RECORD_BLOCKS_MAX: u64 = 256;
/// Bytes that a tagged value may take.
const VALUE_BYTES_MAX: usize = 4 << 20;
const HEAD_BYTES: usize = 52;

const TAG_RECORD: u8 = 1;
/// A flag of a record: its holder need not make it durable before it says that it has it. Unknown flags are passed over.
const HELD_IS_ENOUGH: u16 = 1;
/// A message between replicas.
pub const TAG_MESSAGE: u8 = 2;
/// A change, in the journal.
pub const TAG_CHANGE: u8 = 3;
/// A question or answer of copying.
pub const TAG_COPY: u8 = 4;

/// The bytes of a record: whole blocks and a checksum for each.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    /// The blocks, one behind the other; empty for a clear.
    pub data: Bytes,
    /// A checksum for each block.
    pub checksums: Arc<[u32]>,
}

impl Payload {
    /// Takes whole blocks and computes their checksums.
    #[must_use]
    pub fn new(volume: VolumeId, range: BlockRange, data: Bytes) -> Payload {
        assert_eq!(
            data.len() as u64,
            range.bytes(),
            "a payload is exactly its blocks"
        );
        let checksums = data
            .chunks_exact(BLOCK_BYTES as usize)
            .zip(range.start..)
            .map(|(block, number)| block_checksum(volume, number, block))
            .collect();
        Payload { data, checksums }
    }

    /// Whether every block still is what its checksum says.
    #[must_use]
    pub fn is_sound(&self, volume: VolumeId, range: BlockRange) -> bool {
        self.data
            .chunks_exact(BLOCK_BYTES as usize)
            .zip(range.start..)
            .zip(self.checksums.iter())
            .all(|((block, number), checksum)| block_checksum(volume, number, block) == *checksum)
    }
}

/// A record as it came from the journal or a peer.
#[derive(Clone, Debug)]
pub struct Record {
    /// The epoch under which it was sent.
    pub epoch: Epoch,
    /// Without its bytes.
    pub entry: Entry,
    /// The sender's committed position.
    pub committed: Seq,
    /// Whether it is enough that its holder's kernel has it.
    pub held_is_enough: bool,
    /// Its bytes.
    pub payload: Payload,
}

/// What is wrong with some bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// The head of a record that has to be durable; its blocks follow.
#[must_use]
pub fn record_head(epoch: Epoch, entry: &Entry, committed: Seq, checksums: &[u32]) -> Bytes {
    head_with(0, epoch, entry, committed, checksums)
}

/// The head of a record of which it is enough that its holder's kernel has it; its blocks follow.
#[must_use]
pub fn record_head_to_be_held(
    epoch: Epoch,
    entry: &Entry,
    committed: Seq,
    checksums: &[u32],
) -> Bytes {
    head_with(HELD_IS_ENOUGH, epoch, entry, committed, checksums)
}

fn head_with(flags: u16, epoch: Epoch, entry: &Entry, committed: Seq, checksums: &[u32]) -> Bytes {
    let mut head = BytesMut::with_capacity(HEAD_BYTES + checksums.len() * 4);
    head.put_u8(TAG_RECORD);
    head.put_u8(match entry.kind {
        RecordKind::Write => 0,
        RecordKind::Clear => 1,
    });
    head.put_u16_le(flags);
    for epoch in [epoch, entry.position.epoch] {
        head.put_u32_le(epoch.generation);
        head.put_u32_le(epoch.number);
    }
    for value in [
        entry.position.seq.0,
        committed.0,
        entry.range.start,
        entry.range.count,
    ] {
        head.put_u64_le(value);
    }
    for checksum in checksums {
        head.put_u32_le(*checksum);
    }
    head.freeze()
}

/// A record from its bytes. The payload shares them.
///
/// # Errors
/// When they are no record of this volume, of whatever size, or a block is not what its checksum says.
pub fn decode_record(bytes: &Bytes, volume: VolumeId) -> Result<Record, Malformed> {
    let malformed = |what: &str| Malformed(format!("not a record of {volume}: {what}"));
    if bytes.len() < HEAD_BYTES || bytes[0] != TAG_RECORD {
        return Err(malformed("too short, or another kind"));
    }
    let number =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let long = |at: usize| u64::from(number(at)) | u64::from(number(at + 4)) << 32;
    let epoch = |at: usize| Epoch {
        generation: number(at),
        number: number(at + 4),
    };
    let range = BlockRange::new(long(36), long(44));
    if range.count == 0 || !range.fits(BLOCKS_MAX) {
        return Err(malformed("its blocks are outside any volume"));
    }
    let kind = match bytes[1] {
        0 => RecordKind::Write,
        1 => RecordKind::Clear,
        other => return Err(malformed(&format!("unknown kind {other}"))),
    };
    let payload = match kind {
        RecordKind::Clear if bytes.len() == HEAD_BYTES => Payload::default(),
        RecordKind::Clear => return Err(malformed("a clear carries no bytes")),
        RecordKind::Write => {
            if range.count > RECORD_BLOCKS_MAX
                || bytes.len() as u64 != HEAD_BYTES as u64 + range.count * (4 + BLOCK_BYTES)
            {
                return Err(malformed("its length does not fit its blocks"));
            }
            let data_at = HEAD_BYTES + range.count as usize * 4;
            let checksums = (HEAD_BYTES..data_at).step_by(4).map(number).collect();
            Payload {
                data: bytes.slice(data_at..),
                checksums,
            }
        }
    };
    if !payload.is_sound(volume, range) {
        return Err(malformed("a block is not what its checksum says"));
    }
    let entry = Entry {
        position: Position {
            epoch: epoch(12),
            seq: Seq(long(20)),
        },
        kind,
        range,
    };
    Ok(Record {
        epoch: epoch(4),
        entry,
        committed: Seq(long(28)),
        held_is_enough: u16::from_le_bytes([bytes[2], bytes[3]]) & HELD_IS_ENOUGH != 0,
        payload,
    })
}

/// Whether the bytes begin as a record.
#[must_use]
pub fn is_record(bytes: &[u8]) -> bool {
    bytes.first() == Some(&TAG_RECORD)
}

fn coding() -> Coding<LittleEndian, Fixint, Limit<VALUE_BYTES_MAX>> {
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<VALUE_BYTES_MAX>()
}

/// A tagged value.
#[must_use]
pub fn encode_value<T: Serialize>(tag: u8, value: &T) -> Bytes {
    Bytes::from(tagged(tag, value))
}

fn tagged<T: Serialize>(tag: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![tag];
    bincode::serde::encode_into_std_write(value, &mut bytes, coding())
        .expect("values of ours are in bounds, and memory takes all bytes");
    bytes
}

/// A message between replicas; `took` goes with it where it acknowledges records.
#[must_use]
pub fn encode_message(message: &Message, took: Duration) -> Bytes {
    let mut bytes = tagged(TAG_MESSAGE, message);
    if matches!(message, Message::Acked { .. } | Message::Held { .. }) {
        bytes.put_u32_le(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }
    Bytes::from(bytes)
}

/// How long the newest record of an acknowledgement took in its sender's journal, from what stands behind the message.
#[must_use]
pub fn took(rest: &[u8]) -> Option<Duration> {
    let microseconds = rest.first_chunk()?;
    Some(Duration::from_micros(
        u32::from_le_bytes(*microseconds).into(),
    ))
}

/// A tagged value from its bytes, and how many bytes it took; what follows is its body.
///
/// # Errors
/// When they are none of this type, or another tag.
pub fn decode_value<T: DeserializeOwned>(tag: u8, bytes: &[u8]) -> Result<(T, usize), Malformed> {
    let rest = bytes
        .strip_prefix(&[tag])
        .ok_or_else(|| Malformed(format!("tag {tag} expected, found {:?}", bytes.first())))?;
    let (value, used) = bincode::serde::decode_from_slice(rest, coding())
        .map_err(|error| Malformed(format!("value with tag {tag}: {error}")))?;
    Ok((value, used + 1))
}

/// A checkpoint's state. Without a limit: it is ours, and checked by the superblock's checksum.
pub(crate) fn encode_state<T: Serialize>(state: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(state, bincode::config::standard())
        .expect("memory takes all bytes")
}

/// A part of a checkpoint's state from its bytes, and what follows it.
pub(crate) fn decode_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), Malformed> {
    bincode::serde::decode_from_slice(bytes, bincode::config::standard())
        .map(|(state, used)| (state, &bytes[used..]))
        .map_err(|error| Malformed(format!("a checkpoint's state: {error}")))
}

/// The hash by which two replicas see that a block is the same on both: 128 bits of BLAKE3.
pub type BlockHash = [u8; 16];

/// What copying says, from joiner to primary and back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Copying {
    /// Joiner to primary: "what is in these blocks, where it is not what I have?"
    Want {
        /// Names the question.
        id: u64,
        /// The blocks: at most [`COPY_BLOCKS_MAX`].
        range: BlockRange,
        /// The hash of each block as the joiner has it; all ones where it can't read its own.
        hashes: Vec<BlockHash>,
        /// How much may differ still, and how much did when copying began, in bytes: for people.
        left_bytes: u64,
        /// See `left_bytes`.
        total_bytes: u64,
    },
    /// The answer. The bytes of blocks that are in neither mask follow, in order.
    Have {
        /// Which question.
        id: u64,
        /// The position that the blocks reflect: all records up to it, none after it.
        as_of: Seq,
        /// Blocks (bit i: the i-th) that are what the joiner has.
        same: u64,
        /// Blocks that are holes.
        holes: u64,
        /// Blocks that the primary can't read itself.
        bad: u64,
        /// The checksums of the blocks that follow.
        checksums: Vec<u32>,
    },
    /// Between members of the set: "what is in these blocks? Mine are bad."
    Mend {
        /// Names the question.
        id: u64,
        /// The epoch of both.
        epoch: Epoch,
        /// The asker's committed position: older blocks are of no use.
        committed: Seq,
        /// At most [`BLOCKS_MENDED_MAX`].
        range: BlockRange,
        /// Which blocks of the range (bit i: the i-th).
        blocks: u64,
    },
    /// The answer. The bytes of blocks that were asked for and are in neither mask follow, in order.
    Mended {
        /// Which question.
        id: u64,
        /// The position that the blocks reflect: all records up to it, none after it.
        as_of: Seq,
        /// Blocks that are holes, or all zeroes.
        holes: u64,
        /// Blocks that are bad here, too.
        bad: u64,
        /// The checksums of the blocks that follow.
        checksums: Vec<u32>,
    },
    /// Primary to member: "is there room for more data of this volume where you are?"
    AskSpace {
        /// Slots that what I have under way may need, some of it on its way to you.
        slots: u32,
    },
    /// The answer.
    Space {
        /// Whether there is none.
        short: bool,
    },
}

/// Blocks asked for in one question about bad ones, at most: 256 KiB.
pub const BLOCKS_MENDED_MAX: u64 = 64;
/// Blocks asked for in one question, at most: 256 KiB.
pub const COPY_BLOCKS_MAX: u64 = 64;

/// The hash of a block's bytes.
#[must_use]
pub fn block_hash(block: &[u8]) -> BlockHash {
    let mut hash = BlockHash::default();
    hash.copy_from_slice(&blake3::hash(block).as_bytes()[..16]);
    hash
}

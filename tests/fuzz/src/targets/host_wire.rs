//! Records, messages and copies between replicas, and records in the journal: the host's wire format.

use bytes::Bytes;
use isthmus_engine::{
    BLOCK_BYTES, BlockRange, Configuration, Entry, Epoch, History, Incarnation, Message, NodeId,
    Position, RecordKind, ReplicaId, Seq, Time, VolumeId, block_checksum,
};
use isthmus_host::wire::{
    self, Copying, Payload, TAG_COPY, TAG_MESSAGE, decode_record, decode_value, encode_value,
    record_head,
};
use isthmus_volume::BLOCKS_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

const VOLUME: VolumeId = VolumeId(7);
const BLOCKS: u64 = 1 << 20;
/// Bytes of a record before its checksums.
const HEAD_BYTES: usize = 52;

/// [`decode_record`].
pub struct Records;

pub(super) fn epoch(random: &mut Random) -> Epoch {
    Epoch {
        generation: random.below(3) as u32,
        number: random.number() as u32,
    }
}

/// Repairs a record's length and the checksums of its blocks.
pub(super) fn reseal_record(bytes: &mut Vec<u8>, volume: VolumeId, random: &mut Random) {
    if bytes.len() < HEAD_BYTES + 4 || bytes[1] != 0 {
        return;
    }
    let each = 4 + BLOCK_BYTES as usize;
    let count = (bytes.len() - HEAD_BYTES) / each;
    // What does not fill a block is cut, or the length could not fit.
    if count > 0 && !random.once_in(4) {
        bytes.truncate(HEAD_BYTES + count * each);
        bytes[44..52].copy_from_slice(&(count as u64).to_le_bytes());
    }
    let start = bytes[36..44].try_into().map_or(0, u64::from_le_bytes);
    let data_at = (HEAD_BYTES + count * 4).min(bytes.len());
    let (head, data) = bytes.split_at_mut(data_at);
    let blocks = data.chunks_exact(BLOCK_BYTES as usize);
    for ((block, place), number) in blocks.zip(head[HEAD_BYTES..].chunks_exact_mut(4)).zip(0..) {
        let checksum = block_checksum(volume, start.wrapping_add(number), block);
        place.copy_from_slice(&checksum.to_le_bytes());
    }
}

impl Target for Records {
    fn name(&self) -> &'static str {
        "host-record"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let kind = if random.once_in(2) {
            RecordKind::Clear
        } else {
            RecordKind::Write
        };
        let range = BlockRange::new(random.below(BLOCKS - 4), random.below(3) + 1);
        let payload = match kind {
            RecordKind::Clear => Payload::default(),
            RecordKind::Write => {
                let content = random.next_u64().to_le_bytes();
                let bytes = content.repeat((range.bytes() / 8) as usize);
                Payload::new(VOLUME, range, Bytes::from(bytes))
            }
        };
        let entry = Entry {
            position: Position {
                epoch: epoch(random),
                seq: Seq(random.number()),
            },
            kind,
            range,
        };
        let head = record_head(
            epoch(random),
            &entry,
            Seq(random.number()),
            &payload.checksums,
        );
        [head, payload.data].concat()
    }

    fn reseal(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        reseal_record(bytes, VOLUME, random);
    }

    fn input_bytes_max(&self) -> usize {
        20 << 10
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        // The record shares the input's memory; its checksums, and this check's own copies, come on top.
        4096 + 6 * input_bytes
    }

    fn refuses_prefixes(&self) -> bool {
        true
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let bytes = Bytes::copy_from_slice(input);
        let Ok(record) = decode_record(&bytes, VOLUME) else {
            return Verdict::Refused;
        };
        let range = record.entry.range;
        assert!(range.count > 0 && range.fits(BLOCKS_MAX));
        assert!(record.payload.is_sound(VOLUME, range));
        let is_write = record.entry.kind == RecordKind::Write;
        assert_eq!(
            record.payload.data.len() as u64,
            if is_write { range.bytes() } else { 0 }
        );
        let head = record_head(
            record.epoch,
            &record.entry,
            record.committed,
            &record.payload.checksums,
        );
        let mut canonical = input.to_vec();
        // Two bytes are left for later versions: they are passed over.
        canonical[2..4].fill(0);
        assert_eq!([&head[..], &record.payload.data].concat(), canonical);
        let elsewhere = decode_record(&bytes, VolumeId(8));
        assert!(!is_write || elsewhere.is_err(), "a block of another volume");
        Verdict::Accepted
    }
}

/// serde takes a length's word for 1 MiB at most, for each of a message's three sequences.
fn memory_bytes_max(input_bytes: usize) -> usize {
    (4 << 20) + 32 * input_bytes
}

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(tag: u8, input: &[u8]) -> Option<T> {
    let (value, used) = decode_value::<T>(tag, input).ok()?;
    assert!(used <= input.len());
    let bytes = encode_value(tag, &value);
    let (same, all) = decode_value::<T>(tag, &bytes).expect("what was decoded is a value");
    assert_eq!((&same, all), (&value, bytes.len()));
    Some(value)
}

/// [`Message`] behind its tag.
pub struct Messages;

impl Target for Messages {
    fn name(&self) -> &'static str {
        "host-message"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        encode_value(TAG_MESSAGE, &message(random)).to_vec()
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        memory_bytes_max(input_bytes)
    }

    fn refuses_prefixes(&self) -> bool {
        true
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let message = again::<Message>(TAG_MESSAGE, input);
        if let Some(Message::Join { history, .. } | Message::Report { history, .. }) = &message
            && history.is_sound()
        {
            // What is sound can be compared, whatever its positions are.
            let _ = history.common(Seq(5), history, Seq(u64::MAX));
            let _ = history.common(Seq(u64::MAX), &History::new(), Seq(0));
        }
        Verdict::of(&message)
    }
}

/// [`Copying`] behind its tag.
pub struct Copies;

impl Target for Copies {
    fn name(&self) -> &'static str {
        "host-copy"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let count = random.below(wire::COPY_BLOCKS_MAX) + 1;
        let copying = if random.once_in(2) {
            Copying::Want {
                id: random.number(),
                range: BlockRange::new(random.number(), count),
                hashes: (0..count)
                    .map(|_| wire::block_hash(&random.next_u64().to_le_bytes()))
                    .collect(),
                left_bytes: random.number(),
                total_bytes: random.number(),
            }
        } else {
            Copying::Have {
                id: random.number(),
                as_of: Seq(random.number()),
                same: random.next_u64(),
                holes: random.next_u64(),
                bad: 0,
                checksums: (0..count).map(|_| random.next_u64() as u32).collect(),
            }
        };
        encode_value(TAG_COPY, &copying).to_vec()
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        memory_bytes_max(input_bytes)
    }

    fn refuses_prefixes(&self) -> bool {
        true
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        Verdict::of(&again::<Copying>(TAG_COPY, input))
    }
}

fn configuration(random: &mut Random) -> Configuration {
    let replica = |random: &mut Random| ReplicaId {
        node: NodeId(random.below(4) as u32),
        incarnation: Incarnation(random.number()),
    };
    Configuration {
        epoch: epoch(random),
        primary: random.once_in(2).then(|| replica(random)),
        opened: random.once_in(2),
        in_sync: (0..random.below(4)).map(|_| replica(random)).collect(),
    }
}

fn history(random: &mut Random) -> History {
    let mut history = History::new();
    let (mut number, mut seq) = (0, 0);
    for _ in 0..random.below(9) {
        number += random.below(5) as u32 + 1;
        seq += random.below(50) + 1;
        let epoch = Epoch {
            generation: 0,
            number,
        };
        history.note(epoch, Seq(seq));
    }
    history
}

fn message(random: &mut Random) -> Message {
    let epoch = epoch(random);
    match random.below(11) {
        0 => Message::Prepare {
            configuration: configuration(random),
        },
        1 => Message::Report {
            epoch,
            history: history(random),
            end: Seq(random.number()),
            committed: Seq(random.number()),
        },
        2 => Message::Rewind {
            epoch,
            to: Seq(random.number()),
        },
        3 => Message::Join {
            epoch,
            common: random.once_in(2).then(|| Seq(random.number())),
            start: Seq(random.number()),
            history: history(random),
            dirty: random.once_in(2).then(|| random.bytes(20)),
        },
        4 => Message::Acked {
            epoch,
            durable: Seq(random.number()),
        },
        5 => Message::Configure {
            configuration: configuration(random),
        },
        6 => Message::Copied { epoch },
        7 => Message::GrantRequest {
            epoch,
            asked: Time(random.number()),
            committed: Seq(random.number()),
        },
        8 => Message::Grant {
            epoch,
            asked: Time(random.number()),
        },
        9 => Message::GiveUp { epoch },
        _ => Message::Stale { epoch },
    }
}

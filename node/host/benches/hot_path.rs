//! The pieces that every write passes, each alone, and a mirrored write through two whole hosts. Disks and link are simulated, so only
//! code of ours is timed; compare figures of one run only.
//!
//! `cargo bench -p isthmus-host`

#[path = "../tests/disks/world.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used)]
mod world;

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use isthmus_engine::{
    BLOCK_BYTES, BlockRange, Entry, Epoch, Position, RecordKind, Seq, VolumeId, block_checksum,
};
use isthmus_host::ClientRequest;
use isthmus_host::wire::{Payload, decode_record, record_head};
use isthmus_journal::{Journal, Shape, StreamId};
use isthmus_simulated_disk::SimulatedDisk;
use world::World;

const VOLUME: VolumeId = VolumeId(1);

fn main() {
    divan::main();
}

fn blocks(count: u64) -> (BlockRange, Bytes) {
    let range = BlockRange::new(7, count);
    (range, Bytes::from(vec![0xa5; range.bytes() as usize]))
}

fn entry(range: BlockRange) -> Entry {
    let epoch = Epoch {
        generation: 1,
        number: 9,
    };
    Entry {
        position: Position {
            epoch,
            seq: Seq(42),
        },
        kind: RecordKind::Write,
        range,
    }
}

#[divan::bench]
fn checksum_of_a_block(bencher: Bencher<'_, '_>) {
    let (_, data) = blocks(1);
    bencher
        .counter(BytesCount::new(BLOCK_BYTES))
        .bench(|| block_checksum(VOLUME, 7, black_box(&data)));
}

#[divan::bench(args = [1, 32])]
fn record_encode(bencher: Bencher<'_, '_>, count: u64) {
    let (range, data) = blocks(count);
    let entry = entry(range);
    bencher.counter(BytesCount::new(range.bytes())).bench(|| {
        let payload = Payload::new(VOLUME, range, data.clone());
        record_head(entry.position.epoch, &entry, Seq(41), &payload.checksums)
    });
}

#[divan::bench(args = [1, 32])]
fn record_decode(bencher: Bencher<'_, '_>, count: u64) {
    let (range, data) = blocks(count);
    let entry = entry(range);
    let payload = Payload::new(VOLUME, range, data.clone());
    let head = record_head(entry.position.epoch, &entry, Seq(41), &payload.checksums);
    let frame = Bytes::from([&head[..], &data[..]].concat());
    bencher
        .counter(BytesCount::new(range.bytes()))
        .bench(|| decode_record(black_box(&frame), VOLUME).map(|record| record.entry));
}

/// So many records of a block become durable together; what they took is given back.
#[divan::bench(args = [1, 32])]
fn journal_append(bencher: Bencher<'_, '_>, together: u64) {
    let shape = Shape {
        segment_bytes: 16 << 20,
        segments: 4,
    };
    let mut disk = SimulatedDisk::new(1);
    Journal::format(&mut disk, "journal", shape, 5).expect("a simulated disk takes a journal");
    let mut journal =
        Journal::open(&mut disk, "journal", 1, &mut |_, _, _| {}).expect("it was just formatted");
    let (range, data) = blocks(1);
    let head = record_head(entry(range).position.epoch, &entry(range), Seq(41), &[0]);
    let (mut now, mut completed) = (0, Vec::new());
    bencher.counter(ItemsCount::new(together)).bench_local(|| {
        let mut last = None;
        for _ in 0..together {
            last = journal
                .append(StreamId(1), &[head.clone(), data.clone()])
                .ok();
        }
        journal.step(&mut disk);
        while last.is_some_and(|last| journal.durable() < last) {
            now += 1_000_000;
            disk.advance(now);
            isthmus_journal::Disk::completed(&mut disk, &mut completed);
            for (id, result) in completed.drain(..) {
                journal
                    .on_completed(id, result)
                    .expect("a simulated disk writes unless told otherwise");
            }
            journal.step(&mut disk);
        }
        journal.release(StreamId(1), journal.next());
    });
}

/// A client's write of a block at one host, until both have it and the client has heard: both engines, journals and extents.
#[divan::bench]
fn mirrored_write(bencher: Bencher<'_, '_>) {
    let mut world = World::new(1, &[64]);
    world.attach(0, 1);
    let data = Bytes::from(vec![3; BLOCK_BYTES as usize]);
    let mut block = 0;
    bencher.bench_local(|| {
        block = (block + 17) % (64 * world::BLOCKS_A_MIB);
        let write = ClientRequest::Write {
            offset: block * BLOCK_BYTES,
            data: data.clone(),
        };
        let number = world.submit(0, 1, write);
        world.finish(number)
    });
}

/// A client's read of a block that is in its host's cache.
#[divan::bench]
fn read(bencher: Bencher<'_, '_>) {
    let mut world = World::new(1, &[64]);
    world.attach(0, 1);
    let data = Bytes::from(vec![3; 1 << 20]);
    let number = world.submit(0, 1, ClientRequest::Write { offset: 0, data });
    world.finish(number).expect("nothing fails here");
    let mut block = 0;
    bencher.bench_local(|| {
        block = (block + 17) % world::BLOCKS_A_MIB;
        let (offset, length) = (block * BLOCK_BYTES, BLOCK_BYTES);
        let number = world.submit(0, 1, ClientRequest::Read { offset, length });
        world.finish(number)
    });
}

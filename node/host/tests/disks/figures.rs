//! What a host counts and times, over the same two nodes.

use super::world::{BLOCKS_A_MIB, World};
use isthmus_engine::{BLOCK_BYTES, VolumeId};
use isthmus_host::{ClientRequest, EpochChange};
use std::time::Duration;

#[test]
fn a_writes_time_is_split_into_local_journal_wire_and_peer_journal() {
    let mut world = World::new(1, &[8]);
    world.attach(0, 1);
    for block in 0..20 {
        world.write(0, 1, block, 1, 7).unwrap();
    }
    let primary = world.figures(0, 1);
    let figures = &primary.figures;
    assert_eq!(figures.writes.latency.count(), 20);
    assert_eq!(figures.writes.bytes, 20 * BLOCK_BYTES);
    assert!(
        figures.journal.count() >= 20,
        "records, and what else was journalled"
    );
    assert_eq!(figures.wire.count(), figures.peer_journal.count());
    assert!(
        (1..=20).contains(&figures.wire.count()),
        "one for each acknowledgement with news: {}",
        figures.wire.count()
    );
    let parts = figures.wire.sum() + figures.peer_journal.sum();
    let longest = figures.writes.latency.sum() + Duration::from_millis(1);
    assert!(parts <= longest, "{parts:?} of {longest:?}");
    assert_eq!((primary.in_flight, primary.oldest), (0, Duration::ZERO));
    let secondary = world.figures(1, 1);
    assert!(secondary.figures.journal.count() >= 20);
    assert_eq!(secondary.figures.writes.latency.count(), 0);
    assert_eq!(secondary.figures.wire.count(), 0);
}

#[test]
fn requests_of_each_kind_are_counted_with_their_bytes() {
    let mut world = World::new(2, &[8]);
    world.attach(0, 1);
    world.write(0, 1, 0, BLOCKS_A_MIB, 7).unwrap();
    assert!(world.holds(0, 1, 0, 4, 7));
    world.trim(0, 1, 8, 8).unwrap();
    let flush = world.submit(0, 1, ClientRequest::Flush);
    world.finish(flush).unwrap();
    let measured = world.figures(0, 1);
    let figures = &measured.figures;
    assert_eq!(figures.reads.bytes, 4 * BLOCK_BYTES);
    assert_eq!(figures.writes.bytes, BLOCKS_A_MIB * BLOCK_BYTES);
    assert_eq!(figures.trims.bytes, 8 * BLOCK_BYTES);
    assert_eq!(figures.flushes.latency.count(), 1);
    assert_eq!(figures.failed, 0);
}

#[test]
fn a_freeze_and_what_ends_it_are_counted() {
    let mut world = World::new(3, &[8, 8]);
    world.attach(0, 1);
    world.write(0, 1, 0, 1, 7).unwrap();
    world.crash(1);
    let data = vec![1; BLOCK_BYTES as usize].into();
    let write = world.submit(0, 1, ClientRequest::Write { offset: 0, data });
    world.run_until("frozen, with a request that waits", |world| {
        let measured = world.figures(0, 1);
        !measured.frozen_for.is_zero() && !measured.oldest.is_zero() && measured.in_flight == 1
    });
    world.finish(write).unwrap();
    world.run_for(Duration::from_millis(300));
    let measured = world.figures(0, 1);
    assert_eq!(measured.frozen_for, Duration::ZERO);
    assert!(measured.figures.frozen > Duration::from_millis(100));
    let changes = measured.figures.epoch_changes;
    let count = |change: EpochChange| changes[change as usize];
    assert_eq!(count(EpochChange::Promotion), 1, "{changes:?}");
    assert_eq!(count(EpochChange::Shrink), 1, "{changes:?}");
}

#[test]
fn volumes_are_told_some_at_a_time() {
    let mut world = World::new(4, &[8, 8, 8]);
    let ids = |rows: Vec<isthmus_host::VolumeFigures>| -> Vec<VolumeId> {
        rows.iter().map(|row| row.status.volume).collect()
    };
    let now = world.now();
    let host = world.host(0);
    assert_eq!(ids(host.figures(now, None, 2)), [VolumeId(1), VolumeId(2)]);
    assert_eq!(ids(host.figures(now, Some(VolumeId(2)), 2)), [VolumeId(3)]);
    assert_eq!(ids(host.figures(now, Some(VolumeId(3)), 2)), []);
}

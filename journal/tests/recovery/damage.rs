//! Damage in the middle is reported and names its place; a torn tail is cut off without a word.

#![allow(clippy::unwrap_used)] // all of this is a test, but clippy sees no test function around the helpers

use crate::world::{FOLDER, IDENTITY, SMALL, TAG, World, payload, recover};
use bytes::Bytes;
use isthmus_journal::layout::{self, Entry, GroupHeader};
use isthmus_journal::{Disk, Journal, JournalError, Lsn, Shape, StreamId};
use isthmus_simulated_disk::{Random, SimulatedDisk};

/// A journal with `groups` durable groups of one 3,000-byte record, one a page, in file 0; then power is lost.
fn written(seed: u64, groups: u64) -> World {
    let mut world = World::new(seed, SMALL);
    let mut random = Random::new(seed);
    for _ in 0..groups {
        let payload = payload(&mut random, 3_000);
        world.append(1, &payload, 1, false).unwrap();
        world.settle();
    }
    world.disk.crash();
    world
}

#[test]
fn a_flipped_bit_in_any_record_but_the_last_is_damage_at_that_record() {
    let mut random = Random::new(9);
    for round in 0..300 {
        let mut world = written(round, 10);
        let group = random.below(9);
        let offset = group * 4096 + random.below(72 + 16 + 3_000);
        world
            .disk
            .flip_bit("journal/segment-0000", offset, random.below(8) as u8);
        match recover(&mut world.disk) {
            Err(JournalError::Damaged {
                segment,
                offset,
                reason,
            }) => {
                assert_eq!((segment, offset), (0, group * 4096), "{reason}");
            }
            other => panic!(
                "bit in group {group}: {:?}",
                other.map(|(_, records)| records.len())
            ),
        }
    }
}

#[test]
fn a_bad_last_group_is_a_torn_tail() {
    for offset in [0, 70, 80, 2_000] {
        let mut world = written(1, 10);
        world
            .disk
            .flip_bit("journal/segment-0000", 9 * 4096 + offset, 0);
        let (journal, records) = recover(&mut world.disk).unwrap();
        assert_eq!((records.len(), journal.next()), (9, Lsn(10)));
    }
}

#[test]
fn a_flipped_bit_in_padding_harms_nothing() {
    let mut world = written(1, 10);
    world.disk.flip_bit("journal/segment-0000", 4095, 0);
    let (_, records) = recover(&mut world.disk).unwrap();
    assert_eq!(records.len(), 10);
}

#[test]
fn a_damaged_first_group_of_a_later_segment_is_found_by_the_groups_behind_it() {
    let mut world = written(2, 20);
    // 15 groups fill the first segment; the last page is kept for a mark.
    world.disk.flip_bit("journal/segment-0001", 300, 3);
    let error = recover(&mut world.disk).unwrap_err();
    let JournalError::Damaged {
        segment: 0, offset, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(offset, 15 * 4096);
}

#[test]
fn a_lost_segment_in_the_middle_is_damage_and_a_missing_or_short_file_is_an_error() {
    let mut world = written(3, 40);
    world.disk.remove("journal/segment-0001").unwrap();
    assert!(matches!(
        recover(&mut world.disk),
        Err(JournalError::Io { .. })
    ));
    let file = world
        .disk
        .create("journal/segment-0001", 4096, true)
        .unwrap();
    assert!(matches!(
        recover(&mut world.disk),
        Err(JournalError::Damaged { segment: 1, .. })
    ));
    world.disk.resize(file, SMALL.segment_bytes, true).unwrap();
    assert!(matches!(
        recover(&mut world.disk),
        Err(JournalError::Damaged { segment: 0, .. })
    ));
}

#[test]
fn a_hole_in_front_of_groups_in_flight_is_a_torn_tail_and_never_comes_back() {
    let mut world = World::new(4, SMALL);
    let mut random = Random::new(4);
    world.journal.set_groups_in_flight(3);
    for _ in 0..3 {
        let payload = payload(&mut random, 3_000);
        world.append(1, &payload, 1, false).unwrap();
        world.step();
    }
    // All three reach the disk, but the process dies before it hears so; then the first one rots.
    world.disk.advance(1 << 40);
    world.disk.crash();
    world.disk.flip_bit("journal/segment-0000", 2_000, 1);
    world.durable = Lsn(0);
    world.restart();
    assert_eq!(world.journal.next(), Lsn(1));
    // A new record ends exactly where the old second group began.
    let payload = payload(&mut random, 3_000);
    world.append(1, &payload, 1, false).unwrap();
    world.settle();
    world.disk.crash();
    world.restart();
    assert_eq!(world.journal.next(), Lsn(2));
}

#[test]
fn a_damaged_group_that_is_no_longer_needed_harms_nothing() {
    let mut world = written(5, 0);
    world.restart();
    let mut random = Random::new(5);
    for _ in 0..40 {
        let payload = payload(&mut random, 3_000);
        world.append(1, &payload, 1, false).unwrap();
        world.settle();
        world.release(1, world.journal.next());
    }
    world.disk.crash();
    world.disk.flip_bit("journal/segment-0000", 2_000, 1);
    world.restart();
}

#[test]
fn a_failed_write_stops_the_journal_for_good() {
    let mut world = written(6, 3);
    world.restart();
    world.append(1, b"lost", 1, false).unwrap();
    world.disk.fail_writes("journal/segment-0000");
    world.journal.step(&mut world.disk);
    world.disk.advance(1 << 40);
    let mut completed = Vec::new();
    world.disk.completed(&mut completed);
    let (id, result) = completed.remove(0);
    let error = world.journal.on_completed(id, result).unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::WriteFailed {
                first: Lsn(4),
                last: Lsn(4),
                ..
            }
        ),
        "{error}"
    );
    assert!(world.journal.has_failed());
    assert_eq!(world.journal.durable(), Lsn(3));
    assert!(world.append(1, b"refused", 1, true).is_err());
    world.disk.heal();
    world.journal.step(&mut world.disk);
    assert_eq!(
        world.disk.next_event(),
        None,
        "nothing is written after a failure"
    );
}

#[test]
fn a_read_error_at_recovery_names_the_file() {
    let mut world = written(7, 3);
    world.disk.fail_reads("journal/segment-0000", 4096..4097);
    let error = recover(&mut world.disk).unwrap_err().to_string();
    assert!(error.contains("journal/segment-0000"), "{error}");
}

#[test]
fn formatting_never_destroys_a_journal_and_takes_up_an_interrupted_one() {
    let mut world = written(8, 3);
    let again = Journal::format(&mut world.disk, FOLDER, SMALL, 1);
    assert!(matches!(again, Err(JournalError::AlreadyFormatted { .. })));
    // One bad copy of the description is no loss; two are.
    world.disk.flip_bit("journal/description", 9, 0);
    assert_eq!(recover(&mut world.disk).unwrap().1.len(), 3);
    world.disk.flip_bit("journal/description", 4096 + 9, 0);
    assert!(matches!(
        recover(&mut world.disk),
        Err(JournalError::BadDescription { .. })
    ));
    assert!(Journal::format(&mut world.disk, FOLDER, SMALL, 1).is_err());

    let mut disk = SimulatedDisk::new(1);
    disk.create("journal/segment-0000", 123, false).unwrap();
    assert!(matches!(
        recover(&mut disk),
        Err(JournalError::NotFormatted { .. })
    ));
    Journal::format(&mut disk, FOLDER, SMALL, IDENTITY).unwrap();
    assert!(recover(&mut disk).is_ok());
}

#[test]
fn a_full_disk_refuses_the_format_and_never_a_later_write() {
    let mut disk = SimulatedDisk::new(1);
    disk.set_capacity_bytes(Some(SMALL.segment_bytes * 3));
    assert!(matches!(
        Journal::format(&mut disk, FOLDER, SMALL, 1),
        Err(JournalError::Io { .. })
    ));
    disk.set_capacity_bytes(Some(SMALL.segment_bytes * 5 + 8192));
    Journal::format(&mut disk, FOLDER, SMALL, 1).unwrap();
    assert!(recover(&mut disk).is_ok());
}

#[test]
fn shapes_out_of_bounds_are_refused() {
    for (segment_bytes, segments) in [
        (0, 16),
        (4096, 16),
        ((64 << 10) + 1, 16),
        (2 << 30, 16),
        (64 << 10, 3),
        (64 << 10, 1025),
    ] {
        let shape = Shape {
            segment_bytes,
            segments,
        };
        let refused = Journal::format(&mut SimulatedDisk::new(1), FOLDER, shape, 1);
        assert!(
            matches!(refused, Err(JournalError::BadShape { .. })),
            "{shape:?}"
        );
    }
}

#[test]
fn what_a_client_writes_never_passes_for_a_group() {
    // A client knows the format, and foresees the use, the place and the position of a group that is yet to come, but
    // not the journal's identity. Its payload puts a forged group just where the next lap's second group will begin.
    let forged_record = [Bytes::from_static(b"forged")];
    let forged = GroupHeader {
        identity: IDENTITY + 1,
        sequence: u64::from(SMALL.segments) * 2,
        page: 1,
        first: Lsn(27),
        durable: Lsn(0),
        head_sequence: u64::from(SMALL.segments),
        head_first: Lsn(1),
        records: 1,
        bytes: 4096,
        table_checksum: 0,
    };
    let mut world = World::new(11, SMALL);
    let groups_of_three_pages = 5 * u64::from(SMALL.segments);
    for _ in 0..groups_of_three_pages {
        let mut payload = vec![0; 3 * 4096 - 88];
        let front = layout::front(forged, &[Entry::of(StreamId(1), &forged_record)]);
        payload[4096 - 88..][..front.len()].copy_from_slice(&front);
        payload[4096..][..6].copy_from_slice(&forged_record[0]);
        let lsn = world.append(1, &payload, 1, false).unwrap();
        world.settle();
        world.release(1, lsn);
    }
    world.append(1, b"the next lap", 1, false).unwrap();
    world.settle();
    assert!(
        world
            .disk
            .peek("journal/segment-0000", 4096 + 88, 6)
            .unwrap()
            == b"forged"
    );
    world.disk.crash();
    world.restart();
    assert_eq!(world.journal.next(), Lsn(27));
}

#[test]
fn the_ordinary_may_not_take_the_reserve_and_the_reserved_may() {
    let mut world = World::new(12, SMALL);
    let mut random = Random::new(12);
    let mut count = 0;
    while world
        .append(1, &payload(&mut random, 3_000), 1, false)
        .is_ok()
    {
        count += 1;
        world.settle();
    }
    // 15 groups in each of 4 segments, one a page; the fifth is the reserve.
    assert_eq!(count, 60);
    let mut reserved = 0;
    while world
        .append(2, &payload(&mut random, 3_000), 1, true)
        .is_ok()
    {
        reserved += 1;
        world.settle();
        assert!(
            world.append(1, b"x", 1, false).is_err(),
            "the reserve is not for this"
        );
    }
    assert_eq!(reserved, 15);
    assert_eq!(world.journal.pinned_by(), Some((StreamId(1), Lsn(1))));
    world.disk.crash();
    world.restart();
    assert!(
        world
            .append(2, b"x".repeat(3_000).as_slice(), 1, true)
            .is_err()
    );

    // Full to the last page, the journal still gets out: the release is written as a mark, then a segment is used again.
    world.release(1, Lsn(16));
    assert_eq!(world.journal.pinned_by(), Some((StreamId(1), Lsn(16))));
    assert!(
        world.append(1, b"x", 1, false).is_err(),
        "one free segment is the reserve"
    );
    world.append(2, b"vote", 1, true).unwrap();
    world.settle();
    world.release(1, Lsn(46));
    world.append(1, b"data", 1, false).unwrap();
    world.settle();
    world.disk.crash();
    world.restart();
}

#[test]
fn queued_records_share_one_write() {
    let mut world = World::new(13, SMALL);
    for _ in 0..100 {
        world.append(1, b"0123456789", 1, false).unwrap();
    }
    world.journal.step(&mut world.disk);
    world.disk.advance(1 << 40);
    let mut completed = Vec::new();
    world.disk.completed(&mut completed);
    assert_eq!(completed.len(), 1);
    let (id, result) = completed.remove(0);
    assert_eq!(id.tag(), TAG);
    world.journal.on_completed(id, result).unwrap();
    assert_eq!(world.journal.durable(), Lsn(100));
    assert_eq!(
        world.journal.used_bytes(),
        4096,
        "100 * (10 + 16) + 72 bytes fit in one page"
    );
}

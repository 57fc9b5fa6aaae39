//! Crash and recover, from seeds: whatever was reported durable and not released is there afterwards, nothing else is.

use crate::world::{How, SMALL, World, payload};
use isthmus_journal::{Lsn, Shape, StreamId};
use isthmus_simulated_disk::Random;

/// One life after another on one disk: random appends, releases and steps, then a crash or a kill at any point.
fn lives(seed: u64, shape: Shape, lives: u32, record_bytes_max: u64) -> (u64, u64) {
    let mut random = Random::new(seed ^ 0xa5a5);
    let mut world = World::new(seed, shape);
    let mut refused = 0;
    for _ in 0..lives {
        world
            .journal
            .set_groups_in_flight(1 + random.below(4) as u32);
        let lazy = random.chance(1, 4);
        // Of ten records, so many need only be written.
        let held = random.below(11);
        for _ in 0..random.below(120) {
            match random.below(10) {
                0..=4 => {
                    let bytes = random.below(record_bytes_max + 1) as usize;
                    let payload = payload(&mut random, bytes);
                    let parts = 1 + random.below(5) as usize;
                    let how = match random.below(20) {
                        0 => How::Reserved,
                        _ if random.chance(held, 10) => How::Held,
                        _ => How::Durable,
                    };
                    if random.chance(1, 15) {
                        world.journal.sync();
                    }
                    if world
                        .append_as(how, random.below(4), &payload, parts)
                        .is_err()
                    {
                        refused += 1;
                        let next = world.journal.next();
                        (0..4).for_each(|stream| world.release(stream, next));
                    }
                }
                5..=6 => world.step(),
                7..=8 => {
                    world.advance();
                }
                _ if lazy => {}
                _ => {
                    let before = Lsn(world.journal.durable().0.saturating_sub(random.below(12)));
                    world.release(random.below(4), before);
                }
            }
        }
        if random.chance(1, 3) {
            world.disk.reopen();
            world.restart_after_kill();
        } else {
            world.disk.crash();
            world.restart();
        }
        if random.chance(1, 4) {
            // The very next thing after recovery is another crash.
            world.disk.crash();
            world.restart();
        }
        world.forget();
    }
    world.settle();
    (world.journal.next().0, refused)
}

#[test]
fn a_durable_record_survives_any_crash_and_nothing_else_appears() {
    let mut records = 0;
    let mut refused = 0;
    for seed in 0..300 {
        let (next, full) = lives(seed, SMALL, 12, 9_000);
        records += next;
        refused += full;
    }
    assert!(
        records > 50_000,
        "the runs must do something: {records} records"
    );
    assert!(
        refused > 100,
        "some runs must fill the journal: {refused} refusals"
    );
}

#[test]
fn many_small_records_in_the_smallest_journal_survive_crashes() {
    for seed in 1_000..1_100 {
        let shape = Shape {
            segment_bytes: 64 << 10,
            segments: 4,
        };
        lives(seed, shape, 12, 300);
    }
}

#[test]
fn records_as_long_as_a_segment_survive_crashes() {
    for seed in 2_000..2_060 {
        lives(seed, SMALL, 8, 56 << 10);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let mut world = World::new(5, SMALL);
        let mut random = Random::new(5);
        for _ in 0..50 {
            let payload = payload(&mut random, 3_000);
            world.append(1, &payload, 2, false).unwrap();
            world.step();
        }
        world.disk.crash();
        let paths: Vec<String> = world.disk.paths().map(str::to_owned).collect();
        paths
            .into_iter()
            .map(|path| (world.disk.dump(&path), path))
            .collect::<Vec<_>>()
    };
    assert!(run() == run());
}

#[test]
fn segments_are_recycled_for_many_laps() {
    let mut world = World::new(1, SMALL);
    let mut random = Random::new(1);
    let mut bytes = 0;
    while bytes < 40 * world.journal.capacity_bytes() {
        let payload = payload(&mut random, 5_000);
        let lsn = world.append(1, &payload, 1, false).unwrap();
        bytes += 5_000;
        if random.chance(1, 5) {
            world.settle();
            world.release(1, lsn);
            world.forget();
        }
    }
    world.settle();
    world.disk.crash();
    world.restart();
    assert!(world.journal.used_bytes() <= world.journal.capacity_bytes());
}

#[test]
fn a_killed_process_loses_nothing_that_recovery_gave_back_even_if_power_is_lost_next() {
    for seed in 0..200 {
        let mut world = World::new(seed, SMALL);
        let mut random = Random::new(seed);
        for _ in 0..1 + random.below(20) {
            let payload = payload(&mut random, 2_000);
            world.append(1, &payload, 1, false).unwrap();
            if random.chance(1, 3) {
                world.step();
            }
            if random.chance(1, 3) {
                world.advance();
            }
        }
        world.disk.reopen();
        world.restart();
        // Restart has set what is durable to all that was recovered; this must now hold against a loss of power.
        world.disk.crash();
        world.restart();
    }
}

#[test]
fn releases_beyond_the_end_do_not_release_later_records() {
    let mut world = World::new(3, SMALL);
    world.append(1, b"first", 1, false).unwrap();
    world.settle();
    world.journal.release(StreamId(1), Lsn(u64::MAX));
    let lsn = world.append(1, b"second", 1, false).unwrap();
    world.settle();
    assert_eq!(world.journal.pinned_by(), Some((StreamId(1), lsn)));
}

#[test]
fn a_durable_record_makes_those_before_it_durable() {
    for seed in 0..300 {
        let mut world = World::new(seed, SMALL);
        let mut random = Random::new(seed);
        let held = 1 + random.below(30);
        for stream in 0..held {
            let payload = payload(&mut random, 3_000);
            world.append_as(How::Held, stream, &payload, 1).unwrap();
            world.step();
            while world.journal.written().next() < world.journal.next() && world.advance() {}
        }
        if held <= 12 {
            assert_eq!(world.journal.durable(), Lsn(0), "nobody asked for a sync");
        }
        let lsn = world.append(99, b"durable", 1, false).unwrap();
        world.step();
        while world.journal.durable() < lsn {
            assert!(world.advance());
        }
        world.disk.crash();
        world.restart();
        assert!(world.journal.next() > lsn, "seed {seed}");
    }
}

#[test]
fn what_is_only_written_lies_in_two_segments_at_most() {
    let mut world = World::new(11, SMALL);
    let mut random = Random::new(11);
    // A third segment is begun only when the first is durable.
    let mut bytes = 0;
    while bytes < 2 * SMALL.segment_bytes {
        let payload = payload(&mut random, 5_000);
        world.append_as(How::Held, 1, &payload, 1).unwrap();
        bytes += 5_000;
        world.step();
        while world.journal.written().next() < world.journal.next() && world.advance() {}
    }
    assert!(world.journal.durable() > Lsn(0));
    world.disk.reopen();
    world.restart_after_kill();
}

#[test]
fn a_sync_with_nothing_to_make_durable_does_nothing() {
    let mut world = World::new(12, SMALL);
    world.append(1, b"durable", 1, false).unwrap();
    world.settle();
    world.journal.sync();
    world.step();
    assert!(world.journal.is_idle());
}

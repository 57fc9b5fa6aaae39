//! Row 13: a disk that is full, fails or is read-only on one side is that replica's matter.

use super::world::{BLOCKS_A_MIB, World};
use isthmus_host::FaultKind;
use isthmus_simulated_disk::Operation;
use std::time::Duration;

fn served() -> World {
    let mut world = World::new(1, &[32, 8]);
    world.attach(0, 1);
    world.write(0, 1, 0, BLOCKS_A_MIB, 7).unwrap();
    world
}

fn fault(world: &World, node: usize, volume: u64) -> Option<FaultKind> {
    world.status(node, volume).fault.map(|fault| fault.kind)
}

#[test]
fn a_full_secondary_leaves_at_once_and_comes_back_when_there_is_space() {
    let mut world = served();
    let full = world.disk(1).allocated_bytes();
    world.disk(1).set_capacity_bytes(Some(full));
    for mib in 1..30 {
        world
            .write(0, 1, mib * BLOCKS_A_MIB, BLOCKS_A_MIB, mib as u8)
            .unwrap();
    }
    assert!(!world.is_in_set(1, 1) && world.is_in_set(1, 0));
    assert_eq!(fault(&world, 1, 1), Some(FaultKind::Full));
    assert!(world.demoted.is_empty(), "no client noticed");
    world.run_for(Duration::from_secs(5));
    assert_eq!(fault(&world, 1, 1), Some(FaultKind::Full));
    world.disk(1).set_capacity_bytes(None);
    world.run_until("it is back", |world| world.is_in_set(1, 1));
    assert_eq!(fault(&world, 1, 1), None);
    world.detach(0, 1);
    world.attach(1, 1);
    for mib in 1..30 {
        assert!(world.holds(1, 1, mib * BLOCKS_A_MIB, BLOCKS_A_MIB, mib as u8));
    }
}

#[test]
fn a_secondary_whose_journal_fails_is_out_at_once_with_all_its_volumes_and_back_after_a_restart() {
    let mut world = served();
    world.attach(0, 2);
    world.write(0, 2, 0, 1, 1).unwrap();
    let before = world.since_start();
    world.disk(1).fail_next(Operation::Write, "journal/", 1);
    world.write(0, 1, 3, 1, 9).unwrap();
    world.write(0, 2, 4, 1, 1).unwrap();
    assert!(
        world.since_start() < before + Duration::from_millis(200),
        "long before any time-out"
    );
    assert!((1..=2).all(|volume| !world.is_in_set(volume, 1)));
    for volume in 1..=2 {
        assert_eq!(fault(&world, 1, volume), Some(FaultKind::Failing));
    }
    world.write(0, 2, 5, 1, 2).unwrap();
    world.disk(1).heal();
    world.run_for(Duration::from_secs(5));
    assert!(
        !world.is_in_set(1, 1),
        "only a restart tells what is on disk"
    );
    world.crash(1);
    world.start(1);
    world.run_until("they are back", |world| {
        (1..=2).all(|volume| world.is_in_set(volume, 1))
    });
    world.detach(0, 1);
    world.attach(1, 1);
    assert!(world.holds(1, 1, 3, 1, 9) && world.holds(1, 1, 4, 200, 7));
}

#[test]
fn a_failing_primary_steps_down_and_the_other_site_goes_on_with_every_acknowledged_write() {
    let mut world = served();
    world.attach(0, 2);
    world.write(0, 2, 0, 1, 1).unwrap();
    world.write(0, 1, 3, 1, 9).unwrap();
    // The extents of one volume only: the journal works.
    world
        .disk(0)
        .fail_next(Operation::Write, "volumes/1/", u32::MAX);
    let acknowledged = world.write(0, 1, 4, 1, 10).is_ok();
    world.run_until("it steps down", |world| !world.demoted.is_empty());
    assert_eq!(fault(&world, 0, 1), Some(FaultKind::Failing));
    let refusal = world.try_attach(0, 1).unwrap_err().to_string();
    assert!(
        refusal.contains("node-1 can't take part") && refusal.contains("connect to node-2"),
        "{refusal}"
    );
    world.attach(1, 1);
    assert!(world.holds(1, 1, 3, 1, 9) && world.holds(1, 1, 5, 200, 7));
    assert!(!acknowledged || world.holds(1, 1, 4, 1, 10));
    world.write(1, 1, 6, 1, 11).unwrap();
    assert!(!world.is_in_set(1, 0) && world.is_in_set(1, 1));
    world.write(0, 2, 1, 1, 2).unwrap();
    assert!(world.is_in_set(2, 0), "the other volume goes on");
}

#[test]
fn a_primary_whose_file_system_turns_read_only_steps_down_with_all_its_volumes() {
    let mut world = served();
    world.attach(0, 2);
    world.write(0, 2, 0, 1, 1).unwrap();
    world.disk(0).set_read_only(true);
    assert!(world.write(0, 1, 4, 1, 10).is_err());
    world.run_until("both are demoted", |world| world.demoted.len() == 2);
    for volume in 1..=2 {
        world.attach(1, volume);
        world.write(1, volume, 9, 1, 3).unwrap();
        assert!(!world.is_in_set(volume, 0));
    }
    assert!(world.holds(1, 1, 0, 4, 7) && world.holds(1, 2, 0, 1, 1));
    world.disk(0).heal();
    world.crash(0);
    world.start(0);
    world.run_until("they are back", |world| {
        (1..=2).all(|volume| world.is_in_set(volume, 0))
    });
    world.detach(1, 1);
    world.attach(0, 1);
    assert!(world.holds(0, 1, 9, 1, 3) && world.holds(0, 1, 10, 100, 7));
}

#[test]
fn what_could_not_be_applied_is_never_passed_by_a_checkpoint() {
    // Under what a reservation can see: the extents' data can't be written, while everything else can.
    let mut world = served();
    world
        .disk(1)
        .fail_next(Operation::Write, "volumes/1/data", 3);
    world.write(0, 1, 3, 1, 9).unwrap();
    world.write(0, 1, 4, 1, 9).unwrap();
    world.run_until("it is out", |world| !world.is_in_set(1, 1));
    for _ in 0..3 {
        world.checkpoint(1);
    }
    world.disk(1).heal();
    world.crash(1);
    world.start(1);
    world.run_until("it is back", |world| world.is_in_set(1, 1));
    // Alone: what it lacked could not be mended from the other one now.
    world.detach(0, 1);
    world.run_until("released", |world| world.volume(1).primary.is_none());
    world.crash(0);
    world.attach(1, 1);
    assert!(!world.is_in_set(1, 0));
    assert!(world.holds(1, 1, 3, 2, 9) && world.holds(1, 1, 5, 200, 7));
}

#[test]
fn an_unable_replica_does_not_keep_the_journal_from_the_other_volumes() {
    let mut world = served();
    world.attach(0, 2);
    world
        .disk(1)
        .fail_next(Operation::Write, "volumes/1/data", 1);
    world.write(0, 1, 3, 1, 9).unwrap();
    world.run_until("it is out", |world| !world.is_in_set(1, 1));
    // Several times the journal's 16 MiB.
    for round in 0..60u64 {
        world
            .write(0, 2, (round % 8) * BLOCKS_A_MIB, BLOCKS_A_MIB, round as u8)
            .unwrap();
    }
    assert!(world.is_in_set(2, 1), "the second volume mirrors on");
    assert_eq!(fault(&world, 1, 1), Some(FaultKind::Failing));
    world.crash(1);
    world.start(1);
    world.run_until("it is back, compared whole", |world| world.is_in_set(1, 1));
    assert!(world.status(1, 1).fault.is_none());
    world.detach(0, 1);
    world.attach(1, 1);
    assert!(world.holds(1, 1, 3, 1, 9) && world.holds(1, 1, 4, 200, 7));
}

#[test]
fn what_found_no_space_is_applied_again_in_order_with_what_came_after_it() {
    for seed in 0..30 {
        let mut world = World::new(seed, &[8]);
        world.attach(0, 1);
        world.write(0, 1, 0, BLOCKS_A_MIB, 7).unwrap();
        world.run_for(Duration::from_secs(1));
        // A file system that does not keep what it reserved: a record over two extents fails in one of them, later ones do not.
        world
            .disk(1)
            .find_no_space("volumes/1/data", 1 + seed as u32 % 3);
        let numbers: Vec<u64> = (1..=8u8)
            .map(|fill| {
                let request = isthmus_host::ClientRequest::Write {
                    offset: (BLOCKS_A_MIB - 4) * 4096,
                    data: vec![fill; 8 * 4096].into(),
                };
                world.submit(0, 1, request)
            })
            .collect();
        for number in numbers {
            world.finish(number).unwrap();
        }
        world.run_until("it is out", |world| {
            !world.is_in_set(1, 1) || fault(world, 1, 1).is_some()
        });
        world.run_until("it is back", |world| {
            world.is_in_set(1, 1) && fault(world, 1, 1).is_none()
        });
        world.detach(0, 1);
        world.attach(1, 1);
        assert!(world.holds(1, 1, BLOCKS_A_MIB - 4, 8, 8), "seed {seed}");
    }
}

//! Row 14: full on both sides, and who serves when only the primary is.

use super::world::{BLOCKS_A_MIB, World};
use isthmus_host::{ClientError, FaultKind};
use std::time::Duration;

fn limit(world: &mut World, node: usize, more: u64) {
    let allocated = world.disk(node).allocated_bytes();
    world.disk(node).set_capacity_bytes(Some(allocated + more));
}

#[test]
fn full_on_both_sides_writes_get_no_space_and_everything_else_works() {
    let mut world = World::new(1, &[64]);
    world.attach(0, 1);
    world.write(0, 1, 0, BLOCKS_A_MIB, 1).unwrap();
    for node in 0..2 {
        limit(&mut world, node, 0);
    }
    let mut taken = Vec::new();
    let mut refused = 0;
    for mib in 1..60u64 {
        match world.write(0, 1, mib * BLOCKS_A_MIB, BLOCKS_A_MIB, mib as u8) {
            Ok(()) => taken.push(mib),
            Err(ClientError::NoSpace(_)) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 30, "{refused} refused, {} taken", taken.len());
    assert!(
        world.is_in_set(1, 0) && world.is_in_set(1, 1) && world.demoted.is_empty(),
        "nobody left: {:#?}",
        world.events
    );
    assert!(world.status(0, 1).short_of_space_since.is_some());
    // Reads, overwrites and trims work, and nothing is lost.
    for mib in taken.clone() {
        assert!(world.holds(0, 1, mib * BLOCKS_A_MIB, BLOCKS_A_MIB, mib as u8));
    }
    world.write(0, 1, 10, 5, 77).unwrap();
    assert!(world.holds(0, 1, 10, 5, 77));
    let last = taken[taken.len() - 1];
    world.trim(0, 1, last * BLOCKS_A_MIB, BLOCKS_A_MIB).unwrap();
    assert!(world.holds(0, 1, last * BLOCKS_A_MIB, BLOCKS_A_MIB, 0));
    // Space back, writes back: without a restart, and nobody had to leave.
    for node in 0..2 {
        world.disk(node).set_capacity_bytes(None);
    }
    world.run_until("space is back", |world| {
        world.status(0, 1).short_of_space_since.is_none()
    });
    for mib in 40..60u64 {
        world
            .write(0, 1, mib * BLOCKS_A_MIB, BLOCKS_A_MIB, mib as u8)
            .unwrap();
    }
    assert!(world.is_in_set(1, 1));
}

#[test]
fn trimmed_space_can_be_written_again_on_a_full_disk() {
    let mut world = World::new(2, &[64]);
    world.attach(0, 1);
    world.write(0, 1, 0, BLOCKS_A_MIB, 1).unwrap();
    for node in 0..2 {
        limit(&mut world, node, 0);
    }
    let mut mib = 1;
    while world
        .write(0, 1, mib * BLOCKS_A_MIB, BLOCKS_A_MIB, mib as u8)
        .is_ok()
    {
        mib += 1;
    }
    world.trim(0, 1, 0, 8 * BLOCKS_A_MIB).unwrap();
    world.run_until("trimmed space counts", |world| {
        world.run_for(Duration::from_millis(500));
        world
            .write(0, 1, 50 * BLOCKS_A_MIB, BLOCKS_A_MIB, 50)
            .is_ok()
    });
    assert!(world.holds(0, 1, 50 * BLOCKS_A_MIB, BLOCKS_A_MIB, 50));
    assert!(world.is_in_set(1, 0) && world.is_in_set(1, 1));
}

#[test]
fn a_primary_that_is_full_alone_steps_down_for_the_member_that_has_room() {
    let mut world = World::new(3, &[64]);
    world.attach(0, 1);
    world.write(0, 1, 0, BLOCKS_A_MIB, 1).unwrap();
    limit(&mut world, 0, 0);
    let mut mib = 1;
    let error = loop {
        match world.write(0, 1, mib * BLOCKS_A_MIB, BLOCKS_A_MIB, mib as u8) {
            Ok(()) => mib += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ClientError::NotServed(_)), "{error:?}");
    assert_eq!(
        world.status(0, 1).fault.map(|fault| fault.kind),
        Some(FaultKind::Full)
    );
    world.attach(1, 1);
    for round in 1..mib {
        assert!(world.holds(1, 1, round * BLOCKS_A_MIB, BLOCKS_A_MIB, round as u8));
    }
    for round in mib..60 {
        world
            .write(1, 1, round * BLOCKS_A_MIB, BLOCKS_A_MIB, round as u8)
            .unwrap();
    }
    assert!(!world.is_in_set(1, 0));
    world.disk(0).set_capacity_bytes(None);
    world.run_until("it is back", |world| world.is_in_set(1, 0));
    world.detach(1, 1);
    world.attach(0, 1);
    for round in 1..60 {
        assert!(world.holds(0, 1, round * BLOCKS_A_MIB, BLOCKS_A_MIB, round as u8));
    }
}

#[test]
fn writes_side_by_side_never_take_the_space_of_each_other() {
    for room in 0..12 {
        let mut world = World::new(100 + room, &[64]);
        world.attach(0, 1);
        world.write(0, 1, 0, 1, 1).unwrap();
        world.run_for(Duration::from_millis(20));
        for node in 0..2 {
            limit(&mut world, node, room << 20);
        }
        let requests: Vec<(u64, u64)> = (1..50)
            .map(|mib| {
                let request = isthmus_host::ClientRequest::Write {
                    offset: mib << 20,
                    data: vec![mib as u8; 4096].into(),
                };
                (mib, world.submit(0, 1, request))
            })
            .collect();
        let mut taken = 0;
        for (mib, number) in requests {
            match world.finish(number) {
                Ok(_) => {
                    taken += 1;
                    assert!(world.holds(0, 1, mib * BLOCKS_A_MIB, 1, mib as u8));
                }
                Err(ClientError::NoSpace(_)) => {}
                Err(other) => panic!("{other:?}: {:#?}", world.events),
            }
        }
        assert!((15..45).contains(&taken), "{taken} with {room} MiB of room");
        for node in 0..2 {
            assert_eq!(world.status(node, 1).fault, None, "{:#?}", world.events);
        }
    }
}

#[test]
fn a_write_behind_a_trim_of_its_extent_does_not_count_on_the_slot_that_the_trim_gives_back() {
    for seed in 0..10 {
        let mut world = World::new(200 + seed, &[64]);
        world.attach(0, 1);
        world.write(0, 1, 0, BLOCKS_A_MIB, 1).unwrap();
        for node in 0..2 {
            world.checkpoint(node);
            limit(&mut world, node, 0);
        }
        let mut mib = 1;
        while world
            .write(0, 1, mib * BLOCKS_A_MIB, BLOCKS_A_MIB, mib as u8)
            .is_ok()
        {
            mib += 1;
        }
        let trim = isthmus_host::ClientRequest::Trim {
            offset: 0,
            length: 1 << 20,
        };
        let write = isthmus_host::ClientRequest::Write {
            offset: 0,
            data: vec![9; 1 << 20].into(),
        };
        let (trim, write) = (world.submit(0, 1, trim), world.submit(0, 1, write));
        world.finish(trim).unwrap();
        let written = world.finish(write);
        assert!(
            matches!(written, Ok(_) | Err(ClientError::NoSpace(_))),
            "{written:?}"
        );
        world.run_for(Duration::from_secs(2));
        for node in 0..2 {
            assert_eq!(world.status(node, 1).fault, None, "{:#?}", world.events);
        }
        let fill = if written.is_ok() { 9 } else { 0 };
        assert!(world.holds(0, 1, 0, BLOCKS_A_MIB, fill));
    }
}

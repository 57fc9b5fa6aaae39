//! Volumes that grow, while a replica has not heard of it (decision 18).

use super::journal::damage_journal;
use super::world::{BLOCKS_A_MIB, World};
use std::time::Duration;

/// The first block behind what a volume of 8 MiB had.
const NEW: u64 = 8 * BLOCKS_A_MIB;

/// The volume is served by the second node, and holds what was written behind its old end.
fn is_there_at_the_second(world: &mut World, fill: u8) -> bool {
    world.hear();
    world.run_for(Duration::from_millis(100));
    world.detach(0, 1);
    world.attach(1, 1);
    world.holds(1, 1, NEW + 5, 3, fill)
}

#[test]
fn a_member_that_has_not_heard_takes_records_behind_its_end() {
    let mut world = World::new(21, &[8]);
    world.attach(0, 1);
    world.deaf = Some(1);
    world.expand(1, 16);
    world.write(0, 1, NEW + 5, 3, 7).unwrap();
    // With the next one it hears that the first is committed, and takes it into its extents.
    world.write(0, 1, 3, 1, 8).unwrap();
    world.run_for(Duration::from_secs(1));
    assert!(world.is_in_set(1, 1));
    assert!(is_there_at_the_second(&mut world, 7));
}

#[test]
fn what_was_written_behind_the_old_end_survives_the_power_at_both_nodes() {
    let mut world = World::new(22, &[8]);
    world.attach(0, 1);
    for node in [0, 1] {
        world.checkpoint(node);
    }
    world.expand(1, 16);
    world.write(0, 1, NEW + 5, 3, 7).unwrap();
    // Says in the journals that the first is committed.
    world.write(0, 1, 3, 1, 8).unwrap();
    for node in [0, 1] {
        world.crash(node);
    }
    for node in [0, 1] {
        world.start(node);
    }
    world.attach(0, 1);
    assert!(world.holds(0, 1, NEW + 5, 3, 7));
    assert!(is_there_at_the_second(&mut world, 7));
}

#[test]
fn a_joiner_that_has_to_compare_everything_compares_also_what_it_has_not_heard_of() {
    let mut world = World::new(23, &[8]);
    world.attach(0, 1);
    for fill in 1..=20 {
        world.write(0, 1, 3, 20, fill).unwrap();
    }
    world.crash(1);
    damage_journal(&mut world, 1);
    world.start(1);
    world.run_until("it is out, and counts as incomplete", |world| {
        world.volume(1).complete.len() == 1
    });
    world.link_is_down = true;
    // It holds no history any more that a map could begin with.
    world.run_until("it has forgotten", |world| {
        world.status(1, 1).fault.is_none()
    });
    world.deaf = Some(1);
    world.expand(1, 16);
    world.write(0, 1, NEW + 5, 3, 7).unwrap();
    world.reconnect();
    world.run_until("it is back", |world| world.is_in_set(1, 1));
    assert!(is_there_at_the_second(&mut world, 7));
}

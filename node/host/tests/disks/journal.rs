//! Row 12, the journal's part: durable records that are missing or changed.

use super::world::{BLOCKS_A_MIB, World};
use isthmus_host::FaultKind;
use std::time::Duration;

/// Damages a record in the middle of what a node's journal holds.
pub fn damage_journal(world: &mut World, node: usize) {
    let paths: Vec<String> = world
        .disk(node)
        .paths()
        .filter(|path| path.starts_with("journal/") && !path.ends_with("description"))
        .map(str::to_owned)
        .collect();
    let (path, pages) = paths
        .into_iter()
        .map(|path| {
            let pages = world.disk(node).page_offsets(&path);
            (path, pages)
        })
        .max_by_key(|(_, pages)| pages.len())
        .unwrap();
    assert!(pages.len() > 20, "there is something in the middle");
    world
        .disk(node)
        .flip_bit(&path, pages[pages.len() / 2] + 100, 2);
}

#[test]
fn a_secondary_with_a_damaged_journal_leaves_the_set_and_comes_back_compared_whole() {
    let mut world = World::new(5, &[8]);
    world.attach(0, 1);
    for fill in 1..=20 {
        world.write(0, 1, 3, 20, fill).unwrap();
    }
    world.crash(1);
    damage_journal(&mut world, 1);
    world.start(1);
    assert_eq!(
        world.status(1, 1).fault.map(|fault| fault.kind),
        Some(FaultKind::Lost)
    );
    world.run_until("it is out", |world| !world.is_in_set(1, 1));
    assert!(world.has_event(1, "JOURNAL LOST"));
    world.write(0, 1, 30, 1, 9).unwrap();
    world.run_until("it is back", |world| world.is_in_set(1, 1));
    assert!(!world.disk(1).paths().any(|path| path.ends_with("/lost")));
    world.detach(0, 1);
    world.attach(1, 1);
    assert!(world.holds(1, 1, 3, 20, 20) && world.holds(1, 1, 30, 1, 9));
}

#[test]
fn a_crash_on_the_way_back_begins_it_again_and_nothing_passes_for_whole() {
    for steps in (0..400).step_by(27) {
        let mut world = World::new(6, &[8]);
        world.attach(0, 1);
        for fill in 1..=20 {
            world.write(0, 1, 3, 20, fill).unwrap();
        }
        world.crash(1);
        damage_journal(&mut world, 1);
        world.start(1);
        for _ in 0..steps * 40 {
            world.step();
        }
        world.crash(1);
        world.start(1);
        world.write(0, 1, 30, 1, 9).unwrap();
        world.run_until("it is back", |world| {
            world.is_in_set(1, 1) && world.status(1, 1).fault.is_none()
        });
        world.run_for(Duration::from_millis(100));
        world.detach(0, 1);
        world.attach(1, 1);
        assert!(
            world.holds(1, 1, 3, 20, 20) && world.holds(1, 1, 30, 1, 9),
            "after {steps}"
        );
    }
}

#[test]
fn the_last_primary_with_a_damaged_journal_serves_nothing_and_the_other_site_does() {
    let mut world = World::new(7, &[8]);
    world.attach(0, 1);
    for fill in 1..=20 {
        world.write(0, 1, 3, 20, fill).unwrap();
    }
    world.crash(0);
    damage_journal(&mut world, 0);
    world.start(0);
    let refusal = world.try_attach(0, 1).unwrap_err().to_string();
    assert!(refusal.contains("connect to node-2"), "{refusal}");
    world.attach(1, 1);
    assert!(world.holds(1, 1, 3, 20, 20));
    world.run_until("it is back", |world| world.is_in_set(1, 0));
}

#[test]
fn the_only_replica_in_the_set_stays_out_with_what_it_lost() {
    let mut world = World::new(8, &[8]);
    world.attach(0, 1);
    world.crash(1);
    for fill in 1..=20 {
        world.write(0, 1, 3, 20, fill).unwrap();
    }
    world.crash(0);
    damage_journal(&mut world, 0);
    world.start(0);
    world.start(1);
    world.run_for(Duration::from_secs(5));
    assert!(world.is_in_set(1, 0) && !world.is_in_set(1, 1));
    assert!(world.try_attach(0, 1).is_err() && world.try_attach(1, 1).is_err());
}

#[test]
fn extents_whose_map_is_damaged_are_made_anew_once_the_set_is_without_them() {
    let mut world = World::new(9, &[8]);
    world.attach(0, 1);
    world.write(0, 1, 0, BLOCKS_A_MIB, 7).unwrap();
    world.run_for(Duration::from_secs(2));
    world.checkpoint(1);
    world.crash(1);
    for page in world.disk(1).page_offsets("volumes/1/map") {
        world.disk(1).flip_bit("volumes/1/map", page + 100, 1);
    }
    world.start(1);
    world.run_until("it is out", |world| !world.is_in_set(1, 1));
    world.run_until("it is back", |world| world.is_in_set(1, 1));
    world.detach(0, 1);
    world.attach(1, 1);
    assert!(world.holds(1, 1, 0, BLOCKS_A_MIB, 7));
}

//! Row 12: a bad block is found, repaired from the peer, and never returned.

use super::world::{BLOCKS_A_MIB, World};
use isthmus_engine::BLOCK_BYTES;
use isthmus_host::{ClientError, ClientRequest};
use std::time::Duration;

const DATA: &str = "volumes/1/data";
const HEADERS: &str = "volumes/1/headers";

/// A volume with its first two MiB written, served by the first node.
fn served(seed: u64) -> World {
    let mut world = World::new(seed, &[8]);
    world.attach(0, 1);
    world.write(0, 1, 0, BLOCKS_A_MIB, 7).unwrap();
    world.write(0, 1, BLOCKS_A_MIB, BLOCKS_A_MIB, 8).unwrap();
    world.run_for(Duration::from_secs(2));
    world
}

#[test]
fn a_read_of_a_bad_block_waits_for_the_peers_and_returns_that() {
    for seed in 0..20 {
        let mut world = served(seed);
        world.disk(0).flip_random_bit(DATA).unwrap();
        assert!(world.holds(0, 1, 0, BLOCKS_A_MIB, 7), "seed {seed}");
        assert!(world.holds(0, 1, BLOCKS_A_MIB, BLOCKS_A_MIB, 8));
        let status = world.status(0, 1);
        assert_eq!(
            (
                status.checksum_errors,
                status.repaired_blocks,
                status.bad_blocks
            ),
            (1, 1, 0)
        );
        // It is good on disk: the peer isn't needed any more.
        world.crash(1);
        world.run_until("alone", |world| !world.is_in_set(1, 1));
        assert!(world.holds(0, 1, 0, BLOCKS_A_MIB, 7), "seed {seed}");
    }
}

#[test]
fn without_a_good_copy_the_read_fails_and_others_go_on() {
    let mut world = served(30);
    world.crash(1);
    world.run_until("alone", |world| !world.is_in_set(1, 1));
    world.disk(0).flip_bit(DATA, 5 * BLOCK_BYTES + 9, 3);
    let error = world.read(0, 1, 4, 4).unwrap_err();
    assert!(
        matches!(&error, ClientError::Unreadable(text) if text.contains("block 5")),
        "{error:?}"
    );
    assert!(world.holds(0, 1, 6, 100, 7));
    world.write(0, 1, 5, 1, 9).unwrap();
    assert!(world.holds(0, 1, 5, 1, 9), "a write mends it");
    assert_eq!(world.status(0, 1).bad_blocks, 0);
}

#[test]
fn blocks_bad_on_both_sides_are_never_returned() {
    let mut world = served(31);
    for node in 0..2 {
        world.disk(node).flip_bit(DATA, 5 * BLOCK_BYTES + 9, 3);
    }
    assert!(matches!(
        world.read(0, 1, 5, 1),
        Err(ClientError::Unreadable(_))
    ));
    assert!(world.holds(0, 1, 6, 10, 7));
}

#[test]
fn a_part_of_a_bad_block_is_written_over_the_repaired_rest() {
    let mut world = served(32);
    world.disk(0).flip_bit(DATA, 5 * BLOCK_BYTES + 9, 3);
    let request = ClientRequest::Write {
        offset: 5 * BLOCK_BYTES + 512,
        data: vec![1; 512].into(),
    };
    let number = world.submit(0, 1, request);
    world.finish(number).unwrap();
    let block = world.read(0, 1, 5, 1).unwrap();
    let mut expected = vec![7; BLOCK_BYTES as usize];
    expected[512..1024].fill(1);
    assert_eq!(block, expected);
}

#[test]
fn a_damaged_header_is_made_good_with_its_whole_extent() {
    for seed in 40..50 {
        let mut world = served(seed);
        world.trim(0, 1, 17, 3).unwrap();
        world.checkpoint(0);
        // So that the header is read again.
        world.crash(0);
        world.start(0);
        for page in world.disk(0).page_offsets(HEADERS) {
            world.disk(0).flip_bit(HEADERS, page + 200, 1);
        }
        world.attach(0, 1);
        assert!(world.holds(0, 1, 3, 2, 7), "seed {seed}");
        world.run_for(Duration::from_secs(1));
        let status = world.status(0, 1);
        assert_eq!(
            (
                status.bad_blocks,
                status.checksum_errors,
                status.repaired_blocks
            ),
            (0, 256, 256)
        );
        world.crash(1);
        world.run_until("alone", |world| !world.is_in_set(1, 1));
        assert!(world.holds(0, 1, 0, 17, 7) && world.holds(0, 1, 17, 3, 0));
        assert!(world.holds(0, 1, 20, BLOCKS_A_MIB - 20, 7));
    }
}

#[test]
fn the_scrub_finds_and_repairs_on_both_sides() {
    let mut world = served(61);
    for node in 0..2 {
        // Different blocks: each side has what the other lacks.
        let at = (5 + node as u64) * BLOCK_BYTES;
        world.disk(node).flip_bit(DATA, at, 3);
        world.set_scrub(node, 100 << 20);
    }
    world.run_until("repaired", |world| {
        (0..2).all(|node| world.status(node, 1).repaired_blocks == 1)
    });
    assert!(world.has_event(
        1,
        "repaired: 1 blocks from block 6 on, from the replica on node-1"
    ));
    for node in 0..2 {
        assert_eq!(world.status(node, 1).bad_blocks, 0);
    }
}

#[test]
fn a_lost_and_a_misdirected_write_are_found_and_repaired() {
    let mut world = served(62);
    world.disk(0).lose_next_write(DATA);
    world.write(0, 1, 3, 1, 9).unwrap();
    world.run_for(Duration::from_millis(50));
    assert!(world.holds(0, 1, 3, 1, 9));
    world.disk(0).misdirect_next_write(DATA, 40 * BLOCK_BYTES);
    world.write(0, 1, 10, 1, 4).unwrap();
    world.run_for(Duration::from_millis(50));
    assert!(world.holds(0, 1, 10, 1, 4) && world.holds(0, 1, 50, 1, 7));
    assert_eq!(world.status(0, 1).repaired_blocks, 3);
}

#[test]
fn a_repair_never_overwrites_what_was_written_meanwhile() {
    for seed in 70..110 {
        let mut world = served(seed);
        world.disk(0).flip_bit(DATA, 5 * BLOCK_BYTES + 9, 3);
        let offset = 5 * BLOCK_BYTES;
        let read = world.submit(
            0,
            1,
            ClientRequest::Read {
                offset,
                length: BLOCK_BYTES,
            },
        );
        // The write may come before the question, between question and answer, or after both.
        for _ in 0..seed % 20 {
            world.step();
        }
        world.write(0, 1, 5, 1, 9).unwrap();
        let seen = world.finish(read).unwrap();
        assert!(
            seen.iter().all(|byte| *byte == 7) || seen.iter().all(|byte| *byte == 9),
            "seed {seed}"
        );
        world.run_for(Duration::from_secs(2));
        assert!(world.holds(0, 1, 5, 1, 9), "seed {seed}");
    }
}

//! Rows 1, 2 and 10 for a volume with `--durability flush`: what is acknowledged survives the end of all processes and the loss of power at
//! either site; what was flushed survives it at both.

use crate::rounds::{
    DEMO, SOON, assert_replicas_identical, check_at, history, load_at, pattern, steady,
};
use std::time::Duration;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::lossy::Faults;
use tests::nbd::{FLAG_FUA, Session, request};
use tests::random::Random;
use tests::verify;

const REGION_SECTORS: u64 = 16 << 11;
const DISK_BYTES: u64 = 1 << 30;
const BLOCK: u64 = 4096;
/// Blocks that each round of the flush test writes.
const BLOCKS: u64 = 200;

fn options() -> Options {
    let mut options = Options::with_volume(64 << 20);
    options.volumes.clear();
    options.and_volume(DEMO, 64 << 20, &["--durability", "flush"])
}

#[test]
fn row_10_a_flush_volume_has_every_acknowledged_write_after_all_processes_died_at_once() {
    let mut cluster = Cluster::start(&options());
    let described = cluster.done(&["describe", "volume", DEMO]);
    assert!(described.contains("flush"), "{described}");
    let history = history(0xf1_01);
    for round in 0..3 {
        let mut random = Random::new(700 + round);
        let primary = Node::DATA[(round % 2) as usize];
        let pattern = pattern(&mut random, REGION_SECTORS, round);
        let count = random.between(50, 400);
        let load = load_at(&cluster, primary, &history, &pattern, count);
        cluster.kill_at_once(&Node::ALL);
        let outcome = load.join();
        println!("round {round}: {outcome:?}, {pattern:?}");
        for node in Node::ALL {
            cluster.start_node(node);
        }
        cluster.until_in_sync(SOON);
        let reader = Node::DATA[random.below(2) as usize];
        check_at(&cluster, reader, &history, REGION_SECTORS);
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
}

#[test]
fn row_01_a_flush_volume_has_every_acknowledged_write_after_a_loss_of_power_at_either_site() {
    let mut cluster = Cluster::start(&options().on_lossy_disks(DISK_BYTES));
    let history = history(0xf1_02);
    let mut lost = 0;
    for round in 0..4 {
        for node in Node::DATA {
            // Slow syncs leave more to be lost.
            cluster.disk(node).set_faults(Faults {
                sync_takes: Duration::from_millis(20),
                ..Faults::none()
            });
        }
        let primary = Node::DATA[(round % 2) as usize];
        let dark = Node::DATA[(round / 2 % 2) as usize];
        let load = load_at(
            &cluster,
            primary,
            &history,
            &steady(REGION_SECTORS, round),
            200,
        );
        let theirs = cluster.cut_power(&[dark], 2000 + round);
        println!("round {round}: {} lost {theirs:?}", dark.name());
        lost += theirs.sectors_below("journal/");
        if dark == primary {
            let _ = load.join();
        } else {
            load.until_more(100, SOON);
            assert_eq!(load.finish().refused, 0, "the other site goes on");
        }
        cluster.start_node(dark);
        cluster.until_in_sync(SOON);
        // First at the one that lost power: it has caught up before it serves.
        check_at(&cluster, dark, &history, REGION_SECTORS);
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
    assert!(lost > 0, "no cut found anything that was not synced");
}

fn content(round: u64, block: u64) -> Vec<u8> {
    let word = (round << 32 | block | 1 << 63).to_le_bytes();
    word.repeat(BLOCK as usize / word.len())
}

/// Writes blocks; those of the first half are made durable, by one flush or each for itself.
fn write(session: &mut Session, round: u64) {
    let fua = round % 2 == 1;
    for block in 0..BLOCKS / 2 {
        let flags = if fua { FLAG_FUA } else { 0 };
        let data = content(round, block);
        session
            .call(request::WRITE, flags, block * BLOCK, BLOCK as u32, &data)
            .unwrap();
    }
    if !fua {
        session.call(request::FLUSH, 0, 0, 0, &[]).unwrap();
    }
    for block in BLOCKS / 2..BLOCKS {
        session
            .write(block * BLOCK, &content(round, block))
            .unwrap();
    }
}

#[test]
fn row_10_a_flush_volume_has_every_flushed_write_after_a_loss_of_power_at_both_sites() {
    let mut cluster = Cluster::start(&options().on_lossy_disks(DISK_BYTES));
    let mut missing = 0;
    let mut lost = 0;
    let mut before: Vec<u64> = vec![0; BLOCKS as usize];
    for round in 1..=6_u64 {
        let mut random = Random::new(900 + round);
        for node in Node::DATA {
            cluster.disk(node).set_faults(Faults {
                sync_takes: Duration::from_millis(10),
                ..Faults::none()
            });
        }
        let primary = Node::DATA[random.below(2) as usize];
        let mut session = verify::open(&cluster.nbd(primary), DEMO, SOON);
        write(&mut session, round);
        let theirs = cluster.cut_power(&Node::DATA, 3000 + round);
        lost += theirs.sectors_below("journal/");
        drop(session);
        for node in Node::DATA {
            cluster.start_node(node);
        }
        cluster.until_in_sync(SOON);
        let reader = Node::DATA[random.below(2) as usize];
        let mut session = verify::open(&cluster.nbd(reader), DEMO, SOON);
        for block in 0..BLOCKS {
            let mut data = vec![0; BLOCK as usize];
            session.read(block * BLOCK, &mut data).unwrap();
            let old = before[block as usize];
            let is_new = data == content(round, block);
            let is_old = data
                == if old == 0 {
                    vec![0; BLOCK as usize]
                } else {
                    content(old, block)
                };
            assert!(
                is_new || is_old,
                "round {round}: block {block} is neither old nor new"
            );
            assert!(
                is_new || block >= BLOCKS / 2,
                "round {round}: block {block} was made durable, and is lost"
            );
            missing += u64::from(!is_new);
            if is_new {
                before[block as usize] = round;
            }
        }
        session.close();
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
    println!("{missing} writes that were not flushed are gone, {lost} sectors of journals");
    assert!(lost > 0, "no cut found anything that was not synced");
}

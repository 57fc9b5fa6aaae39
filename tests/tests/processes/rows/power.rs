//! Rows 10 and 11: the power goes, and with it what was not synced.

use crate::rounds::{SOON, assert_replicas_identical, check_at, history, load_at, pattern, steady};
use std::time::Duration;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::load::Pattern;
use tests::lossy::{Faults, Lost};
use tests::random::Random;

const REGION_SECTORS: u64 = 16 << 11;
const DISK_BYTES: u64 = 1 << 30;
const ROUNDS: u64 = 8;

#[test]
fn row_10_after_all_processes_died_at_once_every_acknowledged_write_is_there_and_the_replicas_agree()
 {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x90e4);
    for round in 0..2 {
        let mut random = Random::new(100 + round);
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
        // The old primary, or the other one: both have to know everything.
        let reader = Node::DATA[random.below(2) as usize];
        cluster.until_in_sync(SOON);
        check_at(&cluster, reader, &history, REGION_SECTORS);
        cluster.until_in_sync(SOON);
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
}

#[test]
fn row_10_after_a_power_loss_at_both_sites_every_acknowledged_write_is_there_and_the_replicas_agree()
 {
    let options = Options::with_volume(64 << 20).on_lossy_disks(DISK_BYTES);
    let mut cluster = Cluster::start(&options);
    let history = history(0x90e5);
    let mut lost = Lost::default();
    for round in 0..ROUNDS {
        let mut random = Random::new(300 + round);
        for node in Node::ALL {
            // The longer a sync takes, the more is half done when the power goes.
            cluster.disk(node).set_faults(Faults {
                sync_takes: Duration::from_micros(random.below(4000)),
                ..Faults::none()
            });
        }
        let primary = Node::DATA[random.below(2) as usize];
        let pattern = pattern(&mut random, REGION_SECTORS, round);
        let count = random.between(20, 300);
        let load = load_at(&cluster, primary, &history, &pattern, count);
        // The witness has power of its own, mostly.
        let dark = if random.below(3) == 0 {
            &Node::ALL[..]
        } else {
            &Node::DATA[..]
        };
        let theirs = cluster.cut_power(dark, round);
        let outcome = load.join();
        println!("round {round}: {outcome:?}, {theirs:?}, {pattern:?}");
        lost.add(&theirs);
        for node in dark {
            cluster.start_node(*node);
        }
        cluster.until_in_sync(SOON);
        let reader = Node::DATA[random.below(2) as usize];
        check_at(&cluster, reader, &history, REGION_SECTORS);
        cluster.until_in_sync(SOON);
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
    assert!(
        lost.sectors_below("volumes/") > 0 && lost.sectors_below("journal/") > 0,
        "the power cuts took something: {lost:?}"
    );
}

/// Cuts until one has found the journal half written. On a machine that is busy with other things the load may just have been waiting.
const TEARS_MAX: u64 = 16;

#[test]
fn row_11_a_torn_or_lost_tail_of_the_journal_is_cut_off_and_costs_no_acknowledged_write() {
    let options = Options::with_volume(64 << 20).on_lossy_disks(DISK_BYTES);
    let mut cluster = Cluster::start(&options);
    let history = history(0x90e6);
    let mut torn = 0;
    for round in 0..TEARS_MAX {
        if round >= 4 && torn > 0 {
            break;
        }
        // Secondary and primary in turn; the other site stays.
        let primary = Node::A1;
        let dark = Node::DATA[(round % 2) as usize];
        cluster.disk(dark).set_faults(Faults {
            below: "journal/".to_owned(),
            sync_takes: Duration::from_millis(5),
            ..Faults::none()
        });
        let pattern = Pattern {
            depth: 32,
            ..steady(REGION_SECTORS, round)
        };
        let load = load_at(&cluster, primary, &history, &pattern, 100);
        let lost = cluster.cut_power(&[dark], 1000 + round);
        torn += lost.sectors_below("journal/");
        println!("round {round}: {} lost {lost:?}", dark.name());
        if dark == primary {
            let _ = load.join();
        } else {
            load.until_more(100, SOON);
            assert_eq!(load.finish().refused, 0, "the other site goes on");
        }
        cluster.start_node(dark);
        cluster.until_in_sync(SOON);
        check_at(&cluster, dark, &history, REGION_SECTORS);
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
    assert!(torn > 0, "no cut found the journal half written");
}

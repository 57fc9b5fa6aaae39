//! Row 15: the power goes at any step of a resync, a promotion, a checkpoint or a domain change.
//!
//! The moment is a number of changes of a disk: so many after the step began, from a seed.

use crate::rounds::{SOON, assert_replicas_identical, check_at, history, load_at, steady};
use std::time::Duration;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::load::Pattern;
use tests::lossy::Faults;
use tests::patience::within;
use tests::random::Random;

const REGION_SECTORS: u64 = 32 << 11;
const DISK_BYTES: u64 = 1 << 30;
/// A step that needs fewer changes than were drawn is over by then: the power goes all the same.
const STEP: Duration = Duration::from_secs(3);

fn cluster() -> Cluster {
    Cluster::start(&Options::with_volume(64 << 20).on_lossy_disks(DISK_BYTES))
}

/// Cuts a node's power so many changes of its disk after a step begins.
fn cut_during<T>(
    cluster: &mut Cluster,
    node: Node,
    changes: u64,
    seed: u64,
    begin: impl FnOnce(&mut Cluster) -> T,
) {
    cluster.disk(node).power_off_after(changes);
    let begun = begin(cluster);
    let reached = within(STEP, || (!cluster.disk(node).has_power()).then_some(()));
    let lost = cluster.cut_power(&[node], seed);
    drop(begun);
    let after = if reached.is_some() {
        "after"
    } else {
        "not even after"
    };
    println!(
        "{} lost power {after} {changes} changes: {lost:?}",
        node.name()
    );
}

#[test]
fn row_15_a_crash_at_any_step_of_a_resync_loses_nothing() {
    let mut cluster = cluster();
    let history = history(0x15_01);
    for round in 0..3 {
        let mut random = Random::new(400 + round);
        let pattern = Pattern {
            depth: 16,
            ..steady(REGION_SECTORS, round)
        };
        let load = load_at(&cluster, Node::A1, &history, &pattern, 50);
        cluster.cut_power(&[Node::B1], round);
        load.until_more(800, SOON);
        // The target, in the middle of it.
        let changes = random.between(20, 600);
        cut_during(&mut cluster, Node::B1, changes, round, |cluster| {
            cluster.start_node(Node::B1);
        });
        load.until_more(50, SOON);
        // The source, in the middle of it.
        let changes = random.between(20, 600);
        cut_during(&mut cluster, Node::A1, changes, round, |cluster| {
            cluster.start_node(Node::B1);
        });
        let _ = load.join();
        cluster.start_node(Node::A1);
        cluster.until_in_sync(SOON);
        check_at(&cluster, Node::B1, &history, REGION_SECTORS);
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
}

#[test]
fn row_15_a_crash_at_any_step_of_a_promotion_loses_nothing() {
    let mut cluster = cluster();
    let history = history(0x15_02);
    for round in 0..4 {
        let mut random = Random::new(500 + round);
        let dying = Node::DATA[(round % 2) as usize];
        let survivor = dying.other();
        let pattern = steady(REGION_SECTORS, round);
        let load = load_at(&cluster, dying, &history, &pattern, 100);
        cluster.cut_power(&[dying], round);
        let _ = load.join();
        let word = ["deactivate", "clusterdomain", dying.domain()];
        let changes = random.between(1, 12);
        cut_during(&mut cluster, survivor, changes, round, |cluster| {
            cluster.begin(&word)
        });
        cluster.start_node(survivor);
        cluster.until_done(
            &["deactivate", "clusterdomain", dying.domain(), "--wait"],
            SOON * 2,
        );
        check_at(&cluster, survivor, &history, REGION_SECTORS);
        cluster.start_node(dying);
        cluster.activate(dying);
        cluster.until_in_sync(SOON);
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
}

#[test]
fn row_15_a_crash_at_any_step_of_a_checkpoint_loses_nothing() {
    let mut cluster = cluster();
    let history = history(0x15_03);
    for round in 0..3 {
        let mut random = Random::new(600 + round);
        for node in Node::DATA {
            // So that with the smallest journal there is always one under way.
            cluster.disk(node).set_faults(Faults {
                below: "volumes/".to_owned(),
                sync_takes: Duration::from_millis(20),
                ..Faults::none()
            });
        }
        let pattern = Pattern {
            depth: 8,
            sectors: (128, 1024),
            ..steady(REGION_SECTORS, round)
        };
        let load = load_at(&cluster, Node::A1, &history, &pattern, 200);
        let dark = Node::DATA[random.below(2) as usize];
        cluster.disk(dark).power_off_after(random.between(1, 800));
        let _ = within(STEP, || (!cluster.disk(dark).has_power()).then_some(()));
        let lost = cluster.cut_power(&Node::DATA, round);
        println!("round {round}: {:?}, {lost:?}", load.join());
        for node in Node::DATA {
            cluster.start_node(node);
        }
        cluster.until_in_sync(SOON);
        check_at(&cluster, Node::B1, &history, REGION_SECTORS);
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
}

#[test]
fn row_15_a_crash_at_any_step_of_a_domain_change_is_gone_on_with_and_loses_nothing() {
    let mut cluster = cluster();
    let history = history(0x15_04);
    for round in 0..3 {
        let mut random = Random::new(700 + round);
        let pattern = steady(REGION_SECTORS, round);
        let load = load_at(&cluster, Node::A1, &history, &pattern, 50);
        for action in ["deactivate", "activate"] {
            // Any node: the one that drives the plan, one that it is about, or the witness.
            let dark = Node::ALL[random.below(3) as usize];
            let changes = random.between(1, 12);
            cut_during(&mut cluster, dark, changes, round, |cluster| {
                cluster.begin(&[action, "clusterdomain", "site-b"])
            });
            cluster.start_node(dark);
            cluster.until_done(&[action, "clusterdomain", "site-b", "--wait"], SOON * 2);
        }
        // It ended if the power went where it is served.
        let _ = load.abandon();
        cluster.until_in_sync(SOON);
        check_at(&cluster, Node::B1, &history, REGION_SECTORS);
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
}

//! Rows 1, 2, 3 and 5: nodes and sites die under load, the others go on.

use crate::rounds::{
    DEMO, SOON, assert_frozen, assert_replicas_identical, check_at, check_volume_at, history,
    load_at, load_volume_at, pattern, steady, until_voters,
};
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::load::{Load, Pattern};
use tests::nbd::{OpenError, Session};
use tests::random::Random;

const ROUNDS: u64 = 6;
const REGION_SECTORS: u64 = 64 << 11;

#[test]
fn row_01_an_acknowledged_write_survives_kill_9_of_the_primarys_node() {
    let mut cluster = Cluster::start(&Options::with_volume(256 << 20));
    let history = history(0xfa11);
    for round in 0..ROUNDS {
        let mut random = Random::new(round);
        // Each round kills the site to which the last one failed over, so that no round has to move the volume back first.
        let dying = if round % 2 == 0 { Node::A1 } else { Node::B1 };
        let survivor = dying.other();
        let pattern = pattern(&mut random, REGION_SECTORS, round);
        let load = load_at(&cluster, dying, &history, &pattern, random.between(1, 400));
        cluster.kill(dying);
        let outcome = load.join();
        if round < 2 {
            refused_before_the_operators_word(&cluster, survivor, dying);
        }
        cluster.deactivate(dying);
        println!(
            "round {round}: {} killed after {} writes, {pattern:?}",
            dying.name(),
            outcome.acknowledged
        );
        check_at(&cluster, survivor, &history, REGION_SECTORS);
        cluster.start_node(dying);
        cluster.activate(dying);
        cluster.until_in_sync(SOON);
    }
}

#[track_caller]
fn refused_before_the_operators_word(cluster: &Cluster, survivor: Node, dead: Node) {
    match Session::open(&cluster.nbd(survivor), DEMO) {
        Err(OpenError::Refused { message, .. }) => {
            assert!(
                message.contains(dead.name()),
                "the refusal names the primary: {message}"
            );
        }
        other => panic!("a dead primary's volume must not move by itself: {other:?}"),
    }
}

#[test]
fn row_02_the_primary_goes_on_without_the_other_and_can_die_once_that_is_back() {
    let mut cluster = Cluster::start(&Options::with_volume(256 << 20));
    let history = history(0xfa12);
    for (round, dying) in [Node::B1, Node::A1, Node::B1].into_iter().enumerate() {
        let primary = dying.other();
        let pattern = Pattern {
            connections: 2,
            depth: 8,
            sectors: (1, 64),
            align_sectors: 1,
            region: 0..REGION_SECTORS,
            zeros_per_mille: 50,
            seed: round as u64,
        };
        let load = load_at(&cluster, primary, &history, &pattern, 100);
        cluster.kill(dying);
        load.until_more(500, SOON);
        let volume = cluster.volume(DEMO).expect("the cluster answers");
        assert_eq!(
            volume.in_sync,
            [primary.name()],
            "one committed shrink: {volume:#?}"
        );
        assert!(
            volume.unprotected_since_ms.is_some(),
            "what is at risk is said: {volume:#?}"
        );
        cluster.start_node(dying);
        cluster.until_in_sync(SOON);
        load.until_more(100, SOON);
        cluster.kill(primary);
        let outcome = load.join();
        cluster.deactivate(primary);
        println!("round {round}: {outcome:?}");
        check_at(&cluster, dying, &history, REGION_SECTORS);
        cluster.start_node(primary);
        cluster.activate(primary);
        cluster.until_in_sync(SOON);
    }
}

#[test]
fn row_02_under_suspend_writes_wait_for_the_peer_and_go_on_when_it_is_back() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20).and_volume(
        "held",
        64 << 20,
        &["--on-peer-loss", "suspend"],
    ));
    let history = history(0xfa13);
    let pattern = steady(4096, 1);
    let load = load_volume_at(&cluster, Node::A1, "held", &history, &pattern, 100);
    cluster.kill(Node::B1);
    assert_frozen(&load);
    let frozen = tests::patience::within(SOON, || {
        let volume = cluster.volume("held")?;
        let said = volume.service == isthmus_api::ServiceState::Frozen
            && !volume.reason.is_empty()
            && !volume.next.is_empty();
        said.then_some(volume)
    });
    let volume = frozen.expect("why it waits, and what to do, is said");
    assert_eq!(volume.in_sync, ["a1", "b1"], "nobody was left out");
    cluster.start_node(Node::B1);
    load.until_more(200, SOON);
    assert_eq!(load.finish().refused, 0, "a wait costs no error");
    cluster.until_in_sync(SOON);
    check_volume_at(&cluster, Node::B1, "held", &history, 4096);
}

#[test]
fn row_03_after_the_loss_of_a_site_every_volume_is_served_by_the_other_and_its_voters_are_learners()
{
    let options = Options::with_volume(64 << 20)
        .and_volume("second", 64 << 20, &[])
        .and_volume("held", 64 << 20, &["--on-peer-loss", "suspend"]);
    let mut cluster = Cluster::start(&options);
    let volumes = [(DEMO, Node::A1), ("second", Node::B1), ("held", Node::A1)];
    let pattern = steady(8192, 1);
    let [demo, second, held] = [0xfa14, 0xfa15, 0xfa16].map(history);
    let histories = [&demo, &second, &held];
    let mut loads: Vec<Load> = volumes
        .iter()
        .zip(histories)
        .map(|((volume, node), history)| {
            load_volume_at(&cluster, *node, volume, history, &pattern, 100)
        })
        .collect();
    cluster.kill(Node::A1);
    loads[1].until_more(200, SOON);
    cluster.deactivate(Node::A1);
    until_voters(&cluster, &[Node::B1]);
    loads[1].until_more(200, SOON);
    assert_eq!(
        loads.remove(1).finish().refused,
        0,
        "what the survivor served goes on"
    );
    for load in loads {
        let _ = load.join();
    }
    for ((volume, _), history) in volumes.iter().zip(histories) {
        check_volume_at(&cluster, Node::B1, volume, history, 8192);
        let more = load_volume_at(&cluster, Node::B1, volume, history, &pattern, 50);
        assert_eq!(more.finish().refused, 0);
    }
    cluster.start_node(Node::A1);
    cluster.activate(Node::A1);
    until_voters(&cluster, &Node::ALL);
    cluster.until_in_sync(SOON);
    assert_replicas_identical(&cluster, (64 << 20) / 512);
    for ((volume, _), history) in volumes.iter().zip(histories) {
        check_volume_at(&cluster, Node::A1, volume, history, 8192);
    }
}

#[test]
fn row_05_losing_the_witness_after_a_site_was_deactivated_costs_nothing() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0xfa17);
    let load = load_at(&cluster, Node::A1, &history, &steady(8192, 1), 100);
    cluster.kill(Node::B1);
    cluster.deactivate(Node::B1);
    until_voters(&cluster, &[Node::A1]);
    cluster.kill(Node::W1);
    load.until_more(500, SOON);
    // kvdb commits, too.
    cluster.done(&["create", "volume", "more", "--size", "8MiB"]);
    cluster.done(&["delete", "volume", "more"]);
    load.until_more(100, SOON);
    assert_eq!(load.finish().refused, 0);
    // Without any other node it can even start anew.
    cluster.kill(Node::A1);
    cluster.start_node(Node::A1);
    check_at(&cluster, Node::A1, &history, 8192);
    cluster.start_node(Node::W1);
    cluster.start_node(Node::B1);
    cluster.activate(Node::B1);
    until_voters(&cluster, &Node::ALL);
    cluster.until_in_sync(SOON);
    assert_replicas_identical(&cluster, (64 << 20) / 512);
}

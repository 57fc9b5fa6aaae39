//! A site dies under load, the other one takes over.

use crate::rounds::{DEMO, SOON, check_at, history, load_at, pattern};
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::load::Pattern;
use tests::nbd::{OpenError, Session};
use tests::random::Random;

const ROUNDS: u64 = 20;
const REGION_SECTORS: u64 = 64 << 11;

#[test]
fn an_acknowledged_write_survives_kill_9_of_the_primarys_site() {
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
fn the_primarys_site_goes_on_without_the_other_and_can_die_once_that_is_back() {
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

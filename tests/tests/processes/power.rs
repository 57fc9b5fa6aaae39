//! All nodes die at once.

use crate::rounds::{SOON, assert_replicas_identical, check_at, history, load_at, pattern};
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::random::Random;

const REGION_SECTORS: u64 = 64 << 11;

#[test]
fn after_all_nodes_died_at_once_every_acknowledged_write_is_there_and_the_replicas_agree() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x90e4);
    for round in 0..5 {
        let mut random = Random::new(100 + round);
        let primary = if round % 2 == 0 { Node::A1 } else { Node::B1 };
        let pattern = pattern(&mut random, REGION_SECTORS, round);
        let load = load_at(
            &cluster,
            primary,
            &history,
            &pattern,
            random.between(50, 400),
        );
        cluster.kill_at_once(&Node::ALL);
        let outcome = load.join();
        println!("round {round}: {outcome:?}, {pattern:?}");
        for node in Node::ALL {
            cluster.start_node(node);
        }
        // The old primary, or the other one: both have to know everything.
        let reader = if random.below(2) == 0 {
            Node::A1
        } else {
            Node::B1
        };
        cluster.until_in_sync(SOON);
        check_at(&cluster, reader, &history, REGION_SECTORS);
        cluster.until_in_sync(SOON);
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
}

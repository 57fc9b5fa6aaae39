//! Nothing dies: what is written is read.

use crate::rounds::{check_at, history, load_at, pattern};
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::random::Random;

const REGION_SECTORS: u64 = 64 << 11;

#[test]
fn overlapping_and_unaligned_writes_lose_nothing() {
    let cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x5e4f);
    for round in 0..15 {
        let mut random = Random::new(200 + round);
        let pattern = pattern(&mut random, REGION_SECTORS, round);
        println!("round {round}: {pattern:?}");
        let load = load_at(&cluster, Node::A1, &history, &pattern, 400);
        assert_eq!(load.finish().refused, 0);
        check_at(&cluster, Node::A1, &history, REGION_SECTORS);
    }
}

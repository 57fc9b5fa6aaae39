//! Rows 17 and 18: wall clocks that jump, and a process that stops for a while.

use crate::rounds::{DEMO, SOON, assert_replicas_identical, check_at, history, load_at, steady};
use std::time::Duration;
use tests::Node;
use tests::cluster::{Cluster, Options, Signal};
use tests::verify;

const REGION_SECTORS: u64 = 16 << 11;
/// Longer than a grant, with the drift.
const SETTLED: Duration = Duration::from_secs(8);
const DAY_SECONDS: i64 = 86_400;

/// A node's wall clock, in seconds since 1970, as it says itself.
fn wall_clock(cluster: &Cluster, node: Node) -> Option<i64> {
    let status: isthmus_api::Status = cluster.get_at(node, &["status"])?;
    i64::try_from(status.observed.at_ms / 1000).ok()
}

#[test]
fn row_17_jumps_of_the_wall_clocks_have_no_effect() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20).with_wall_clocks());
    let history = history(0x17);
    let load = load_at(
        &cluster,
        Node::A1,
        &history,
        &steady(REGION_SECTORS, 1),
        100,
    );
    let epoch = cluster.volume(DEMO).expect("the cluster answers").epoch;
    // Apart from each other, back and forth, by more than any lease and certificate would bear if they asked this clock.
    for (node, days) in [
        (Node::A1, 30),
        (Node::B1, -400),
        (Node::W1, 3),
        (Node::A1, -2),
        (Node::B1, 365),
    ] {
        let before = wall_clock(&cluster, Node::A1).expect("a1 answers");
        cluster.set_wall_clock(node, days * DAY_SECONDS);
        if node == Node::A1 {
            let now = wall_clock(&cluster, Node::A1).expect("a1 answers");
            assert!(
                (now - before).abs() > DAY_SECONDS,
                "the clock was set: {before} to {now}"
            );
        }
        load.until_more(200, SOON);
    }
    let volume = cluster.volume(DEMO).expect("the cluster answers");
    assert_eq!(
        volume.epoch, epoch,
        "nobody was taken for lost: {volume:#?}"
    );
    assert_eq!(volume.in_sync, ["a1", "b1"]);
    // A failover between sites whose clocks are years apart.
    cluster.kill(Node::A1);
    let _ = load.join();
    cluster.deactivate(Node::A1);
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
    cluster.set_wall_clock(Node::A1, -100 * DAY_SECONDS);
    cluster.start_node(Node::A1);
    cluster.activate(Node::A1);
    cluster.until_in_sync(SOON);
    assert_replicas_identical(&cluster, REGION_SECTORS);
}

#[test]
fn row_18_a_node_that_was_stopped_past_its_grant_answers_nothing_old() {
    let cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x11c7);
    let load = load_at(
        &cluster,
        Node::A1,
        &history,
        &steady(REGION_SECTORS, 1),
        100,
    );
    let mut reader = verify::open(&cluster.nbd(Node::A1), DEMO, SOON);
    cluster.signal(Node::A1, Signal::STOP);
    let before = load.acknowledged();
    let said = cluster.domain_ctl_at(
        Node::B1,
        &["deactivate", "clusterdomain", "site-a", "--wait"],
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
    let newer = load_at(
        &cluster,
        Node::B1,
        &history,
        &steady(REGION_SECTORS, 2),
        100,
    );
    assert_eq!(newer.finish().refused, 0);
    cluster.signal(Node::A1, Signal::CONT);
    reader
        .set_patience(SETTLED)
        .expect("a socket takes a time-out");
    assert!(
        reader.read(0, &mut [0; 512]).is_err(),
        "a read past the grant was answered"
    );
    let outcome = load.join();
    // Replies that lay in the socket when the node was stopped are no new answers.
    assert!(
        outcome.acknowledged <= before + 8,
        "{outcome:?}, {before} before"
    );
    cluster.activate(Node::A1);
    cluster.until_in_sync(SOON);
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
    assert_replicas_identical(&cluster, (64 << 20) / 512);
}

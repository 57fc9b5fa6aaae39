//! Rows 4, 6, 7, 8 and 9: links between the nodes are cut, slow or lossy.

use crate::rounds::{
    self, DEMO, SOON, assert_frozen, assert_replicas_identical, check_at, history, load_at,
};
use std::time::Duration;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::link::Condition;
use tests::load::{Pattern, Shared};
use tests::nbd::Session;
use tests::patience::{wait_until, within};
use tests::verify;

const REGION_SECTORS: u64 = 16 << 11;
/// Longer than a grant, a replica's time-out and an election together, with the drift.
const SETTLED: Duration = Duration::from_secs(8);

fn cluster() -> Cluster {
    Cluster::start(&Options::with_volume(64 << 20).in_namespaces())
}

fn steady(seed: u64) -> Pattern {
    rounds::steady(REGION_SECTORS, seed)
}

/// That a node answers no I/O: it refuses to open the volume, or, where it does not know yet that it serves no more, a read waits.
#[track_caller]
fn assert_serves_nothing(cluster: &Cluster, node: Node) {
    let Ok(mut session) = Session::open(&cluster.nbd(node), DEMO) else {
        return;
    };
    session
        .set_patience(SETTLED)
        .expect("a socket takes a time-out");
    let read = session.read(0, &mut [0; 512]);
    assert!(read.is_err(), "{} must not serve, and did", node.name());
}

/// After all links are good again.
#[track_caller]
fn assert_whole(cluster: &Cluster, node: Node, history: &Shared) {
    cluster.until_in_sync(SOON);
    check_at(cluster, node, history, REGION_SECTORS);
    assert_replicas_identical(cluster, (64 << 20) / 512);
}

/// Lets kvdb be led at a site: whoever else leads is away for a moment.
fn lead(cluster: &Cluster, node: Node) {
    let leader = || cluster.status()?.kvdb.leader;
    wait_until("the node leads kvdb", SOON * 2, || {
        let now = leader()?;
        if now == node.name() {
            return Some(());
        }
        let away = Node::ALL.into_iter().find(|other| other.name() == now)?;
        for other in Node::ALL.into_iter().filter(|other| *other != away) {
            cluster.set_link(away, other, Condition::CUT);
        }
        let elsewhere = within(SOON, || {
            let at = Node::ALL.into_iter().find(|other| *other != away)?;
            let status: isthmus_api::Status = cluster.get_at(at, &["status"])?;
            status.kvdb.leader.filter(|leader| leader != away.name())
        });
        cluster.switch().heal();
        elsewhere.filter(|leader| leader == node.name()).map(|_| ())
    });
    cluster.until_in_sync(SOON);
}

#[test]
fn row_06_when_only_the_link_is_cut_exactly_one_side_goes_on() {
    let cluster = cluster();
    let rounds = [
        (Node::A1, Node::A1),
        (Node::A1, Node::B1),
        (Node::B1, Node::B1),
        (Node::B1, Node::A1),
    ];
    for (round, (leader, primary)) in rounds.into_iter().enumerate() {
        let history = history(0x11c0 + round as u64);
        lead(&cluster, leader);
        zero(&cluster, primary);
        let load = load_at(&cluster, primary, &history, &steady(round as u64), 100);
        cluster.set_link(Node::A1, Node::B1, Condition::CUT);
        load.until_more(300, SOON);
        assert_serves_nothing(&cluster, primary.other());
        cluster.switch().heal();
        cluster.until_in_sync(SOON);
        load.until_more(100, SOON);
        assert_eq!(
            load.finish().refused,
            0,
            "the side that goes on refuses nothing"
        );
        assert_whole(&cluster, primary, &history);
    }
}

/// Empties the region, so that a new history can begin.
#[track_caller]
fn zero(cluster: &Cluster, node: Node) {
    let mut session = verify::open(&cluster.nbd(node), DEMO, SOON);
    let bytes = (REGION_SECTORS * 512) as u32;
    session
        .call(tests::nbd::request::WRITE_ZEROES, 0, 0, bytes, &[])
        .expect("zeros are written");
    session.close();
}

#[test]
fn row_07_a_primary_that_is_cut_off_from_all_acknowledges_nothing_and_never_answers_with_what_is_old()
 {
    let cluster = cluster();
    let history = history(0x11c2);
    let load = load_at(&cluster, Node::A1, &history, &steady(1), 100);
    let mut reader = verify::open(&cluster.nbd(Node::A1), DEMO, SOON);
    cluster.set_link(Node::A1, Node::B1, Condition::CUT);
    cluster.set_link(Node::A1, Node::W1, Condition::CUT);
    let said = cluster.domain_ctl_at(
        Node::B1,
        &["deactivate", "clusterdomain", "site-a", "--wait"],
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    // The proof that site-a can serve no more: from here on nothing may be acknowledged or read there.
    let before = load.acknowledged();
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
    let newer = load_at(&cluster, Node::B1, &history, &steady(2), 100);
    assert_eq!(newer.finish().refused, 0);
    reader
        .set_patience(SETTLED)
        .expect("a socket takes a time-out");
    let read = reader.read(0, &mut [0; 512]);
    assert!(read.is_err(), "a read past the grant was answered");
    assert_eq!(
        load.acknowledged(),
        before,
        "writes were acknowledged at both sites"
    );
    assert_serves_nothing(&cluster, Node::A1);

    cluster.switch().heal();
    let outcome = load.join();
    assert_eq!(
        outcome.acknowledged, before,
        "a write was replayed after the demotion"
    );
    let said = cluster.domain_ctl_at(Node::B1, &["activate", "clusterdomain", "site-a", "--wait"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_whole(&cluster, Node::B1, &history);
}

#[test]
fn row_07_without_the_other_site_and_the_witness_a_side_freezes_and_goes_on_when_the_links_are_back()
 {
    let cluster = cluster();
    let history = history(0x11c3);
    let load = load_at(&cluster, Node::A1, &history, &steady(1), 100);
    for (one, other) in [
        (Node::A1, Node::B1),
        (Node::A1, Node::W1),
        (Node::B1, Node::W1),
    ] {
        cluster.set_link(one, other, Condition::CUT);
    }
    assert_frozen(&load);
    assert_serves_nothing(&cluster, Node::B1);
    cluster.switch().heal();
    load.until_more(200, SOON);
    assert_eq!(
        load.finish().refused,
        0,
        "a freeze that ends under the same primary costs no error"
    );
    assert_whole(&cluster, Node::A1, &history);
}

#[test]
fn row_07_a_cut_off_secondary_stops_nobody_and_serves_nothing() {
    let cluster = cluster();
    let history = history(0x11c4);
    let load = load_at(&cluster, Node::A1, &history, &steady(1), 100);
    cluster.set_link(Node::A1, Node::B1, Condition::CUT);
    cluster.set_link(Node::B1, Node::W1, Condition::CUT);
    load.until_more(300, SOON);
    assert_serves_nothing(&cluster, Node::B1);
    cluster.switch().heal();
    cluster.until_in_sync(SOON);
    assert_eq!(load.finish().refused, 0);
    assert_whole(&cluster, Node::A1, &history);
}

#[test]
fn row_04_losing_the_witness_costs_nothing_until_the_link_is_cut_too() {
    let cluster = cluster();
    let history = history(0x11c5);
    let load = load_at(&cluster, Node::A1, &history, &steady(1), 100);
    cluster.set_link(Node::A1, Node::W1, Condition::CUT);
    cluster.set_link(Node::B1, Node::W1, Condition::CUT);
    load.until_more(500, SOON);
    let silent = within(SOON, || {
        cluster
            .status()
            .filter(|status| status.nodes_silent == ["w1"])
    });
    assert!(
        silent.is_some(),
        "the operator is told that the witness is silent"
    );
    let status = cluster.status().expect("the cluster answers");
    for site in &status.site_loss {
        assert!(
            !site.kvdb_goes_on && !site.reasons.is_empty(),
            "it says what would freeze now: {site:#?}"
        );
    }
    cluster.set_link(Node::A1, Node::B1, Condition::CUT);
    assert_frozen(&load);
    assert_serves_nothing(&cluster, Node::B1);
    cluster.switch().heal();
    load.until_more(100, SOON);
    assert_eq!(load.finish().refused, 0);
    assert_whole(&cluster, Node::A1, &history);
}

#[test]
fn row_08_a_one_way_flapping_lossy_or_disordered_link_gives_no_wrong_answer() {
    let cluster = cluster();
    let history = history(0x11c6);
    let load = load_at(&cluster, Node::A1, &history, &steady(1), 100);
    for (from, to) in [(Node::A1, Node::B1), (Node::B1, Node::A1)] {
        cluster
            .switch()
            .set_one_way(from.index(), to.index(), Condition::CUT);
        load.until_more(100, SOON);
        cluster.switch().heal();
        cluster.until_in_sync(SOON);
    }
    for _ in 0..5 {
        cluster.set_link(Node::A1, Node::B1, Condition::CUT);
        let lost = cluster.switch().lost();
        wait_until("packets are lost", SOON, || {
            (cluster.switch().lost() > lost + 10).then_some(())
        });
        cluster.switch().heal();
        load.until_more(20, SOON);
    }
    cluster.set_link(Node::A1, Node::B1, Condition::lossy(300));
    load.until_more(50, SOON);
    let disordered = Condition::disordered(Duration::from_millis(10));
    cluster.set_link(Node::A1, Node::B1, disordered);
    load.until_more(100, SOON);
    cluster.set_link(
        Node::A1,
        Node::B1,
        Condition::slow(Duration::from_millis(20)),
    );
    load.until_more(50, SOON);
    cluster.switch().heal();
    cluster.until_in_sync(SOON);
    assert_eq!(load.finish().refused, 0);
    assert_whole(&cluster, Node::A1, &history);
}

#[test]
fn row_09_a_link_slower_than_a_site_should_be_delays_and_costs_nothing_else() {
    let cluster = cluster();
    let history = history(0x11c8);
    let slow = Condition::slow(Duration::from_millis(25));
    cluster.set_link(Node::A1, Node::B1, slow);
    let load = load_at(&cluster, Node::A1, &history, &steady(1), 100);
    wait_until("the round trip is shown", SOON, || {
        let nodes: isthmus_api::NodeList = cluster.get_at(Node::A1, &["get", "nodes"])?;
        let peer = nodes.items.into_iter().find(|node| node.name == "b1")?;
        peer.round_trip_us.filter(|us| *us >= 50_000)
    });
    load.until_more(200, SOON);
    let volume = cluster.volume(DEMO).expect("the cluster answers");
    assert_eq!(
        volume.in_sync,
        ["a1", "b1"],
        "a slow replica is no lost one"
    );
    cluster.switch().heal();
    assert_eq!(load.finish().refused, 0);
    assert_whole(&cluster, Node::A1, &history);
}

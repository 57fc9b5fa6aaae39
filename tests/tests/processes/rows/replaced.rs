//! Row 24: a node's disk is emptied, replaced or rolled back.

use crate::rounds::{
    DEMO, SOON, assert_replicas_identical, check_at, history, load_at, steady, until_voters,
};
use std::fs;
use std::path::PathBuf;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::nbd::Session;
use tests::patience::{wait_until, within};
use tests::tool::run;

const REGION_SECTORS: u64 = 16 << 11;

fn data(cluster: &Cluster, node: Node) -> PathBuf {
    cluster.folder().join(node.name())
}

fn incarnation(cluster: &Cluster, node: Node) -> Option<String> {
    let nodes: isthmus_api::NodeList = cluster.get(&["get", "nodes"])?;
    let found = nodes.items.into_iter().find(|one| one.name == node.name());
    found?.incarnation
}

#[test]
fn row_24_an_emptied_disk_comes_back_as_a_new_replica_that_is_resynced_before_it_counts() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x2401);
    let before = incarnation(&cluster, Node::B1).expect("b1 is known");
    let load = load_at(
        &cluster,
        Node::A1,
        &history,
        &steady(REGION_SECTORS, 1),
        300,
    );
    cluster.kill(Node::B1);
    fs::remove_dir_all(data(&cluster, Node::B1)).expect("b1's data can be removed");
    cluster.start_node(Node::B1);
    wait_until("another incarnation is known", SOON, || {
        incarnation(&cluster, Node::B1).filter(|now| *now != before)
    });
    load.until_more(100, SOON);
    cluster.until_in_sync(SOON);
    assert_eq!(load.finish().refused, 0);
    until_voters(&cluster, &Node::ALL);
    assert_replicas_identical(&cluster, (64 << 20) / 512);
    // It really holds everything.
    cluster.kill(Node::A1);
    cluster.deactivate(Node::A1);
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
}

#[test]
fn row_24_a_primarys_emptied_disk_is_never_promoted_and_takes_nothing_away() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x2402);
    let load = load_at(
        &cluster,
        Node::A1,
        &history,
        &steady(REGION_SECTORS, 1),
        300,
    );
    cluster.kill(Node::A1);
    let _ = load.join();
    fs::remove_dir_all(data(&cluster, Node::A1)).expect("a1's data can be removed");
    // The node that once formed the cluster forms no second one.
    cluster.start_node(Node::A1);
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
    cluster.until_in_sync(SOON);
    until_voters(&cluster, &Node::ALL);
    assert_replicas_identical(&cluster, (64 << 20) / 512);
    check_at(&cluster, Node::A1, &history, REGION_SECTORS);
}

#[test]
fn row_24_a_disk_that_was_rolled_back_is_outside_every_set_and_never_promoted() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x2403);
    let written = load_at(
        &cluster,
        Node::A1,
        &history,
        &steady(REGION_SECTORS, 1),
        100,
    );
    assert_eq!(written.finish().refused, 0);
    // As it was copied while it stood still, and put back after one start more: the smallest step back there is.
    cluster.stop_node(Node::B1);
    let (place, copy) = (data(&cluster, Node::B1), cluster.folder().join("copy"));
    let copied = |from: &PathBuf, to: &PathBuf| {
        let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
        run("cp", &["-a", "--sparse=always", &from, &to]);
    };
    copied(&place, &copy);
    cluster.start_node(Node::B1);
    cluster.until_in_sync(SOON);
    let written = load_at(
        &cluster,
        Node::A1,
        &history,
        &steady(REGION_SECTORS, 2),
        300,
    );
    assert_eq!(written.finish().refused, 0);
    cluster.until_in_sync(SOON);
    cluster.kill_at_once(&[Node::A1, Node::B1]);
    fs::remove_dir_all(&place).expect("b1's data can be removed");
    copied(&copy, &place);
    cluster.start_node(Node::B1);

    // With a1 gone nobody holds what was acknowledged since: b1 must not be taken for one who does.
    let said = within(SOON, || {
        let text = fs::read_to_string(cluster.folder().join("b1.log")).ok()?;
        let line = text.lines().find(|line| line.contains("rolled back"))?;
        Some(line.to_owned())
    });
    let promoted = cluster.domain_ctl(&[
        "deactivate",
        "clusterdomain",
        "site-a",
        "--wait",
        "--timeout",
        "10s",
    ]);
    assert_ne!(promoted.code, Some(0), "{promoted:?}");
    let opened = Session::open(&cluster.nbd(Node::B1), DEMO);
    assert!(opened.is_err(), "a rolled back replica serves");
    println!("b1 said: {said:?}");

    // As the node says: emptied, it comes back as a new replica.
    cluster.kill(Node::B1);
    fs::remove_dir_all(&place).expect("b1's data can be removed");
    cluster.start_node(Node::A1);
    cluster.start_node(Node::B1);
    cluster.until_in_sync(SOON);
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
    assert_replicas_identical(&cluster, (64 << 20) / 512);
    assert!(said.is_some(), "nothing was said about the disk");
}

#[test]
fn row_24_a_witness_whose_disk_was_emptied_comes_back_under_another_name_and_stops_nobody() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x2404);
    let load = load_at(
        &cluster,
        Node::A1,
        &history,
        &steady(REGION_SECTORS, 1),
        100,
    );
    let before = incarnation(&cluster, Node::W1);
    cluster.kill(Node::W1);
    fs::remove_dir_all(data(&cluster, Node::W1)).expect("w1's data can be removed");
    cluster.start_node(Node::W1);
    wait_until("another incarnation is known", SOON, || {
        incarnation(&cluster, Node::W1).filter(|now| Some(now) != before.as_ref())
    });
    load.until_more(300, SOON);
    until_voters(&cluster, &Node::ALL);
    cluster.until_in_sync(SOON);
    assert_eq!(load.finish().refused, 0);
    assert_replicas_identical(&cluster, (64 << 20) / 512);
}

//! Which nodes hold a volume: a second replica in a site, which takes over there by itself, and a node that is replaced.

use crate::rounds::{
    DEMO, SOON, check_at, check_volume_at, history, load_at, load_volume_at, steady,
};
use isthmus_api::{NodeList, ReplicaState, Volume};
use tests::cluster::{Cluster, Options};
use tests::load::Shared;
use tests::patience::wait_until;
use tests::{Node, verify};

const SECTORS: u64 = (64 << 20) / 512;

#[track_caller]
fn until_registered(cluster: &Cluster, name: &str) {
    wait_until("the node has come", SOON, || {
        let nodes: NodeList = cluster.get(&["get", "nodes"])?;
        let node = nodes.items.into_iter().find(|node| node.name == name)?;
        node.answers.then_some(())
    });
}

fn volume(cluster: &Cluster, name: &str) -> Option<Volume> {
    cluster.volume(name)
}

fn in_sync(cluster: &Cluster, name: &str) -> Vec<String> {
    let mut names = volume(cluster, name).map_or_else(Vec::new, |volume| volume.in_sync);
    names.sort();
    names
}

#[track_caller]
fn check_at_store(cluster: &Cluster, store: usize, name: &str, history: &Shared) {
    let mut session = verify::open(&cluster.worker_nbd(store), name, SOON);
    verify::check(&mut session, &mut tests::load::lock(history), 0..SECTORS);
    session.close();
}

#[test]
fn a_node_that_comes_later_gets_a_replica_takes_over_and_replaces_the_one_that_died() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x22);
    let load = load_at(&cluster, Node::A1, &history, &steady(SECTORS, 1), 300);
    assert_eq!(load.finish().refused, 0);
    let store = cluster.add_store(Node::A1);
    until_registered(&cluster, "store-1");

    let add = ["add", "replica", "volume", DEMO, "--node"];
    let said = cluster.refused(&[&add[..], &["w1"]].concat());
    assert!(said.contains("store in a data domain"), "{said}");
    let said = cluster.refused(&["remove", "replica", "volume", DEMO, "--node", "b1"]);
    assert!(said.contains("add replica volume demo"), "{said}");
    // It is brought in sync under load, and counts from then on.
    let load = load_at(&cluster, Node::A1, &history, &steady(SECTORS, 2), 100);
    let said = cluster.done(&[&add[..], &["store-1", "--wait"]].concat());
    assert!(said.contains("in sync"), "{said}");
    assert_eq!(in_sync(&cluster, DEMO), ["a1", "b1", "store-1"]);
    load.until_more(200, SOON);

    // The primary dies: the other replica of its site takes over without anybody's word, with every acknowledged write.
    cluster.kill(Node::A1);
    let _ = load.abandon();
    check_at_store(&cluster, store, DEMO, &history);
    assert_eq!(in_sync(&cluster, DEMO), ["b1", "store-1"]);
    let shown = volume(&cluster, DEMO).expect("it is there");
    assert_eq!(
        shown.unprotected_since_ms, None,
        "each site has a replica that is in sync"
    );

    // The dead node is replaced by it.
    let said = cluster.refused(&["remove", "node", "a1"]);
    assert!(
        said.contains("remove replica volume demo --node a1"),
        "{said}"
    );
    cluster.done(&["remove", "replica", "volume", DEMO, "--node", "a1"]);
    cluster.done(&["remove", "node", "a1"]);
    wait_until("kvdb votes without it", SOON, || {
        let mut voters = cluster.status()?.kvdb.voters;
        voters.sort();
        (voters == ["b1", "store-1", "w1"]).then_some(())
    });
    cluster.until_in_sync(SOON);
    // The other site has it all, too.
    cluster.kill_worker(store);
    cluster.done(&["deactivate", "clusterdomain", "site-a", "--wait"]);
    check_at(&cluster, Node::B1, &history, SECTORS);
}

#[test]
fn two_replicas_in_each_site_ride_through_the_loss_of_a_node_and_of_a_site() {
    let options = Options::with_volume(16 << 20).with_stores(&[Node::A1, Node::B1]);
    let mut cluster = Cluster::start(&options);
    for name in ["store-1", "store-2"] {
        until_registered(&cluster, name);
    }
    let said = cluster.refused(&[
        "create",
        "volume",
        "pair",
        "--size",
        "64MiB",
        "--replicas",
        "3",
    ]);
    assert!(said.contains("too few"), "{said}");
    let pair = ["create", "volume", "pair", "--size", "64MiB"];
    let more = ["--block-size", "512", "--on-peer-loss", "suspend"];
    cluster.done(&[&pair[..], &more, &["--replicas", "2"]].concat());
    assert_eq!(
        in_sync(&cluster, "pair"),
        ["a1", "b1", "store-1", "store-2"]
    );
    let history = history(0x2222);

    // A secondary whose site keeps another one leaves the set, though the policy is to wait.
    let pattern = steady(SECTORS, 1);
    let load = load_volume_at(&cluster, Node::A1, "pair", &history, &pattern, 100);
    cluster.kill(Node::B1);
    load.until_more(300, SOON);
    assert_eq!(in_sync(&cluster, "pair"), ["a1", "store-1", "store-2"]);
    cluster.start_node(Node::B1);
    cluster.until_in_sync(SOON);
    assert_eq!(load.finish().refused, 0);
    check_volume_at(&cluster, Node::A1, "pair", &history, SECTORS);

    // A whole site: the other one goes on when it is told to.
    cluster.kill(Node::A1);
    cluster.kill_worker(0);
    cluster.done(&["deactivate", "clusterdomain", "site-a", "--wait"]);
    let load = load_volume_at(
        &cluster,
        Node::B1,
        "pair",
        &history,
        &steady(SECTORS, 2),
        100,
    );
    assert_eq!(load.finish().refused, 0);
    // And its nodes stand in for each other, too.
    let load = load_volume_at(
        &cluster,
        Node::B1,
        "pair",
        &history,
        &steady(SECTORS, 3),
        100,
    );
    cluster.start_node(Node::A1);
    cluster.start_worker(0);
    wait_until("the lost site's nodes answer", SOON, || {
        let silent = cluster.status()?.nodes_silent;
        silent.is_empty().then_some(())
    });
    cluster.done(&["activate", "clusterdomain", "site-a", "--wait"]);
    cluster.until_in_sync(SOON);
    cluster.kill(Node::B1);
    let _ = load.abandon();
    check_at_store(&cluster, 1, "pair", &history);
    let shown = volume(&cluster, "pair").expect("it is there");
    let away = shown.replicas.iter().find(|replica| replica.node == "b1");
    assert!(
        away.is_some_and(|replica| !matches!(replica.state, ReplicaState::InSync)),
        "{shown:?}"
    );
}

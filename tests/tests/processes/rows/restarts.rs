//! Rows 21 and 22: nodes are restarted one after another, kvdb loses its leader or its quorum.

use crate::rounds::{
    DEMO, SOON, assert_frozen, assert_replicas_identical, check_at, history, load_at, steady,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::load::Load;
use tests::lossy::Faults;
use tests::patience::wait_until;
use tests::{tool, verify};

const REGION_SECTORS: u64 = 16 << 11;
const DISK_BYTES: u64 = 1 << 30;

/// Restarts all nodes, one after another, each when all is well again.
fn restart_all(cluster: &mut Cluster, each: impl Fn()) {
    for node in [Node::W1, Node::B1, Node::A1] {
        assert_eq!(
            cluster.stop_node(node),
            Some(0),
            "{} ends well",
            node.name()
        );
        cluster.start_node(node);
        cluster.until_in_sync(SOON);
        each();
    }
}

#[test]
fn row_21_a_rolling_restart_under_load_costs_a_client_that_reconnects_no_error_and_no_write() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x21);
    verify::open(&cluster.nbd(Node::A1), DEMO, SOON).close();
    let endpoint = cluster.nbd(Node::A1);
    let pattern = steady(REGION_SECTORS, 1);
    let load = Load::start_reconnecting(&endpoint, DEMO, &history, &pattern, SOON)
        .expect("what could be opened can be opened");
    load.until_acknowledged(100, SOON);
    restart_all(&mut cluster, || load.until_more(100, SOON));
    assert!(
        load.reconnections() > 0,
        "its own server was restarted, too"
    );
    assert_eq!(load.finish().refused, 0, "no I/O error");
    cluster.until_in_sync(SOON);
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
    assert_replicas_identical(&cluster, (64 << 20) / 512);
}

#[test]
fn row_21_qemu_sees_no_error_in_a_rolling_restart() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    verify::open(&cluster.nbd(Node::A1), DEMO, SOON).close();
    let address = cluster.nbd(Node::A1).address;
    let image = format!(
        "driver=nbd,server.type=inet,server.host={},server.port={},export={DEMO},reconnect-delay=60,open-timeout=60",
        address.ip(),
        address.port()
    );
    let (done, runs) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let bench = [
                    "bench",
                    "-w",
                    "-c",
                    "3000",
                    "-d",
                    "8",
                    "-s",
                    "4096",
                    "--image-opts",
                ];
                let output = tool::attempt("qemu-img", &[&bench[..], &[&image]].concat());
                runs.store(true, Ordering::Relaxed);
                assert!(output.status.success(), "qemu-img bench: {output:?}");
            }
        });
        wait_until("qemu has written", SOON, || {
            runs.load(Ordering::Relaxed).then_some(())
        });
        restart_all(&mut cluster, || ());
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = client.join() {
            std::panic::resume_unwind(panic);
        }
    });
    cluster.until_in_sync(SOON);
    assert_replicas_identical(&cluster, (64 << 20) / 512);
}

#[test]
fn row_22_the_loss_of_kvdbs_leader_stops_no_io() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x22);
    let leader = cluster.status().and_then(|status| status.kvdb.leader);
    // Where the data are, or else what is killed is not what the volume lives on.
    let led = Node::DATA
        .into_iter()
        .find(|node| Some(node.name()) == leader.as_deref());
    let leader = led.unwrap_or(Node::W1);
    let primary = led.map_or(Node::A1, Node::other);
    let load = load_at(&cluster, primary, &history, &steady(REGION_SECTORS, 1), 100);
    cluster.kill(leader);
    load.until_more(500, SOON);
    let elected = wait_until("another one leads", SOON, || cluster.status()?.kvdb.leader);
    assert_ne!(elected, leader.name());
    cluster.start_node(leader);
    cluster.until_in_sync(SOON);
    load.until_more(100, SOON);
    assert_eq!(load.finish().refused, 0);
    check_at(&cluster, primary.other(), &history, REGION_SECTORS);
    assert_replicas_identical(&cluster, (64 << 20) / 512);
}

#[test]
fn row_22_without_kvdbs_quorum_a_volume_on_both_sites_runs_flat_until_a_replica_is_lost() {
    let options = Options::with_volume(64 << 20).on_lossy_disks(DISK_BYTES);
    let mut cluster = Cluster::start(&options);
    let history = history(0x2202);
    let load = load_at(
        &cluster,
        Node::A1,
        &history,
        &steady(REGION_SECTORS, 1),
        100,
    );
    // kvdb's own files, and nothing else, take an hour to sync: no voter can say that it holds an entry or a vote.
    for node in Node::ALL {
        cluster.disk(node).set_faults(Faults {
            below: "raft/".to_owned(),
            sync_takes: Duration::from_secs(3600),
            ..Faults::none()
        });
    }
    let said = cluster.domain_ctl(&["create", "volume", "more", "--size", "8MiB"]);
    assert_ne!(said.code, Some(0), "kvdb commits nothing: {said:?}");
    // Past every grant that was given before.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        load.until_more(50, SOON);
    }
    cluster.kill(Node::B1);
    assert_frozen(&load);
    for node in Node::ALL {
        cluster.disk(node).set_faults(Faults::none());
    }
    load.until_more(100, SOON);
    cluster.start_node(Node::B1);
    cluster.until_in_sync(SOON);
    assert_eq!(load.finish().refused, 0, "a freeze costs no error");
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
    assert_replicas_identical(&cluster, (64 << 20) / 512);
}

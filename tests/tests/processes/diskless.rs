//! Nodes without a store: clients that come to them are served by the volume's primary, under its rules.

use crate::rounds::{DEMO, SOON, assert_replicas_identical, check_at, history, steady};
use isthmus_api::{NodeList, NodeRole};
use isthmus_engine::{Epoch, NodeId, VolumeId};
use isthmus_transport::forwarding::{Message, RefusedKind};
use isthmus_transport::{
    Answer, CertificateFiles, Config, Handler, Lane, SessionId, Transport, Tunnel,
};
use std::fs;
use std::sync::Arc;
use tests::Node;
use tests::cluster::config::CLUSTER_ID;
use tests::cluster::{Cluster, Options};
use tests::load::{Load, Shared};
use tests::nbd::{OpenError, Session};
use tests::patience::wait_until;
use tests::{tool, verify};
use tokio::io::AsyncReadExt;

const BYTES: u64 = 64 << 20;
const SECTORS: u64 = BYTES / 512;
/// The diskless node at `site-a`, and the one at `site-b`.
const AT_A: usize = 0;
const AT_B: usize = 1;

fn cluster() -> Cluster {
    let options = Options::with_volume(BYTES).with_workers(&[Node::A1, Node::B1]);
    let cluster = Cluster::start(&options);
    for worker in [AT_A, AT_B] {
        let name = &cluster.worker(worker).name;
        wait_until("the diskless nodes have joined", SOON, || {
            let nodes: NodeList = cluster.get(&["get", "nodes"])?;
            let node = nodes.items.into_iter().find(|node| node.name == *name)?;
            (node.answers && node.role == NodeRole::Diskless).then_some(())
        });
    }
    cluster
}

/// A load of clients that come to a diskless node, and come again.
#[track_caller]
fn load_at_worker(cluster: &Cluster, worker: usize, history: &Shared, seed: u64) -> Load {
    let endpoint = cluster.worker_nbd(worker);
    verify::open(&endpoint, DEMO, SOON).close();
    let pattern = steady(SECTORS, seed);
    let load = Load::start_reconnecting(&endpoint, DEMO, history, &pattern, SOON)
        .expect("what could be opened can be opened");
    load.until_acknowledged(100, SOON);
    load
}

#[track_caller]
fn check_at_worker(cluster: &Cluster, worker: usize, history: &Shared) {
    let mut session = verify::open(&cluster.worker_nbd(worker), DEMO, SOON);
    verify::check(&mut session, &mut tests::load::lock(history), 0..SECTORS);
    session.close();
}

fn primary(cluster: &Cluster) -> Option<String> {
    cluster.volume(DEMO)?.primary
}

/// Waits until opening at the endpoint is refused with these words.
#[track_caller]
fn until_refused(cluster: &Cluster, worker: usize, words: &str) {
    let endpoint = cluster.worker_nbd(worker);
    wait_until("it is refused", SOON, || {
        match Session::open(&endpoint, DEMO) {
            Err(OpenError::Refused { message, .. }) => message.contains(words).then_some(()),
            Ok(_) | Err(OpenError::Connection(_)) => None,
        }
    });
}

#[test]
fn what_is_written_through_one_diskless_node_is_read_through_another_and_at_the_replicas() {
    let cluster = cluster();
    let history = history(1);
    let load = load_at_worker(&cluster, AT_A, &history, 1);
    load.until_more(300, SOON);
    assert_eq!(primary(&cluster).as_deref(), Some("a1"), "of the own site");
    let outcome = load.finish();
    assert_eq!(outcome.refused, 0);
    check_at_worker(&cluster, AT_B, &history);
    check_at(&cluster, Node::B1, &history, SECTORS);
    assert_replicas_identical(&cluster, SECTORS);

    let nodes: NodeList = cluster.get(&["get", "nodes"]).expect("nodes are listed");
    for node in &nodes.items {
        let is_diskless = node.name.starts_with("worker");
        assert_eq!(node.role == NodeRole::Diskless, is_diskless, "{node:?}");
        assert!(!(is_diskless && node.voter), "{node:?}");
    }
    let status = cluster.status().expect("a status is given");
    assert_eq!(status.kvdb.voters.len(), Node::ALL.len());
    assert_eq!(status.kvdb.quorum_margin, Some(1));
    let volume = cluster.volume(DEMO).expect("the volume is there");
    assert_eq!(volume.replicas.len(), 2, "{volume:?}");
    assert!(cluster.done(&["get", "nodes"]).contains("diskless"));
}

#[test]
fn programs_that_people_use_work_through_a_diskless_node() {
    let cluster = cluster();
    let uri = |worker: usize| {
        let address = cluster.worker_nbd(worker).address;
        format!("nbd://{address}/{DEMO}")
    };
    let file = |name: &str| cluster.folder().join(name).to_str().unwrap().to_owned();
    let content: Vec<u8> = (0..BYTES as usize / 2)
        .map(|at| (at ^ (at >> 9)) as u8)
        .collect();
    fs::write(file("in"), &content).unwrap();
    verify::open(&cluster.worker_nbd(AT_B), DEMO, SOON).close();
    tool::run("nbdcopy", &["--flush", &file("in"), &uri(AT_B)]);
    tool::run("nbdcopy", &[&uri(AT_A), &file("out")]);
    let out = fs::read(file("out")).unwrap();
    assert!(out[..content.len()] == content);
    assert!(out[content.len()..].iter().all(|byte| *byte == 0));
    let map = tool::run("nbdinfo", &["--map", &uri(AT_A)]);
    assert!(map.contains("data") && map.contains("hole,zero"), "{map}");
    tool::run(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "write -f -P 7 1M 64k",
            "-c",
            "discard 2M 1M",
            "-c",
            "write -z 4M 1M",
            "-c",
            "flush",
            "-c",
            "read -P 7 1M 64k",
            "-c",
            "read -P 0 4M 1M",
            &uri(AT_B),
        ],
    );
    let fio = format!("--uri={}", uri(AT_A));
    let arguments = [
        "--name=verify",
        "--ioengine=nbd",
        "--rw=randrw",
        "--bsrange=512-128k",
        "--iodepth=16",
        "--size=32M",
        "--io_size=16M",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--randseed=5",
    ];
    tool::run("fio", &[&arguments[..], &[&fio]].concat());
    let said = Session::open(&cluster.worker_nbd(AT_A), "nothing").expect_err("there is none");
    assert!(said.to_string().contains("no volume"), "{said}");
}

#[test]
fn a_diskless_node_that_is_killed_holds_nobody_up() {
    let mut cluster = cluster();
    let history = history(2);
    let load = load_at_worker(&cluster, AT_A, &history, 3);
    cluster.kill_worker(AT_A);
    // Others are served as before; and the primary sends the clients of the dead one away.
    let mut other = verify::open(&cluster.worker_nbd(AT_B), DEMO, SOON);
    let mut sector = [0; 512];
    other.read(0, &mut sector).expect("it is served");
    other.close();
    cluster.start_worker(AT_A);
    load.until_more(100, SOON);
    assert!(load.reconnections() > 0);
    assert_eq!(load.finish().refused, 0);
    check_at_worker(&cluster, AT_B, &history);
    assert_replicas_identical(&cluster, SECTORS);
}

#[test]
fn clients_of_a_diskless_node_follow_a_failover_and_those_of_an_inactive_site_are_refused() {
    let mut cluster = cluster();
    let history = history(3);
    let first = verify::open(&cluster.nbd(Node::A1), DEMO, SOON);
    let load = load_at_worker(&cluster, AT_B, &history, 4);
    assert_eq!(
        primary(&cluster).as_deref(),
        Some("a1"),
        "at the other site"
    );
    let mut refused = verify::open(&cluster.worker_nbd(AT_A), DEMO, SOON);
    first.close();
    cluster.kill(Node::A1);
    cluster.deactivate(Node::A1);
    load.until_more(200, SOON);
    assert!(load.reconnections() > 0);
    assert_eq!(primary(&cluster).as_deref(), Some("b1"));
    // The domain of the other one serves nothing, though it runs and reaches the primary.
    let mut sector = [0; 512];
    assert!(refused.read(0, &mut sector).is_err());
    until_refused(&cluster, AT_A, "cluster domain site-a");
    assert_eq!(load.finish().refused, 0);
    check_at_worker(&cluster, AT_B, &history);
    check_at(&cluster, Node::B1, &history, SECTORS);

    cluster.start_node(Node::A1);
    cluster.activate(Node::A1);
    cluster.until_in_sync(SOON);
    check_at_worker(&cluster, AT_A, &history);
    assert_replicas_identical(&cluster, SECTORS);
}

#[test]
fn a_site_is_deactivated_while_its_diskless_node_has_clients_at_the_other_site() {
    let cluster = cluster();
    let history = history(4);
    let kept = verify::open(&cluster.nbd(Node::B1), DEMO, SOON);
    let load = load_at_worker(&cluster, AT_A, &history, 5);
    assert_eq!(primary(&cluster).as_deref(), Some("b1"));
    cluster.deactivate(Node::A1);
    // It is proven that nothing of the domain is served: the primary at the other site takes none of its requests.
    let acknowledged = load.acknowledged();
    until_refused(&cluster, AT_A, "cluster domain site-a");
    assert_eq!(load.acknowledged(), acknowledged);
    kept.close();
    cluster.activate(Node::A1);
    cluster.until_in_sync(SOON);
    load.until_more(100, SOON);
    assert_eq!(load.finish().refused, 0);
    check_at_worker(&cluster, AT_B, &history);
}

#[test]
fn a_volume_moves_under_the_load_of_a_diskless_node() {
    let cluster = cluster();
    let history = history(5);
    let load = load_at_worker(&cluster, AT_A, &history, 6);
    for to in [Node::B1, Node::A1] {
        cluster.done(&["relocate", "volume", DEMO, "--to", to.domain(), "--wait"]);
        load.until_more(100, SOON);
        assert_eq!(primary(&cluster).as_deref(), Some(to.name()));
        wait_until("the move is over", SOON, || {
            let volume = cluster.volume(DEMO)?;
            volume.relocating.is_none().then_some(())
        });
    }
    assert_eq!(load.finish().refused, 0);
    check_at_worker(&cluster, AT_B, &history);
    assert_replicas_identical(&cluster, SECTORS);
}

#[test]
fn a_secondary_that_is_lost_costs_forwarded_clients_nothing() {
    let mut cluster = cluster();
    let history = history(6);
    let endpoint = cluster.worker_nbd(AT_A);
    verify::open(&endpoint, DEMO, SOON).close();
    // Without coming again: the epoch rises, the primary and the connection stay.
    let load = Load::start(&endpoint, DEMO, &history, &steady(SECTORS, 7)).unwrap();
    load.until_acknowledged(100, SOON);
    assert_eq!(primary(&cluster).as_deref(), Some("a1"));
    cluster.kill(Node::B1);
    load.until_more(300, SOON);
    cluster.start_node(Node::B1);
    cluster.until_in_sync(SOON);
    load.until_more(100, SOON);
    assert_eq!(load.finish().refused, 0);
    check_at_worker(&cluster, AT_B, &history);
    assert_replicas_identical(&cluster, SECTORS);
}

#[test]
fn a_volume_published_to_a_diskless_node_is_used_there_only_and_given_back_when_it_died() {
    let mut cluster = cluster();
    let name = cluster.worker(AT_A).name.clone();
    let mut earlier = verify::open(&cluster.nbd(Node::A1), DEMO, SOON);
    cluster.done(&["publish", "volume", DEMO, "--node", &name]);
    let mut session = verify::open(&cluster.worker_nbd(AT_A), DEMO, SOON);
    session.write(0, &[1; 512]).expect("it is served there");
    let mut sector = [0; 512];
    assert!(
        earlier.read(0, &mut sector).is_err(),
        "who came elsewhere before is sent away"
    );
    until_refused(&cluster, AT_B, "published");
    let error = Session::open(&cluster.nbd(Node::A1), DEMO).expect_err("it is published elsewhere");
    assert!(error.to_string().contains(&name), "{error}");
    let said = cluster.refused(&["unpublish", "volume", DEMO, "--node", &name]);
    assert!(said.contains("may still serve"), "{said}");
    let said = cluster.refused(&["publish", "volume", DEMO, "--node", "b1"]);
    assert!(said.contains(&name), "{said}");
    // Its machine dies: the primary says when no client of it is left, and that is all the proof there is to be.
    cluster.kill_worker(AT_A);
    cluster.until_done(&["unpublish", "volume", DEMO, "--node", &name], SOON);
    cluster.done(&["publish", "volume", DEMO, "--node", "b1"]);
    let mut there = verify::open(&cluster.nbd(Node::B1), DEMO, SOON);
    there.read(0, &mut sector).expect("it is served");
    assert_eq!(sector, [1; 512]);
}

/// A node that says what it is told to: sessions and nothing else.
struct Quiet;

impl Handler for Quiet {
    fn session_up(&self, _: NodeId, _: SessionId) {}
    fn session_down(&self, _: NodeId, _: SessionId) {}
    fn frame(&self, _: NodeId, _: SessionId, _: Lane, _: bytes::Bytes) {}
    fn call(&self, _: NodeId, _: u8, _: bytes::Bytes) -> Answer {
        Box::pin(std::future::pending())
    }
}

async fn ask(transport: &Transport, message: &Message) -> (Tunnel, std::io::Result<Message>) {
    let mut tunnel = transport
        .tunnel(NodeId(1))
        .await
        .expect("there is a session");
    message.write(&mut tunnel).await.expect("it is taken");
    let answer = Message::read(&mut tunnel).await;
    (tunnel, answer)
}

#[test]
fn a_client_that_is_forwarded_for_another_epoch_is_refused() {
    let mut cluster = cluster();
    let kept = verify::open(&cluster.nbd(Node::A1), DEMO, SOON);
    let volume = cluster.volume(DEMO).expect("the volume is there");
    // This test is the diskless node from here on.
    cluster.kill_worker(AT_A);
    let worker = cluster.worker(AT_A);
    let tls = CertificateFiles::in_folder(&cluster.folder().join("tls"), &worker.name);
    let mut config = Config::new(NodeId(worker.id), CLUSTER_ID, worker.addresses.peer(), tls);
    let peer = cluster.addresses(Node::A1).peer();
    config.peers = vec![(NodeId(1), peer.to_string())];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let transport = Transport::start_on(config, Arc::new(Quiet), runtime.handle()).unwrap();
    wait_until("a session with the primary", SOON, || {
        transport.connected(NodeId(1)).map(drop)
    });
    let number: u32 = volume
        .epoch
        .parse()
        .expect("an epoch of the first generation");
    let attach = |number| Message::Attach {
        volume: VolumeId(volume.id),
        epoch: Epoch {
            generation: 0,
            number,
        },
    };
    runtime.block_on(async {
        for other in [number - 1, number + 1] {
            let (mut tunnel, answer) = ask(&transport, &attach(other)).await;
            let Ok(Message::Refused { kind, reason }) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(kind, RefusedKind::OtherEpoch, "{reason}");
            assert!(tunnel.read_u8().await.is_err(), "that is the end of it");
        }
        let (_tunnel, answer) = ask(&transport, &attach(number)).await;
        let Ok(Message::Attached { bytes, epoch, .. }) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!((bytes, epoch.number), (BYTES, number));
        // What makes no sense costs its tunnel, and no more.
        let begin = Message::Begin {
            structured: true,
            allocation: false,
        };
        let (_, answer) = ask(&transport, &begin).await;
        assert!(answer.is_err());
    });
    transport.stop();
    kept.close();
}

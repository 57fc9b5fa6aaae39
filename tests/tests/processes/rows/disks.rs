//! Rows 12, 13 and 14: bits turn over on a disk, a disk fails or is read-only, disks are full.

use crate::rounds::{
    DEMO, SOON, assert_replicas_identical, check_at, history, load_at, steady, until_voters,
};
use isthmus_api::{FaultKind, Replica};
use std::fs;
use std::time::Duration;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::history::Content;
use tests::load::{Shared, lock};
use tests::lossy::Faults;
use tests::nbd::{RequestError, Session, request};
use tests::patience::{wait_until, within};
use tests::random::Random;
use tests::{stamp, verify};

const REGION_SECTORS: u64 = 16 << 11;
const MIB_SECTORS: u64 = 1 << 11;
const DISK_BYTES: u64 = 1 << 30;
const NO_SPACE: u32 = 28;

fn cluster(volume_mib: u64) -> Cluster {
    Cluster::start(&Options::with_volume(volume_mib << 20).on_lossy_disks(DISK_BYTES))
}

/// A node's replica, as the cluster shows it.
fn replica(cluster: &Cluster, node: Node) -> Option<Replica> {
    let mut replicas = cluster.volume(DEMO)?.replicas.into_iter();
    replicas.find(|replica| replica.node == node.name())
}

/// What a sector holds, as a client reads it.
fn sector(session: &mut Session, sector: u64) -> [u8; 512] {
    let mut bytes = [0; 512];
    session
        .read(sector * 512, &mut bytes)
        .expect("the volume can be read");
    bytes
}

/// Turns a bit over in some written sectors of the volume on a node's disk; how many.
fn damage(cluster: &Cluster, at: Node, session: &mut Session, seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let mut damaged = 0;
    while damaged < 6 {
        let bytes = sector(session, random.below(REGION_SECTORS));
        if bytes == [0; 512] {
            continue;
        }
        let places = cluster.disk(at).find("volumes/", &bytes);
        let (path, offset) = places.first().expect("what is read is on the disk");
        let (byte, bit) = (random.below(512), random.below(8) as u8);
        cluster.disk(at).flip(path, offset + byte, bit);
        damaged += 1;
    }
    damaged
}

#[test]
fn row_12_a_flipped_bit_in_a_block_is_found_on_read_repaired_from_the_peer_counted_and_never_returned()
 {
    let cluster = cluster(64);
    let history = history(0x1201);
    for (round, node) in Node::DATA.into_iter().enumerate() {
        let load = load_at(&cluster, node, &history, &steady(REGION_SECTORS, 1), 300);
        assert_eq!(load.finish().refused, 0);
        let mut session = verify::open(&cluster.nbd(node), DEMO, SOON);
        // Read once, so that it lies in its place and not in a journal only.
        verify::check(&mut session, &mut lock(&history), 0..REGION_SECTORS);
        damage(&cluster, node, &mut session, round as u64);
        verify::check(&mut session, &mut lock(&history), 0..REGION_SECTORS);
        session.close();
        let mut last = None;
        let counted = within(SOON, || {
            last = replica(&cluster, node);
            let disk = &last.as_ref()?.disk;
            (disk.checksum_errors > 0
                && disk.repaired_blocks == disk.checksum_errors
                && disk.bad_blocks == 0)
                .then_some(())
        });
        assert!(counted.is_some(), "found, repaired and counted: {last:#?}");
        assert_eq!(replica(&cluster, node).and_then(|one| one.disk.fault), None);
        cluster.until_in_sync(SOON);
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
}

/// The written pages of a file, as offsets.
fn pages(cluster: &Cluster, node: Node, path: &str) -> Vec<u64> {
    let bytes = cluster.disk(node).read(path);
    let pages = bytes.chunks(4096).enumerate();
    pages
        .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
        .map(|(number, _)| number as u64 * 4096)
        .collect()
}

#[test]
fn row_12_flipped_bits_in_headers_and_in_the_journal_are_found_and_cost_nothing() {
    let mut cluster = cluster(64);
    let history = history(0x1202);
    let load = load_at(
        &cluster,
        Node::A1,
        &history,
        &steady(REGION_SECTORS, 1),
        1500,
    );
    assert_eq!(load.finish().refused, 0);
    assert_eq!(cluster.stop_node(Node::A1), Some(0));
    let headers = pages(&cluster, Node::A1, "volumes/1/headers");
    assert!(!headers.is_empty(), "a checkpoint has written headers");
    for page in headers.iter().take(6) {
        cluster
            .disk(Node::A1)
            .flip("volumes/1/headers", page + 100, 3);
    }
    cluster.start_node(Node::A1);
    cluster.until_in_sync(SOON);
    check_at(&cluster, Node::A1, &history, REGION_SECTORS);
    assert_replicas_identical(&cluster, REGION_SECTORS);

    let load = load_at(
        &cluster,
        Node::A1,
        &history,
        &steady(REGION_SECTORS, 2),
        300,
    );
    assert_eq!(load.finish().refused, 0);
    cluster.kill(Node::A1);
    // In the middle of what is written, so that it can't be taken for a torn tail.
    let segments: Vec<String> = cluster
        .disk(Node::A1)
        .paths()
        .into_iter()
        .filter(|path| path.starts_with("journal/segment-"))
        .collect();
    for segment in segments {
        let pages = pages(&cluster, Node::A1, &segment);
        if let Some(page) = pages.get(pages.len() / 2) {
            cluster.disk(Node::A1).flip(&segment, page + 300, 5);
        }
    }
    cluster.start_node(Node::A1);
    // The other site serves, and takes the damaged replica out of the set, so that it can come back.
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
    wait_until("a1 has no fault any more", SOON, || {
        let replica = replica(&cluster, Node::A1)?;
        replica.disk.fault.is_none().then_some(())
    });
    cluster.until_in_sync(SOON);
    let log = fs::read_to_string(cluster.folder().join("a1.log")).expect("a1 has a log");
    assert!(log.contains("JOURNAL LOST"), "it is said");
    check_at(&cluster, Node::A1, &history, REGION_SECTORS);
    assert_replicas_identical(&cluster, REGION_SECTORS);
}

/// Writes MiB after MiB with one client; how many were acknowledged before the error that ended it.
fn fill(session: &mut Session, history: &Shared, mibs: std::ops::Range<u64>) -> (u64, Option<u32>) {
    let first_mib = mibs.start;
    for mib in mibs {
        let first = mib * MIB_SECTORS;
        let (number, id) = {
            let mut history = lock(history);
            let number = history.begin(first, MIB_SECTORS, Content::Stamps);
            (number, history.id())
        };
        let mut data = vec![0; 1 << 20];
        stamp::fill(&mut data, id, number, first);
        match session.write(first * 512, &data) {
            Ok(()) => lock(history).acknowledge(number),
            Err(RequestError::Answered(error)) => return (mib - first_mib, Some(error)),
            Err(error) => panic!("the connection is broken off: {error}"),
        }
    }
    (u64::MAX, None)
}

#[test]
fn row_13_a_secondary_whose_disk_is_full_leaves_the_set_and_comes_back_when_there_is_space() {
    let cluster = cluster(256);
    let history = history(0x1301);
    let mut session = verify::open(&cluster.nbd(Node::A1), DEMO, SOON);
    assert_eq!(fill(&mut session, &history, 0..4).1, None);
    cluster.disk(Node::B1).set_free(0);
    assert_eq!(
        fill(&mut session, &history, 4..160).1,
        None,
        "the volume goes on"
    );
    let volume = cluster.volume(DEMO).expect("the cluster answers");
    assert_eq!(volume.in_sync, ["a1"], "{volume:#?}");
    let fault = wait_until("the fault is shown", SOON, || {
        replica(&cluster, Node::B1)?.disk.fault
    });
    assert_eq!(fault.kind, FaultKind::Full, "{fault:?}");
    cluster.disk(Node::B1).set_free(DISK_BYTES);
    cluster.until_in_sync(SOON);
    verify::check(&mut session, &mut lock(&history), 0..160 * MIB_SECTORS);
    session.close();
    assert_replicas_identical(&cluster, 160 * MIB_SECTORS);
}

#[test]
fn row_13_a_secondary_whose_disk_fails_or_is_read_only_leaves_the_set_and_the_volume_goes_on() {
    let mut cluster = cluster(64);
    let history = history(0x1302);
    let faults = [
        Faults {
            below: "volumes/".to_owned(),
            writes_fail: true,
            syncs_fail: true,
            ..Faults::none()
        },
        Faults {
            below: "journal/".to_owned(),
            writes_fail: true,
            syncs_fail: true,
            ..Faults::none()
        },
        // All of it: kvdb's files, too.
        Faults {
            read_only: true,
            ..Faults::none()
        },
    ];
    for (round, faults) in faults.into_iter().enumerate() {
        println!("round {round}: {faults:?}");
        let pattern = steady(REGION_SECTORS, round as u64);
        let load = load_at(&cluster, Node::A1, &history, &pattern, 50);
        cluster.disk(Node::B1).set_faults(faults);
        load.until_more(1000, SOON);
        wait_until("b1 is out of the set", SOON, || {
            let volume = cluster.volume(DEMO)?;
            (volume.in_sync == ["a1"]).then_some(())
        });
        assert!(cluster.disk(Node::B1).refused() > 0, "the disk did fail");
        cluster.disk(Node::B1).set_faults(Faults::none());
        cluster.kill(Node::B1);
        cluster.start_node(Node::B1);
        cluster.until_in_sync(SOON);
        assert_eq!(load.finish().refused, 0, "the volume goes on");
        until_voters(&cluster, &Node::ALL);
        check_at(&cluster, Node::B1, &history, REGION_SECTORS);
        assert_replicas_identical(&cluster, REGION_SECTORS);
    }
}

#[test]
fn row_13_a_primary_whose_disk_fails_hands_its_volume_to_the_other_site() {
    let mut cluster = cluster(64);
    let history = history(0x1303);
    let load = load_at(
        &cluster,
        Node::A1,
        &history,
        &steady(REGION_SECTORS, 1),
        100,
    );
    cluster.disk(Node::A1).set_faults(Faults {
        below: "journal/".to_owned(),
        writes_fail: true,
        syncs_fail: true,
        ..Faults::none()
    });
    // Its clients are told by a closed connection, and find the volume at the other site, without any word of the operator.
    let _ = load.join();
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
    let load = load_at(
        &cluster,
        Node::B1,
        &history,
        &steady(REGION_SECTORS, 2),
        200,
    );
    let volume = cluster.volume(DEMO).expect("the cluster answers");
    assert_eq!(volume.in_sync, ["b1"], "{volume:#?}");
    cluster.disk(Node::A1).set_faults(Faults::none());
    cluster.kill(Node::A1);
    cluster.start_node(Node::A1);
    cluster.until_in_sync(SOON);
    assert_eq!(load.finish().refused, 0);
    check_at(&cluster, Node::A1, &history, REGION_SECTORS);
    assert_replicas_identical(&cluster, REGION_SECTORS);
}

#[test]
fn row_14_with_both_disks_full_writes_get_enospc_reads_and_trims_work_and_space_brings_writes_back()
{
    let cluster = cluster(256);
    let history = history(0x1401);
    let mut session = verify::open(&cluster.nbd(Node::A1), DEMO, SOON);
    assert_eq!(fill(&mut session, &history, 0..8).1, None);
    for node in Node::DATA {
        cluster.disk(node).set_free(8 << 20);
    }
    let (written, error) = fill(&mut session, &history, 8..256);
    assert_eq!(error, Some(NO_SPACE), "after {written} MiB more");
    // What is there can be read and written over, at once and as often as one likes.
    let region = (8 + written) * MIB_SECTORS;
    verify::check(&mut session, &mut lock(&history), 0..region);
    assert_eq!(fill(&mut session, &history, 0..8).1, None, "an overwrite");
    verify::check(&mut session, &mut lock(&history), 0..region);
    let (again, error) = fill(&mut session, &history, 250..256);
    assert_eq!((again, error), (0, Some(NO_SPACE)));
    let volume = cluster.volume(DEMO).expect("the cluster answers");
    assert_eq!(volume.in_sync, ["a1", "b1"], "nobody is thrown out");

    // What is trimmed gives space for something else.
    let number = lock(&history).begin(0, 4 * MIB_SECTORS, Content::Zeros);
    session
        .call(request::TRIM, 0, 0, 4 << 20, &[])
        .expect("a trim needs no space");
    lock(&history).acknowledge(number);
    verify::check(&mut session, &mut lock(&history), 0..region);
    let mut attempts = 0;
    wait_until("trimmed space can be written", SOON, || {
        attempts += 1;
        (fill(&mut session, &history, 100..101).1.is_none()).then_some(())
    });
    println!("{written} MiB until full, trimmed space came back at attempt {attempts}");

    for node in Node::DATA {
        cluster.disk(node).set_free(DISK_BYTES);
    }
    wait_until("space brings writes back", Duration::from_secs(20), || {
        (fill(&mut session, &history, 250..256).1.is_none()).then_some(())
    });
    verify::check(&mut session, &mut lock(&history), 0..256 * MIB_SECTORS);
    session.close();
    cluster.until_in_sync(SOON);
    assert_replicas_identical(&cluster, 256 * MIB_SECTORS);
}

//! What several tests do in rounds: other sizes, depths and moments each time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tests::cluster::Cluster;
use tests::history::History;
use tests::load::{Load, Pattern, Shared};
use tests::patience::{wait_until, within};
use tests::random::Random;
use tests::{Node, verify};

/// The volume of most tests.
pub const DEMO: &str = "demo";
/// Long enough for whatever a healthy cluster does, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// A history of an empty volume.
pub fn history(id: u64) -> Shared {
    Arc::new(Mutex::new(History::new(id)))
}

/// The load of a round: depths 1 to 32, sizes 512 B to 1 MiB, unaligned, overlapping.
pub fn pattern(random: &mut Random, region_sectors: u64, seed: u64) -> Pattern {
    let depths = [1, 2, 4, 8, 16, 32];
    let (sectors, align_sectors) = [
        ((1, 8), 1),
        ((8, 8), 8),
        ((1, 64), 1),
        ((1, 2048), 1),
        ((3, 17), 1),
    ][random.below(5) as usize];
    // A small region makes writes in flight overlap.
    let region = match random.below(3) {
        0 => 0..4096,
        1 => 0..region_sectors,
        _ => region_sectors / 2..region_sectors,
    };
    Pattern {
        connections: random.between(1, 2) as usize,
        depth: depths[random.below(6) as usize],
        sectors,
        align_sectors,
        region,
        zeros_per_mille: 50,
        seed,
    }
}

/// One client with eight small writes in flight, anywhere in the region.
pub fn steady(region_sectors: u64, seed: u64) -> Pattern {
    Pattern {
        connections: 1,
        depth: 8,
        sectors: (1, 64),
        align_sectors: 1,
        region: 0..region_sectors,
        zeros_per_mille: 20,
        seed,
    }
}

/// Opens the volume at a node as soon as that is possible, and checks all of the region against the history.
#[track_caller]
pub fn check_at(cluster: &Cluster, node: Node, history: &Shared, region_sectors: u64) {
    check_volume_at(cluster, node, DEMO, history, region_sectors);
}

/// The same for any volume.
#[track_caller]
pub fn check_volume_at(
    cluster: &Cluster,
    node: Node,
    volume: &str,
    history: &Shared,
    region_sectors: u64,
) {
    let mut session = verify::open(&cluster.nbd(node), volume, SOON);
    verify::check(
        &mut session,
        &mut tests::load::lock(history),
        0..region_sectors,
    );
    session.close();
}

/// Opens the volume at a node and lets a load run until it has that many acknowledgements.
#[track_caller]
pub fn load_at(
    cluster: &Cluster,
    node: Node,
    history: &Shared,
    pattern: &Pattern,
    acknowledged: u64,
) -> Load {
    load_volume_at(cluster, node, DEMO, history, pattern, acknowledged)
}

/// The same for any volume.
#[track_caller]
pub fn load_volume_at(
    cluster: &Cluster,
    node: Node,
    volume: &str,
    history: &Shared,
    pattern: &Pattern,
    acknowledged: u64,
) -> Load {
    // The first opening may have to wait for the node to be told that it may.
    verify::open(&cluster.nbd(node), volume, SOON).close();
    let load = Load::start(&cluster.nbd(node), volume, history, pattern)
        .expect("what could be opened can be opened");
    load.until_acknowledged(acknowledged, SOON);
    load
}

/// Reads all replicas, each at its own node, and compares them.
#[track_caller]
pub fn assert_replicas_identical(cluster: &Cluster, sectors: u64) {
    let [first, second] = Node::DATA.map(|node| {
        let mut session = verify::open(&cluster.nbd(node), DEMO, SOON);
        let hashes = verify::hashes(&mut session, 0..sectors).expect("the volume can be read");
        let primary = cluster.volume(DEMO).and_then(|volume| volume.primary);
        assert_eq!(
            primary.as_deref(),
            Some(node.name()),
            "the replica that was read is the node's own"
        );
        session.close();
        hashes
    });
    let differing: Vec<usize> = (0..first.len())
        .filter(|mib| first[*mib] != second[*mib])
        .collect();
    assert!(
        differing.is_empty(),
        "the replicas differ in these MiB: {differing:?}"
    );
}

/// That no write is acknowledged any more, once those in flight are.
#[track_caller]
pub fn assert_frozen(load: &Load) {
    let mut last = load.acknowledged();
    let mut quiet_since = Instant::now();
    wait_until("no write is acknowledged for two seconds", SOON, || {
        let now = load.acknowledged();
        if now != last {
            (last, quiet_since) = (now, Instant::now());
        }
        (quiet_since.elapsed() > Duration::from_secs(2)).then_some(())
    });
}

/// Waits until kvdb's voters are these.
#[track_caller]
pub fn until_voters(cluster: &Cluster, wanted: &[Node]) {
    let wanted: Vec<&str> = wanted.iter().map(|node| node.name()).collect();
    let mut last = None;
    let done = within(SOON, || {
        let voters = cluster.status()?.kvdb.voters;
        let done = voters == wanted;
        last = Some(voters);
        done.then_some(())
    });
    assert!(done.is_some(), "{wanted:?} should vote, {last:?} do");
}

//! Rows 16 and 23: a dead site returns.

use crate::rounds::{DEMO, SOON, assert_replicas_identical, check_at, history, load_at};
use tests::Node;
use tests::cluster::{Cluster, Options, Signal};
use tests::history::Content;
use tests::load::{Load, Pattern, lock};
use tests::nbd::{OpenError, Session};
use tests::{stamp, verify};

const MIB_SECTORS: u64 = 1 << 11;
const VOLUME_SECTORS: u64 = 1024 * MIB_SECTORS;
const REGION_SECTORS: u64 = 64 * MIB_SECTORS;

fn steady(seed: u64) -> Pattern {
    Pattern {
        connections: 1,
        depth: 32,
        sectors: (1, 64),
        align_sectors: 1,
        region: 0..REGION_SECTORS,
        zeros_per_mille: 0,
        seed,
    }
}

/// Leaves writes in the primary's journal that nobody else has, and kills it.
fn die_with_a_tail_of_its_own(cluster: &mut Cluster, history: &tests::load::Shared) {
    let load = load_at(cluster, Node::A1, history, &steady(1), 500);
    let mut reader = verify::open(&cluster.nbd(Node::A1), DEMO, SOON);
    // Without the witness nobody can shrink the set: what is written now is in doubt.
    cluster.signal(Node::W1, Signal::STOP);
    cluster.signal(Node::B1, Signal::STOP);
    // A write that was sent before this read is in the primary's queue behind it at the latest.
    let _ = reader.read((VOLUME_SECTORS - 8) * 512, &mut [0; 4096]);
    cluster.kill(Node::A1);
    let _ = load.join();
    cluster.signal(Node::B1, Signal::CONT);
    cluster.signal(Node::W1, Signal::CONT);
}

#[test]
fn row_16_a_returning_site_with_writes_of_its_own_serves_nothing_gets_only_what_changed_and_takes_the_volume_back()
 {
    let mut cluster = Cluster::start(&Options::with_volume(VOLUME_SECTORS * 512).in_namespaces());
    let history = history(0xbac4);
    die_with_a_tail_of_its_own(&mut cluster, &history);
    cluster.deactivate(Node::A1);
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
    change_ten_mib(&cluster, &history);

    cluster.start_node(Node::A1);
    tests::patience::wait_until("a1 answers", SOON, || {
        let nodes = cluster.status()?.nodes_silent;
        nodes.is_empty().then_some(())
    });
    let refusal = Session::open(&cluster.nbd(Node::A1), DEMO);
    assert!(
        matches!(refusal, Err(OpenError::Refused { .. })),
        "an inactive domain serves nothing: {refusal:?}"
    );

    let before = cluster.switch().carried(Node::B1.index(), Node::A1.index());
    cluster.activate(Node::A1);
    cluster.until_in_sync(SOON);
    let moved = cluster.switch().carried(Node::B1.index(), Node::A1.index()) - before;
    println!("the resync moved {moved} bytes over the link");
    assert!(
        moved >= 10 << 20,
        "10 MiB were missing, {moved} bytes were moved"
    );
    assert!(
        moved < 20 << 20,
        "10 MiB were missing, {moved} bytes were moved"
    );

    assert_replicas_identical(&cluster, VOLUME_SECTORS);
    // Failback: the volume is served at a1 again, without the other site.
    let load = load_at(&cluster, Node::A1, &history, &steady(2), 200);
    let outcome = load.finish();
    assert_eq!(outcome.refused, 0);
    cluster.kill(Node::B1);
    check_at(&cluster, Node::A1, &history, VOLUME_SECTORS);
}

/// Changes 10 MiB in one piece at site-b.
fn change_ten_mib(cluster: &Cluster, history: &tests::load::Shared) {
    let mut session = verify::open(&cluster.nbd(Node::B1), DEMO, SOON);
    for mib in 0..10 {
        let first = (512 + mib) * MIB_SECTORS;
        let mut history = lock(history);
        let number = history.begin(first, MIB_SECTORS, Content::Stamps);
        let mut data = vec![0; 1 << 20];
        stamp::fill(&mut data, history.id(), number, first);
        session.write(first * 512, &data).expect("site-b serves");
        history.acknowledge(number);
    }
    session.close();
}

#[test]
fn row_23_a_resync_under_load_loses_no_write_and_survives_the_death_of_its_target() {
    let mut cluster = Cluster::start(&Options::with_volume(256 << 20));
    let history = history(0xbac5);
    let load = load_at(&cluster, Node::A1, &history, &steady(3), 200);
    cluster.kill(Node::B1);
    load.until_more(3000, SOON);
    for _ in 0..3 {
        cluster.start_node(Node::B1);
        load.until_more(100, SOON);
        cluster.kill(Node::B1);
    }
    cluster.start_node(Node::B1);
    load.until_more(100, SOON);
    cluster.until_in_sync(SOON);
    assert_eq!(load.finish().refused, 0);
    assert_replicas_identical(&cluster, (256 << 20) / 512);
    let load = Load::start(&cluster.nbd(Node::B1), DEMO, &history, &steady(4))
        .expect("the volume is idle");
    load.until_acknowledged(50, SOON);
    cluster.kill(Node::B1);
    let _ = load.join();
    cluster.deactivate(Node::B1);
    check_at(&cluster, Node::A1, &history, REGION_SECTORS);
}

#[test]
fn row_23_a_resync_whose_source_dies_goes_on_and_neither_writes_nor_trims_meanwhile_are_lost() {
    let mut cluster = Cluster::start(&Options::with_volume(256 << 20));
    let history = history(0xbac6);
    let pattern = Pattern {
        zeros_per_mille: 200,
        ..steady(5)
    };
    let load = load_at(&cluster, Node::A1, &history, &pattern, 200);
    cluster.kill(Node::B1);
    load.until_more(3000, SOON);
    let mut trims = verify::open(&cluster.nbd(Node::A1), DEMO, SOON);
    cluster.start_node(Node::B1);
    // What was written there is of no interest any more: only that both replicas think the same of it.
    for mib in 64..128_u64 {
        let data = vec![mib as u8; 1 << 20];
        trims.write(mib << 20, &data).expect("site-a serves");
        let (offset, bytes) = ((mib << 20) + 4096 * mib, 256 << 10);
        trims
            .call(tests::nbd::request::TRIM, 0, offset, bytes, &[])
            .expect("site-a serves");
    }
    cluster.kill(Node::A1);
    let _ = load.join();
    cluster.start_node(Node::A1);
    let load = load_at(&cluster, Node::A1, &history, &pattern, 200);
    cluster.until_in_sync(SOON);
    assert_eq!(load.finish().refused, 0);
    assert_replicas_identical(&cluster, (256 << 20) / 512);
    cluster.kill(Node::A1);
    cluster.deactivate(Node::A1);
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
}

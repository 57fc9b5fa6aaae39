//! Planned moves, failovers by policy, and volumes that grow: with real clients under load.

use crate::rounds::{
    DEMO, SOON, assert_replicas_identical, check_at, history, load_at, steady, until_voters,
};
use isthmus_api::{DomainState, FailoverReportList};
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::patience::wait_until;

const SECTORS: u64 = (64 << 20) / 512;

fn primary(cluster: &Cluster) -> Option<String> {
    cluster.volume(DEMO)?.primary
}

#[test]
fn a_volume_moves_under_load_to_the_other_site_and_back_without_a_lost_write() {
    let cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(1);
    let sites = [Node::A1, Node::B1];
    for round in 0..4_usize {
        let (from, to) = (sites[round % 2], sites[(round + 1) % 2]);
        let load = load_at(
            &cluster,
            from,
            &history,
            &steady(SECTORS, round as u64),
            100,
        );
        let said = cluster.done(&["relocate", "volume", DEMO, "--to", to.domain(), "--wait"]);
        assert!(said.contains(to.name()), "{said}");
        assert_eq!(primary(&cluster).as_deref(), Some(to.name()));
        let outcome = load.abandon();
        assert_eq!(
            outcome.refused, 0,
            "clients are sent away, not answered with errors"
        );
        // Who comes back to the old place hears where to go.
        let refused = tests::nbd::info(&cluster.nbd(from), DEMO);
        assert!(refused.is_ok(), "a look changes nothing: {refused:?}");
        check_at(&cluster, to, &history, SECTORS);
        // A client has come there: the move is over, and the volume is free again.
        wait_until("the move is over", SOON, || {
            let volume = cluster.volume(DEMO)?;
            volume.relocating.is_none().then_some(())
        });
    }
    assert_replicas_identical(&cluster, SECTORS);
}

#[test]
fn a_site_is_emptied_of_primaries_and_what_can_not_move_is_named() {
    let options = Options::with_volume(64 << 20).and_volume("other", 16 << 20, &[]);
    let mut cluster = Cluster::start(&options);
    let said = cluster.done(&["relocate", "clusterdomain", "site-a"]);
    assert!(said.contains("No volume is served"), "{said}");
    let mut sessions = Vec::new();
    for volume in [DEMO, "other"] {
        sessions.push(tests::verify::open(&cluster.nbd(Node::A1), volume, SOON));
    }
    let said = cluster.done(&["relocate", "clusterdomain", "site-a"]);
    assert!(said.contains(DEMO) && said.contains("other"), "{said}");
    for volume in [DEMO, "other"] {
        let mut session = tests::verify::open(&cluster.nbd(Node::B1), volume, SOON);
        session.write(0, &[7; 512]).expect("it is served there");
        session.close();
    }
    drop(sessions);
    cluster.kill(Node::A1);
    let said = cluster.refused(&["relocate", "volume", DEMO, "--to", "site-a"]);
    assert!(said.contains("a1"), "{said}");
    let said = cluster.refused(&["relocate", "volume", DEMO, "--to", "nowhere"]);
    assert!(said.contains("nowhere"), "{said}");
    let said = cluster.refused(&["relocate", "volume", DEMO, "--to", "witness"]);
    assert!(said.contains("no replica"), "{said}");
}

#[test]
fn a_lost_site_is_failed_over_by_the_policy_and_taken_back_by_it() {
    let policy = "[failover]\npolicy = \"automatic\"\nafter_ms = 3000\nauto_activate = true\n";
    let options = Options::with_volume(64 << 20).with_configuration(policy);
    let mut cluster = Cluster::start(&options);
    let history = history(2);
    let load = load_at(&cluster, Node::A1, &history, &steady(SECTORS, 5), 200);
    cluster.kill(Node::A1);
    let _ = load.abandon();
    wait_until("the policy has deactivated site-a", SOON, || {
        let domains = cluster.domains()?.domains;
        let site_a = domains.into_iter().find(|domain| domain.name == "site-a")?;
        (site_a.state == DomainState::Inactive).then_some(())
    });
    check_at(&cluster, Node::B1, &history, SECTORS);
    let reports: FailoverReportList = cluster
        .get(&["report", "failover"])
        .expect("there is a report");
    let report = &reports.items[0];
    assert!(report.automatic && report.zero_data_loss, "{report:?}");
    assert!(!report.proof.is_empty(), "{report:?}");
    let [volume] = &report.volumes[..] else {
        panic!("one volume moved: {report:?}")
    };
    assert!(volume.moved && volume.committed_seq.is_some(), "{volume:?}");
    assert_eq!(volume.in_sync_before, ["a1", "b1"]);
    assert!(cluster.done(&["report", "failover"]).contains("RPO 0"));

    cluster.start_node(Node::A1);
    cluster.until_in_sync(SOON);
    until_voters(&cluster, &Node::ALL);
    check_at(&cluster, Node::A1, &history, SECTORS);
}

#[test]
fn a_volume_grows_under_load_also_while_a_site_is_away() {
    let mut cluster = Cluster::start(&Options::with_volume(16 << 20));
    let small = (16 << 20) / 512;
    let history = history(3);
    let load = load_at(&cluster, Node::A1, &history, &steady(small, 7), 100);
    let said = cluster.done(&["expand", "volume", DEMO, "--size", "32MiB"]);
    assert!(said.contains("32 MiB"), "{said}");
    load.until_more(100, SOON);
    cluster.kill(Node::B1);
    load.until_more(100, SOON);
    cluster.done(&["expand", "volume", DEMO, "--size", "64MiB"]);
    load.until_more(100, SOON);
    assert_eq!(load.finish().refused, 0);
    assert_eq!(
        tests::nbd::info(&cluster.nbd(Node::A1), DEMO).expect("it is served"),
        64 << 20
    );
    // Over both new ends, while one replica has not heard of either.
    let load = load_at(&cluster, Node::A1, &history, &steady(SECTORS, 8), 300);
    cluster.start_node(Node::B1);
    cluster.until_in_sync(SOON);
    load.until_more(100, SOON);
    // Both crash with the growth in their journals.
    cluster.kill(Node::A1);
    let _ = load.abandon();
    cluster.kill(Node::B1);
    for node in [Node::A1, Node::B1] {
        cluster.start_node(node);
    }
    check_at(&cluster, Node::B1, &history, SECTORS);
    assert_replicas_identical(&cluster, SECTORS);
    let said = cluster.refused(&["expand", "volume", DEMO, "--size", "16MiB"]);
    assert!(said.contains("larger, not smaller"), "{said}");
}

#[test]
fn a_published_volume_is_opened_at_its_node_only() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    cluster.done(&["publish", "volume", DEMO, "--node", "a1"]);
    let error = tests::nbd::Session::open(&cluster.nbd(Node::B1), DEMO)
        .expect_err("it is published elsewhere");
    let session = tests::verify::open(&cluster.nbd(Node::A1), DEMO, SOON);
    let said = cluster.refused(&["unpublish", "volume", DEMO, "--node", "a1"]);
    assert!(said.contains("may still serve"), "{said} {error:?}");
    // The site dies: nothing is proven before it is deactivated.
    cluster.kill(Node::A1);
    drop(session);
    for command in [
        ["unpublish", "volume", DEMO, "--node", "a1"],
        ["publish", "volume", DEMO, "--node", "b1"],
    ] {
        let said = cluster.refused(&command);
        assert!(said.contains("deactivate clusterdomain site-a"), "{said}");
    }
    cluster.deactivate(Node::A1);
    cluster.done(&["unpublish", "volume", DEMO, "--node", "a1"]);
    cluster.done(&["publish", "volume", DEMO, "--node", "b1"]);
    let said = cluster.refused(&["delete", "volume", DEMO]);
    assert!(said.contains("published"), "{said}");
    let mut session = tests::verify::open(&cluster.nbd(Node::B1), DEMO, SOON);
    session.write(0, &[1; 512]).expect("it is served there");
    session.close();
}

//! Row 9: what is done about a link that is too slow, where the configuration says more than to report it.

use crate::rounds::{self, DEMO, SOON, assert_replicas_identical, check_at, history, load_at};
use isthmus_api::{EventList, Explanation, Link, LinkList, LinkState};
use std::time::Duration;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::link::Condition;
use tests::patience::wait_until;

const REGION_SECTORS: u64 = 16 << 11;
/// A round trip of 160 ms: over `max_rtt_ms`, and well within all of the protocol's times.
const SLOW: Condition = Condition::slow(Duration::from_millis(80));

/// A cluster whose links may be slower than those that ship, since the machine that runs this may be busy.
fn cluster(action: &str) -> Cluster {
    let link = format!(
        "[link]\nmax_rtt_ms = 60\nwindow_seconds = 5\naction = \"{action}\"\nhold_down_seconds = 8\n"
    );
    Cluster::start(
        &Options::with_volume(64 << 20)
            .in_namespaces()
            .with_configuration(&link),
    )
}

/// The link between the sites.
fn link(cluster: &Cluster) -> Option<Link> {
    let links: LinkList = cluster.get_at(Node::A1, &["get", "links"])?;
    links.items.into_iter().next()
}

fn in_sync(cluster: &Cluster) -> Option<Vec<String>> {
    cluster.volume(DEMO).map(|volume| volume.in_sync)
}

#[test]
fn row_09_a_replica_behind_a_slow_link_leaves_and_comes_back_when_the_link_was_good_for_a_while() {
    let cluster = cluster("degrade");
    let history = history(0x11d0);
    let load = load_at(
        &cluster,
        Node::A1,
        &history,
        &rounds::steady(REGION_SECTORS, 1),
        100,
    );
    cluster.set_link(Node::A1, Node::B1, SLOW);
    wait_until("the replica behind the link leaves the set", SOON, || {
        in_sync(&cluster).filter(|set| *set == ["a1"])
    });
    load.until_more(1_000, SOON);
    let explained: Explanation = wait_until("the cause is told", SOON, || {
        let explained: Explanation = cluster.get_at(Node::A1, &["explain", "volume", DEMO])?;
        let facts = explained.facts.join("\n");
        let told = facts.contains("max_rtt_ms = 60") && facts.contains("it is not good now");
        told.then_some(explained)
    });
    assert!(explained.since_ms.is_some(), "{explained:#?}");
    let refused = cluster.refused(&["relocate", "volume", DEMO, "--to", "b1"]);
    assert!(refused.contains("in sync"), "{refused}");
    wait_until("the past of the link shows it", SOON, || {
        let past = link(&cluster)?.history;
        past.iter()
            .any(|point| point.p50_us > Some(100_000))
            .then_some(())
    });

    cluster.switch().heal();
    wait_until("the link is held down, and then is not", SOON, || {
        // In this order: a replica that is back is back because the link is held down no more.
        let set = in_sync(&cluster)?;
        let kept_out = link(&cluster)?.kept_out;
        assert!(
            kept_out.is_none() || set == ["a1"],
            "{set:?} while {kept_out:?}"
        );
        kept_out.is_none().then_some(())
    });
    cluster.until_in_sync(SOON);
    load.until_more(100, SOON);
    assert_eq!(load.finish().refused, 0, "clients notice nothing");
    check_at(&cluster, Node::B1, &history, REGION_SECTORS);
    assert_replicas_identical(&cluster, (64 << 20) / 512);

    let events: EventList = cluster
        .get_at(Node::A1, &["get", "events"])
        .expect("the cluster answers");
    let states: Vec<LinkState> = events.links.iter().map(|link| link.change.state).collect();
    assert!(states.contains(&LinkState::LatencyExceeded), "{events:#?}");
}

#[test]
fn row_09_no_volume_is_created_over_a_slow_link_and_those_that_are_there_go_on() {
    let cluster = cluster("refuse-new");
    let history = history(0x11d1);
    let load = load_at(
        &cluster,
        Node::A1,
        &history,
        &rounds::steady(REGION_SECTORS, 2),
        100,
    );
    cluster.set_link(Node::A1, Node::B1, SLOW);
    wait_until("the link is too slow", SOON, || {
        link(&cluster).filter(|link| link.state == LinkState::LatencyExceeded)
    });
    let create = ["create", "volume", "more", "--size", "16MiB"];
    let refused = cluster.refused(&create);
    assert!(
        refused.contains("volume more is not created") && refused.contains("max_rtt_ms"),
        "{refused}"
    );
    load.until_more(50, SOON);
    assert_eq!(
        in_sync(&cluster),
        Some(vec!["a1".to_owned(), "b1".to_owned()])
    );
    cluster.switch().heal();
    wait_until("the link is good", SOON, || {
        link(&cluster).filter(|link| link.state == LinkState::Good)
    });
    // Each end judges by its own window: the other one's may be over a moment later.
    cluster.until_done(&create, SOON);
    assert_eq!(load.finish().refused, 0);
}

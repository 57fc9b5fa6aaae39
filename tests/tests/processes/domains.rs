//! What `domain-ctl` says and refuses.

use crate::rounds::{DEMO, SOON, check_at, history, load_at};
use isthmus_api::DomainState;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::load::Pattern;

fn some_writes() -> Pattern {
    Pattern {
        connections: 1,
        depth: 4,
        sectors: (8, 8),
        align_sectors: 8,
        region: 0..4096,
        zeros_per_mille: 0,
        seed: 1,
    }
}

fn state(cluster: &Cluster, node: Node) -> DomainState {
    let status = cluster.domains().expect("the cluster answers");
    let domain = status
        .domains
        .iter()
        .find(|domain| domain.name == node.domain());
    domain.expect("all domains are listed").state
}

#[test]
fn domain_ctl_speaks_like_storkctl_and_its_exit_codes_are_true() {
    let cluster = Cluster::start(&Options::with_volume(64 << 20));
    assert_eq!(cluster.done(&["get", "cdu"]).trim(), "No resources found.");
    let table = cluster.done(&["get", "clusterdomainsstatus"]);
    let lines: Vec<&str> = table.lines().collect();
    let header: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(
        header,
        ["NAME", "LOCAL-DOMAIN", "ACTIVE", "INACTIVE", "CREATED"]
    );
    assert!(
        lines[1].contains("site-a (InSync), site-b (InSync)"),
        "{table}"
    );

    for action in ["activate", "deactivate"] {
        let said = cluster.refused(&[action, "clusterdomain", "nowhere"]);
        assert!(
            said.contains("error: provided cluster domain nowhere not found"),
            "{said}"
        );
        let said = cluster.domain_ctl(&[action, "clusterdomain"]);
        assert_eq!(said.code, Some(2), "{said:?}");
    }

    let said = cluster.done(&["deactivate", "clusterdomain", "site-a", "--wait"]);
    assert!(
        said.contains("Cluster Domain deactivate operation started successfully for site-a"),
        "{said}"
    );
    let table = cluster.done(&["get", "cdu"]);
    let lines: Vec<&str> = table.lines().collect();
    let header: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(
        header,
        ["NAME", "CLUSTER-DOMAIN", "ACTION", "STATUS", "CREATED"]
    );
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(
        words[1..4],
        ["site-a", "Deactivate", "Successful"],
        "{table}"
    );
    let yaml = cluster.done(&["get", "cds", "-o", "yaml"]);
    assert!(yaml.contains("local_domain:"), "{yaml}");
    cluster.done(&["activate", "cd", "--all", "--wait"]);
    cluster.until_in_sync(SOON);

    cluster.done(&[
        "create",
        "volume",
        "other",
        "--size",
        "10MiB",
        "--on-peer-loss",
        "suspend",
    ]);
    let said = cluster.refused(&["create", "volume", "other", "--size", "10MiB"]);
    assert!(said.contains("other"), "{said}");
    assert!(cluster.done(&["get", "volumes"]).contains("other"));
    assert!(
        cluster
            .done(&["describe", "volume", "other"])
            .contains("other")
    );
    cluster.done(&["delete", "volume", "other"]);
    assert!(!cluster.done(&["get", "volumes"]).contains("other"));
    assert_eq!(cluster.done(&["get", "nodes"]).lines().count(), 4);
    assert!(cluster.done(&["status"]).contains("site-a"));
}

#[test]
fn the_last_active_data_domain_can_not_be_deactivated() {
    let cluster = Cluster::start(&Options::with_volume(64 << 20));
    cluster.deactivate(Node::A1);
    let said = cluster.refused(&["deactivate", "clusterdomain", "site-b", "--wait"]);
    assert!(said.contains("last"), "{said}");
    assert_eq!(state(&cluster, Node::B1), DomainState::Active);
    assert_eq!(state(&cluster, Node::A1), DomainState::Inactive);
    check_at(&cluster, Node::B1, &history(1), 4096);
}

#[test]
fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let cluster = Cluster::start(&Options::with_volume(64 << 20));
    let before = cluster.volume(DEMO).expect("the cluster answers");
    let said = cluster.done(&["deactivate", "clusterdomain", "site-a", "--dry-run"]);
    assert!(
        said.contains("nothing was changed") && said.contains("1."),
        "{said}"
    );
    assert_eq!(state(&cluster, Node::A1), DomainState::Active);
    assert_eq!(
        cluster.volume(DEMO).expect("the cluster answers").epoch,
        before.epoch
    );
    assert_eq!(cluster.done(&["get", "cdu"]).trim(), "No resources found.");
}

#[test]
fn a_deactivation_that_would_lose_writes_is_refused_until_that_is_accepted() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(2);
    let load = load_at(&cluster, Node::A1, &history, &some_writes(), 50);
    cluster.kill(Node::B1);
    // Acknowledged at site-a alone.
    load.until_more(50, SOON);
    assert_eq!(load.finish().refused, 0);
    let said = cluster.refused(&["deactivate", "clusterdomain", "site-a", "--wait"]);
    assert!(said.contains(DEMO), "the volumes are listed: {said}");
    cluster.kill(Node::A1);
    cluster.start_node(Node::B1);
    tests::patience::wait_until("kvdb has a majority again", SOON, || {
        cluster.status().filter(|status| status.observed.confirmed)
    });
    let said = cluster.refused(&["deactivate", "clusterdomain", "site-a", "--wait"]);
    assert!(said.contains(DEMO), "the volumes are listed: {said}");
    let said = cluster.domain_ctl(&["deactivate", "clusterdomain", "site-a", "--dry-run"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(state(&cluster, Node::A1), DomainState::Active);

    cluster.done(&[
        "deactivate",
        "clusterdomain",
        "site-a",
        "--accept-data-loss",
        "--reason",
        "a test",
        "--wait",
    ]);
    let mut session = tests::verify::open(&cluster.nbd(Node::B1), DEMO, SOON);
    tests::verify::hashes(&mut session, 0..4096).expect("what site-b had is served");
    session.close();
}

#[test]
fn with_one_site_dead_every_node_that_lives_answers_the_operator() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    cluster.kill(Node::A1);
    for node in [Node::B1, Node::W1] {
        let mut last = None;
        let named = tests::patience::within(SOON, || {
            let said = cluster.domain_ctl_at(node, &["status"]);
            let named = said.code == Some(0) && said.out.contains("Nodes that do not answer: a1");
            last = Some(said);
            named.then_some(())
        });
        assert!(named.is_some(), "the silent node is not named: {last:#?}");
    }
    cluster.kill(Node::W1);
    let said = cluster.domain_ctl(&[
        "deactivate",
        "clusterdomain",
        "site-a",
        "--wait",
        "--timeout",
        "3s",
    ]);
    assert_eq!(
        said.code,
        Some(1),
        "without a majority nothing is done, and that is said: {said:?}"
    );
}

use super::*;

/// Node 6, in domain A.
const NODE: NodeId = NodeId(6);

fn record(name: &str, domain: DomainId) -> NodeRecord {
    NodeRecord {
        name: name.to_owned(),
        domain,
        peer_address: "127.0.0.1:1".to_owned(),
        api_address: "127.0.0.1:2".to_owned(),
        nbd_address: Some("127.0.0.1:3".to_owned()),
        incarnation: None,
        starts: 0,
    }
}

fn add(node: u32, name: &str, domain: DomainId) -> Command {
    Command::AddDiskless {
        node: NodeId(node),
        record: Box::new(record(name, domain)),
    }
}

fn publish(node: u32) -> Command {
    Command::Publish {
        volume: DEMO,
        node: NodeId(node),
        read_only: false,
    }
}

fn unpublish(node: u32, idle: bool) -> Command {
    Command::Unpublish {
        volume: DEMO,
        node: NodeId(node),
        idle,
    }
}

/// All nodes have started, and a diskless one.
fn with_diskless() -> Cluster {
    let mut cluster = Cluster::with_volume();
    cluster.done(started(4, 4, 1));
    cluster.done(started(5, 5, 1));
    cluster.done(add(6, "worker", A));
    cluster.done(started(6, 6, 1));
    cluster
}

#[test]
fn a_diskless_node_is_added_once_and_may_move() {
    let mut cluster = with_diskless();
    let revision = cluster.catalog.revision;
    cluster.done(add(6, "worker", A));
    assert_eq!(cluster.catalog.revision, revision, "nothing has changed");
    let moved = NodeRecord {
        peer_address: "127.0.0.2:1".to_owned(),
        ..record("worker", A)
    };
    cluster.done(Command::AddDiskless {
        node: NODE,
        record: Box::new(moved),
    });
    let known = &cluster.catalog.nodes[&NODE];
    assert_eq!(known.peer_address, "127.0.0.2:1");
    assert!(known.incarnation.is_some(), "it is the same store");
    for refused in [
        add(6, "another", A),
        add(6, "worker", B),
        add(7, "worker", A),
        add(1, "node-1", A),
        add(7, "node-1", A),
        add(0, "zero", A),
        add(7, "Not a name", A),
        add(7, "worker-2", WITNESS),
    ] {
        assert!(matches!(cluster.refused(refused), Refusal::Invalid(_)));
    }
    assert!(matches!(
        cluster.refused(add(7, "worker-2", DomainId(9))),
        Refusal::UnknownDomain(_)
    ));
    assert!(cluster.catalog.broken_rules().is_empty());
}

#[test]
fn a_diskless_node_never_votes() {
    let catalog = with_diskless().catalog;
    let all = nodes(&[1, 2, 3, 4, 5, 6]);
    assert_eq!(catalog.voters(&all, &nodes(&[6])), nodes(&[1, 2, 3]));
    assert_eq!(
        catalog.voters(&nodes(&[2, 3, 6]), &nodes(&[1, 2, 3])),
        nodes(&[1, 2, 3]),
        "it takes no vote over"
    );
    let mut one_site = with_diskless();
    one_site.done(Cluster::deactivate(B, &[1, 4, 3, 6]));
    assert_eq!(
        one_site.catalog.voters(&nodes(&[1, 3, 4, 6]), &all),
        nodes(&[1, 3, 4]),
        "nor does it make up a third"
    );
}

#[test]
fn a_diskless_node_holds_no_replica() {
    let mut cluster = with_diskless();
    for name in ["one", "two", "three", "four"] {
        cluster.done(create(name));
    }
    assert!(cluster.catalog.broken_rules().is_empty());
    let mut volumes = cluster.catalog.volumes.values();
    assert!(volumes.all(|volume| !volume.replicas.contains(&NODE)));
}

#[test]
fn what_is_published_to_a_diskless_node_is_served_for_its_clients_only() {
    let mut cluster = with_diskless();
    cluster.serve(1);
    let lets_in = |cluster: &Cluster, node| cluster.catalog.lets_in(DEMO, NodeId(1), NodeId(node));
    assert!(lets_in(&cluster, 1) && lets_in(&cluster, 6));
    assert!(
        !lets_in(&cluster, 2),
        "a node with a store does not forward"
    );
    cluster.done(publish(6));
    assert!(!lets_in(&cluster, 1) && lets_in(&cluster, 6));
    // Wherever the primary is: it moves, and the publication stays.
    cluster.done(Command::Relocate {
        volume: DEMO,
        to: NodeId(2),
    });
    assert!(cluster.catalog.relocations.contains_key(&DEMO));
    cluster.done(publish(6));
    cluster.done(Cluster::deactivate(A, &[2, 3]));
    assert!(!lets_in(&cluster, 6), "its domain serves nothing (I8)");
}

#[test]
fn a_diskless_node_gives_a_publication_back_when_the_primary_says_so() {
    let mut cluster = with_diskless();
    cluster.done(publish(6));
    cluster.serve(1);
    // That another node is primary proves nothing: its requests go there.
    assert!(matches!(
        cluster.refused(publish(1)),
        Refusal::Published { .. }
    ));
    assert!(matches!(
        cluster.refused(unpublish(6, false)),
        Refusal::MayServe { .. }
    ));
    cluster.done(unpublish(6, true));
    cluster.done(publish(6));
    // Its site is deactivated.
    cluster.done(Cluster::deactivate(A, &[2, 3]));
    assert!(matches!(
        cluster.refused(publish(6)),
        Refusal::Published { .. } | Refusal::DomainState { .. }
    ));
    cluster.serve(2);
    assert!(matches!(
        cluster.refused(publish(2)),
        Refusal::Published { .. }
    ));
    cluster.done(Command::Deactivated {
        domain: A,
        proof: String::new(),
    });
    cluster.done(publish(2));
}

#[test]
fn without_a_primary_nobody_serves_a_diskless_node() {
    let mut cluster = with_diskless();
    cluster.done(publish(6));
    cluster.done(unpublish(6, false));
    assert!(cluster.catalog.published.is_empty());
}

use super::*;
use crate::Handover;

fn add(node: u32) -> Command {
    Command::AddReplica {
        volume: DEMO,
        node: NodeId(node),
    }
}

/// All nodes answer.
fn remove(node: u32) -> Command {
    remove_while(node, &[1, 2, 3, 4, 5])
}

fn remove_while(node: u32, answering: &[u32]) -> Command {
    Command::RemoveReplica {
        volume: DEMO,
        node: NodeId(node),
        answering: nodes(answering),
    }
}

/// Replicas on 1 and 4 in domain A, on 2 in B; all in sync, served by 1.
fn with_two_in_a() -> Cluster {
    let mut cluster = Cluster::with_volume();
    cluster.done(started(4, 4, 1));
    cluster.done(started(5, 5, 1));
    cluster.serve(1);
    cluster.done(add(4));
    cluster.done(cluster.grow(1, replica(4)));
    cluster
}

#[test]
fn a_volume_is_created_with_several_replicas_in_each_site() {
    let mut cluster = Cluster::new();
    let create = |per_domain| Command::CreateVolumeWith {
        name: "demo".to_owned(),
        bytes: 1 << 20,
        block_bytes: 4096,
        policy: VolumePolicy::default(),
        replicas_per_domain: per_domain,
    };
    cluster.done(started(4, 4, 1));
    cluster.done(started(5, 5, 1));
    for per_domain in [0, 3, 4] {
        cluster.refused(create(per_domain));
    }
    cluster.done(create(2));
    assert_eq!(cluster.demo().replicas, nodes(&[1, 2, 4, 5]));
    assert_eq!(cluster.demo().in_sync, replicas(&[1, 2, 4, 5]));
    assert_eq!(cluster.demo().unprotected_since_ms, None);
}

#[test]
fn an_added_replica_is_in_the_set_only_once_it_was_brought_in_sync() {
    let mut cluster = Cluster::with_volume();
    cluster.done(started(4, 4, 1));
    cluster.serve(1);
    let epoch = cluster.epoch();
    cluster.done(add(4));
    let demo = cluster.demo();
    assert_eq!(demo.replicas, nodes(&[1, 2, 4]));
    assert_eq!(demo.in_sync, replicas(&[1, 2]));
    assert!(demo.epoch > epoch && demo.primary == Some(replica(1)) && demo.opened);
    assert_eq!(
        demo.unprotected_since_ms, None,
        "each site has one that is in sync"
    );
    let revision = cluster.catalog.revision;
    cluster.done(add(4));
    assert_eq!(cluster.catalog.revision, revision, "nothing has changed");
    cluster.done(cluster.grow(1, replica(4)));
    assert_eq!(cluster.demo().in_sync, replicas(&[1, 2, 4]));
    // A site without one is what makes a volume unprotected.
    cluster.done(cluster.shrink(1, &[4]));
    assert_eq!(cluster.demo().unprotected_since_ms, None);
    cluster.done(cluster.shrink(1, &[2]));
    assert!(cluster.demo().unprotected_since_ms.is_some());
}

#[test]
fn only_a_node_with_a_store_in_a_data_domain_gets_a_replica() {
    let mut cluster = Cluster::with_volume();
    assert!(matches!(cluster.refused(add(3)), Refusal::Invalid(_)));
    assert!(matches!(cluster.refused(add(9)), Refusal::UnknownNode(_)));
}

#[test]
fn a_replica_is_removed_where_its_site_has_another_one_in_sync() {
    let mut cluster = with_two_in_a();
    let epoch = cluster.epoch();
    assert!(
        matches!(cluster.refused(remove(1)), Refusal::Invalid(said) if said.contains("relocate")),
        "the primary"
    );
    assert!(
        matches!(cluster.refused(remove(2)), Refusal::Invalid(said) if said.contains("add replica")),
        "the only one in its site"
    );
    assert!(matches!(
        cluster.refused(remove(5)),
        Refusal::NoReplica { .. }
    ));
    assert!(
        matches!(cluster.refused(remove_while(4, &[2, 4, 5])), Refusal::Invalid(said) if said.contains("that answers")),
        "nobody else in its site answers"
    );
    cluster.done(remove(4));
    let demo = cluster.demo();
    assert_eq!(demo.replicas, nodes(&[1, 2]));
    assert_eq!(
        (demo.in_sync.clone(), demo.complete.clone()),
        (replicas(&[1, 2]), replicas(&[1, 2]))
    );
    assert!(demo.epoch > epoch && demo.primary == Some(replica(1)) && demo.opened);
    assert_eq!(
        demo.granted_set,
        replicas(&[1, 2]),
        "nobody waits for its promises"
    );
    let (catalog, epoch) = (cluster.catalog.clone(), cluster.epoch());
    assert!(catalog.is_removed_from(DEMO, NodeId(4), epoch));
    assert!(!catalog.is_removed_from(DEMO, NodeId(1), epoch));
    // Who has been added again, and has joined since, hears of the removal late.
    cluster.done(add(4));
    assert!(!catalog.is_removed_from(DEMO, NodeId(4), cluster.epoch()));
}

#[test]
fn a_lost_replica_is_replaced_by_one_on_another_node() {
    let mut cluster = with_two_in_a();
    // Node 4 is lost; it is in the set no more, but holds what it held.
    cluster.done(cluster.shrink(1, &[4]));
    cluster.done(remove(4));
    // A replica that is not in sync yet covers nothing.
    cluster.done(cluster.shrink(1, &[2]));
    cluster.done(add(5));
    cluster.refused(remove(2));
    // One that never held anything is removed without further ado.
    cluster.done(remove(5));
    cluster.done(add(5));
    cluster.done(cluster.grow(1, replica(5)));
    cluster.done(remove(2));
    assert_eq!(cluster.demo().replicas, nodes(&[1, 5]));
    assert_eq!(cluster.demo().unprotected_since_ms, None);
    let gone = Command::RemoveNode { node: NodeId(2) };
    cluster.done(gone.clone());
    assert!(matches!(cluster.refused(gone), Refusal::UnknownNode(_)));
    let needed = Command::RemoveNode { node: NodeId(5) };
    assert!(matches!(cluster.refused(needed), Refusal::Invalid(said) if said.contains("demo")));
}

#[test]
fn a_member_of_the_same_site_takes_over_and_one_of_the_other_does_not() {
    let mut cluster = with_two_in_a();
    assert_eq!(
        cluster.refused(cluster.promote(2)),
        Refusal::OtherPrimary(replica(1))
    );
    let epoch = cluster.epoch();
    cluster.done(cluster.promote(4));
    let demo = cluster.demo();
    assert!(demo.epoch > epoch && !demo.opened);
    assert_eq!(
        (demo.primary, demo.handover, demo.granted_set.clone()),
        (Some(replica(4)), Handover::Taken, replicas(&[1, 2, 4])),
        "what the one before was promised has to be over"
    );
    cluster.done(cluster.open(4));
}

/// The set spans both sites, so its primary needs no grant of kvdb's: time alone does not end its rights.
#[test]
fn a_loss_is_accepted_only_for_replicas_that_know_of_the_end_of_the_old_primary() {
    let accept = |answering: &[u32]| Command::Deactivate {
        domain: A,
        answering: nodes(answering),
        accept_data_loss: true,
    };
    let mut cluster = with_two_in_a();
    cluster.done(add(5));
    cluster.done(cluster.grow(1, replica(5)));
    cluster.done(cluster.shrink(1, &[5]));
    assert!(cluster.demo().complete.contains(&replica(5)));
    // 2 holds all, and does not answer; 5 does, but is out of the set: 2 may go on promising to 1.
    cluster.done(accept(&[3, 5]));
    assert_eq!(cluster.demo().in_sync, replicas(&[2]), "it waits for 2");
    assert_eq!(
        cluster.refused(cluster.promote(5)),
        Refusal::NotInSync(replica(5))
    );
    // Nor where 1 may not have heard that 2 has left, and 2 does not answer.
    let mut cluster = with_two_in_a();
    cluster.done(add(5));
    cluster.done(cluster.grow(1, replica(5)));
    cluster.done(cluster.shrink(1, &[2, 5]));
    cluster.done(accept(&[3, 5]));
    assert_eq!(cluster.demo().in_sync, replicas(&[1, 4]), "it waits");
    // Where the set lay in one site, kvdb's grant was needed, and the wait for it is enough.
    let mut cluster = with_two_in_a();
    cluster.done(add(5));
    cluster.done(cluster.grow(1, replica(5)));
    cluster.done(cluster.shrink(1, &[2, 5]));
    cluster.done(accept(&[2, 3, 5]));
    assert_eq!(cluster.demo().in_sync, replicas(&[2, 5]));
    assert!(
        !cluster.demo().granted_set.contains(&replica(5)),
        "so it waits"
    );
}

#[test]
fn who_left_the_set_has_seen_out_nothing_of_what_the_primary_has_had_since() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(2);
    // The primary in B goes on without A, and without its promises.
    cluster.done(Cluster::deactivate(A, &[2, 3]));
    assert_eq!(cluster.demo().granted_set, replicas(&[2]));
    cluster.done(Command::Deactivated {
        domain: A,
        proof: String::new(),
    });
    cluster.done(Command::Activate { domain: A });
    cluster.done(Command::Activated { domain: A });
    cluster.done(Command::Deactivate {
        domain: B,
        answering: nodes(&[1, 3]),
        accept_data_loss: true,
    });
    let demo = cluster.demo();
    assert_eq!(
        (
            demo.in_sync.clone(),
            demo.handover,
            demo.granted_set.clone()
        ),
        (replicas(&[1]), Handover::Taken, replicas(&[2])),
        "1 waits until the right of 2 is over"
    );
}

#[test]
fn a_node_that_was_not_there_comes_later() {
    let mut cluster = Cluster::with_volume();
    let record = |name: &str| NodeRecord {
        name: name.to_owned(),
        domain: A,
        peer_address: "127.0.0.1:1".to_owned(),
        api_address: "127.0.0.1:2".to_owned(),
        nbd_address: None,
        incarnation: None,
        starts: 0,
    };
    let add_node = |id: u32, name: &str| Command::AddNode {
        node: NodeId(id),
        record: Box::new(record(name)),
    };
    assert!(matches!(
        cluster.refused(started(6, 6, 1)),
        Refusal::UnknownNode(_)
    ));
    cluster.refused(add_node(6, "node-1"));
    cluster.refused(add_node(1, "other"));
    cluster.done(add_node(6, "node-6"));
    cluster.done(started(6, 6, 1));
    cluster.done(add(6));
    assert!(cluster.demo().replicas.contains(&NodeId(6)));
}

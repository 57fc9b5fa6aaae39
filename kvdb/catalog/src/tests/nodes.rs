use super::*;
use crate::{BootId, Durability, Handover};

#[test]
fn a_start_count_that_went_back_is_a_rolled_back_disk() {
    let mut cluster = Cluster::new();
    cluster.done(started(1, 1, 5));
    assert_eq!(
        cluster.refused(started(1, 1, 4)),
        Refusal::RolledBack {
            node: NodeId(1),
            ours: 5,
            theirs: 4
        }
    );
    assert_eq!(
        cluster.refused(started(9, 1, 4)),
        Refusal::UnknownNode(NodeId(9))
    );
}

#[test]
fn a_disk_that_was_rolled_back_by_one_start_counts_the_same_and_is_not_the_same() {
    let mut cluster = Cluster::new();
    let start = |count: u64, random: u64| started(1, 1, count | random << 32);
    cluster.done(start(5, 700));
    cluster.done(start(5, 700));
    assert_eq!(
        cluster.refused(start(5, 701)),
        Refusal::RolledBack {
            node: NodeId(1),
            ours: 5,
            theirs: 5
        }
    );
    cluster.done(start(6, 1));
}

#[test]
fn the_same_start_said_twice_ends_no_primary() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(started(1, 1, 1));
    assert_eq!(cluster.demo().primary, Some(replica(1)));
}

#[test]
fn a_restart_ends_the_primary_of_the_earlier_process_without_a_wait() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    let epoch = cluster.epoch();
    cluster.done(started(1, 1, 2));
    let demo = cluster.demo();
    assert_eq!(
        (demo.primary, demo.handover, demo.epoch),
        (None, Handover::Released, epoch)
    );
    assert!(demo.opened && demo.in_sync == replicas(&[1, 2]));
    cluster.done(cluster.promote(2));
}

#[test]
fn a_restart_of_a_secondary_changes_no_volume() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    let before = cluster.demo().clone();
    cluster.done(started(2, 2, 2));
    assert_eq!(before, *cluster.demo());
}

#[test]
fn a_new_incarnation_leaves_the_old_replica_behind() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    let epoch = cluster.epoch();
    cluster.done(started(2, 22, 1));
    let demo = cluster.demo();
    assert_eq!(
        (demo.in_sync.clone(), demo.primary),
        (replicas(&[1]), Some(replica(1)))
    );
    assert!(demo.epoch > epoch && demo.opened && demo.unprotected_since_ms.is_some());
    cluster.done(cluster.grow(
        1,
        ReplicaId {
            node: NodeId(2),
            incarnation: Incarnation(22),
        },
    ));
    assert_eq!(cluster.demo().unprotected_since_ms, None);
}

#[test]
fn a_primary_with_a_new_incarnation_is_ended_and_waited_for() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(started(1, 11, 1));
    let demo = cluster.demo();
    assert_eq!((demo.primary, demo.in_sync.clone()), (None, replicas(&[2])));
    assert_eq!(
        (demo.handover, demo.granted_set.clone()),
        (Handover::Taken, replicas(&[1, 2]))
    );
}

#[test]
fn a_set_is_not_emptied_by_the_loss_of_its_last_store() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(cluster.shrink(1, &[2]));
    cluster.done(started(1, 11, 1));
    assert_eq!(
        (cluster.demo().in_sync.clone(), cluster.demo().primary),
        (replicas(&[1]), None)
    );
    assert_eq!(
        cluster.refused(cluster.promote(1)),
        Refusal::NotInSync(replica(1))
    );
    assert_eq!(
        cluster.refused(cluster.promote(2)),
        Refusal::NotInSync(replica(2))
    );
}

#[test]
fn before_opened_the_loss_of_the_primarys_store_falls_back_to_the_last_opened_set() {
    let mut cluster = Cluster::with_volume();
    cluster.done(cluster.promote(1));
    cluster.done(cluster.shrink(1, &[2]));
    cluster.done(started(1, 11, 1));
    assert_eq!(cluster.demo().in_sync, replicas(&[2]));
    cluster.done(cluster.promote(2));
}

#[test]
fn forming_twice_is_fine_with_the_same_id_only() {
    let mut cluster = Cluster::new();
    let before = cluster.catalog.clone();
    cluster.done(form());
    assert_eq!(before, cluster.catalog);
    let Command::Form {
        cluster_name,
        domains,
        nodes,
        ..
    } = form()
    else {
        unreachable!()
    };
    assert_eq!(
        cluster.refused(Command::Form {
            cluster_name,
            cluster_id: 8,
            domains,
            nodes
        }),
        Refusal::OtherCluster(7)
    );
}

#[test]
fn nothing_happens_before_the_cluster_is_formed() {
    let mut cluster = Cluster {
        catalog: Catalog::default(),
        requests: 0,
    };
    assert_eq!(cluster.refused(started(1, 1, 1)), Refusal::NotFormed);
    assert_eq!(cluster.refused(create("demo")), Refusal::NotFormed);
    assert_eq!(cluster.done(Command::Nothing), Answer::Done);
    assert_eq!(cluster.catalog, Catalog::default());
}

#[test]
fn a_malformed_cluster_is_refused() {
    let Command::Form {
        cluster_name,
        domains,
        nodes,
        ..
    } = form()
    else {
        unreachable!()
    };
    let mut cluster = Cluster {
        catalog: Catalog::default(),
        requests: 0,
    };
    let form = |domains: &[_], nodes: &[_]| Command::Form {
        cluster_name: cluster_name.clone(),
        cluster_id: 1,
        domains: domains.to_vec(),
        nodes: nodes.to_vec(),
    };
    assert!(
        matches!(
            cluster.refused(form(&domains[2..], &nodes[2..3])),
            Refusal::Invalid(_)
        ),
        "no data domain"
    );
    assert!(
        matches!(cluster.refused(form(&domains, &[])), Refusal::Invalid(_)),
        "no node"
    );
    assert_eq!(
        cluster.refused(form(&domains[..1], &nodes)),
        Refusal::UnknownDomain(B)
    );
    let twice: Vec<_> = nodes.iter().chain(&nodes).cloned().collect();
    assert!(matches!(
        cluster.refused(form(&domains, &twice)),
        Refusal::Invalid(_)
    ));
}

fn started_in(node: u32, starts: u64, boot: u128) -> Command {
    Command::NodeStartedIn {
        node: NodeId(node),
        incarnation: Incarnation(u64::from(node)),
        starts,
        boot: BootId(boot),
    }
}

/// Nodes 1 and 2 have said under which boot they run; `demo` answers what is held.
fn flush_volume() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.done(started_in(1, 2, 11));
    cluster.done(started_in(2, 2, 21));
    let policy = VolumePolicy {
        durability: Durability::Flush,
        ..VolumePolicy::default()
    };
    cluster.done(Command::CreateVolume {
        name: "demo".to_owned(),
        bytes: 1 << 20,
        block_bytes: 4096,
        policy,
    });
    cluster
}

fn rebooted(cluster: &Cluster) -> BTreeSet<ReplicaId> {
    let rebooted = cluster.catalog.rebooted.get(&DEMO);
    rebooted.cloned().unwrap_or_default()
}

#[test]
fn a_rebooted_replica_is_not_promoted_before_one_that_was_not_has_opened() {
    let mut cluster = flush_volume();
    cluster.serve(1);
    let epoch = cluster.epoch();
    cluster.done(started_in(1, 3, 12));
    assert_eq!(rebooted(&cluster), replicas(&[1]));
    assert!(cluster.epoch() > epoch, "what was asked for before is void");
    assert_eq!(cluster.demo().in_sync, replicas(&[1, 2]));
    assert_eq!(
        cluster.refused(cluster.promote(1)),
        Refusal::Rebooted(replica(1))
    );
    cluster.serve(2);
    assert_eq!(rebooted(&cluster), BTreeSet::new());
}

#[test]
fn a_restart_without_a_reboot_changes_nothing_for_a_flush_volume() {
    let mut cluster = flush_volume();
    cluster.serve(1);
    let epoch = cluster.epoch();
    cluster.done(started_in(1, 3, 11));
    assert_eq!(
        (cluster.epoch(), rebooted(&cluster)),
        (epoch, BTreeSet::new())
    );
    cluster.done(cluster.promote(1));
}

#[test]
fn when_all_members_were_rebooted_any_may_be_promoted() {
    for first in [1, 2] {
        let mut cluster = flush_volume();
        cluster.serve(1);
        cluster.done(started_in(2, 3, 22));
        cluster.done(started_in(1, 3, 12));
        assert_eq!(rebooted(&cluster), BTreeSet::new());
        cluster.done(cluster.promote(first));
    }
}

#[test]
fn a_member_that_has_caught_up_may_be_promoted() {
    let mut cluster = flush_volume();
    cluster.serve(1);
    let before = cluster.epoch();
    cluster.done(started_in(2, 3, 22));
    let caught_up = |epoch| Command::CaughtUp {
        volume: DEMO,
        epoch,
        primary: replica(1),
        replicas: replicas(&[2]),
    };
    // Said of the process before.
    assert!(matches!(
        cluster.refused(caught_up(before)),
        Refusal::StaleEpoch { .. }
    ));
    let epoch = cluster.epoch();
    cluster.done(caught_up(epoch));
    assert_eq!(
        (cluster.epoch(), rebooted(&cluster)),
        (epoch, BTreeSet::new())
    );
}

#[test]
fn a_site_is_not_given_up_for_a_rebooted_replica_without_a_word() {
    let mut cluster = flush_volume();
    cluster.serve(1);
    cluster.done(started_in(2, 3, 22));
    assert!(matches!(
        cluster.refused(Cluster::deactivate(A, &[2])),
        Refusal::WouldLose { .. }
    ));
    cluster.done(Command::Deactivate {
        domain: A,
        answering: nodes(&[2]),
        accept_data_loss: true,
    });
    assert_eq!(rebooted(&cluster), BTreeSet::new());
    assert_eq!(cluster.demo().in_sync, replicas(&[2]));
    cluster.done(cluster.promote(2));
}

#[test]
fn who_leaves_the_set_is_no_rebooted_member() {
    let mut cluster = flush_volume();
    cluster.serve(1);
    cluster.done(started_in(2, 3, 22));
    let shrink = Command::Shrink {
        volume: DEMO,
        epoch: cluster.epoch(),
        primary: replica(1),
        leaving: replicas(&[2]),
    };
    cluster.done(shrink);
    assert_eq!(rebooted(&cluster), BTreeSet::new());
    // The only member left loses power, too: it leads on, as a disk does.
    cluster.done(started_in(1, 3, 12));
    assert_eq!(rebooted(&cluster), BTreeSet::new());
    cluster.done(cluster.promote(1));
}

#[test]
fn where_the_one_that_kept_its_memory_is_replaced_the_others_may_lead() {
    let mut cluster = flush_volume();
    cluster.serve(1);
    cluster.done(started_in(2, 3, 22));
    // The disk of node 1 is another one.
    cluster.done(Command::NodeStartedIn {
        node: NodeId(1),
        incarnation: Incarnation(100),
        starts: 1,
        boot: BootId(11),
    });
    assert_eq!(cluster.demo().opened_set, replicas(&[2]));
    assert_eq!(rebooted(&cluster), BTreeSet::new());
    cluster.done(cluster.promote(2));
}

#[test]
fn a_set_of_rebooted_members_that_never_opened_goes_back_to_those_who_kept_their_memory() {
    let mut cluster = flush_volume();
    cluster.serve(1);
    cluster.done(started_in(1, 3, 11));
    cluster.done(cluster.promote(2));
    let shrink = Command::Shrink {
        volume: DEMO,
        epoch: cluster.epoch(),
        primary: replica(2),
        leaving: replicas(&[1]),
    };
    cluster.done(shrink);
    assert_eq!(cluster.demo().in_sync, replicas(&[2]));
    // It loses power before it opened.
    cluster.done(started_in(2, 3, 22));
    assert_eq!(rebooted(&cluster), replicas(&[2]));
    assert_eq!(cluster.demo().in_sync, replicas(&[1, 2]));
    cluster.done(cluster.promote(1));
}

#[test]
fn a_volume_whose_writes_are_durable_takes_no_notice_of_a_reboot() {
    let mut cluster = Cluster::with_volume();
    cluster.done(started_in(1, 2, 11));
    cluster.serve(1);
    let epoch = cluster.epoch();
    cluster.done(started_in(1, 3, 12));
    assert_eq!(
        (cluster.epoch(), rebooted(&cluster)),
        (epoch, BTreeSet::new())
    );
}

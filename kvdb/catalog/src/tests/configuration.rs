use super::*;
use crate::Handover;

#[test]
fn a_new_volume_has_one_replica_in_each_data_domain_and_all_are_in_sync() {
    let cluster = Cluster::with_volume();
    let demo = cluster.demo();
    assert_eq!(
        (demo.in_sync.clone(), demo.primary, demo.opened),
        (replicas(&[1, 2]), None, true)
    );
    assert_eq!((demo.epoch.number, demo.unprotected_since_ms), (1, None));
}

#[test]
fn replicas_go_to_the_registered_node_with_the_fewest() {
    let mut cluster = Cluster::with_volume();
    cluster.done(started(4, 4, 1));
    cluster.done(create("second"));
    assert_eq!(
        cluster.catalog.volumes[&VolumeId(2)].replicas,
        nodes(&[2, 4])
    );
}

#[test]
fn an_active_data_domain_without_a_registered_node_refuses_volumes() {
    let mut cluster = Cluster {
        catalog: Catalog::default(),
        requests: 0,
    };
    cluster.done(form());
    cluster.done(started(1, 1, 1));
    assert_eq!(
        cluster.refused(create("demo")),
        Refusal::NoNode("site-b".to_owned())
    );
}

#[test]
fn a_volume_made_while_a_domain_is_inactive_is_unprotected_from_the_start() {
    let mut cluster = Cluster::new();
    cluster.done(Cluster::deactivate(A, &[2, 3]));
    cluster.done(create("demo"));
    assert_eq!(
        (
            cluster.demo().in_sync.clone(),
            cluster.demo().replicas.clone()
        ),
        (replicas(&[2]), nodes(&[1, 2]))
    );
    assert!(cluster.demo().unprotected_since_ms.is_some());
}

#[test]
fn volumes_out_of_bounds_are_refused() {
    let mut cluster = Cluster::with_volume();
    assert_eq!(
        cluster.refused(create("demo")),
        Refusal::VolumeExists("demo".to_owned())
    );
    for name in ["", "Demo", "-x", "a/b", &"x".repeat(64)] {
        assert!(
            matches!(cluster.refused(create(name)), Refusal::Invalid(_)),
            "{name}"
        );
    }
    for (bytes, block_bytes) in [(0, 4096), (4097, 4096), (1 << 50, 4096), (4096, 1024)] {
        let command = Command::CreateVolume {
            name: "x".to_owned(),
            bytes,
            block_bytes,
            policy: VolumePolicy::default(),
        };
        assert!(matches!(cluster.refused(command), Refusal::Invalid(_)));
    }
    let policy = VolumePolicy {
        preferred_domain: Some(WITNESS),
        ..VolumePolicy::default()
    };
    assert!(matches!(
        cluster.refused(Command::CreateVolume {
            name: "x".to_owned(),
            bytes: 4096,
            block_bytes: 512,
            policy
        }),
        Refusal::Invalid(_)
    ));
}

#[test]
fn an_attached_volume_is_not_deleted() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    assert_eq!(
        cluster.refused(Command::DeleteVolume { volume: DEMO }),
        Refusal::InUse("demo".to_owned())
    );
    cluster.done(cluster.release(1));
    cluster.done(Command::DeleteVolume { volume: DEMO });
    assert_eq!(
        cluster.done(create("demo")),
        Answer::Volume(VolumeId(2)),
        "ids are never used again"
    );
}

#[test]
fn promotion_makes_a_new_epoch_that_is_not_opened() {
    let mut cluster = Cluster::with_volume();
    let before = cluster.epoch();
    cluster.done(cluster.promote(1));
    assert!(cluster.epoch() > before);
    assert_eq!(
        (cluster.demo().primary, cluster.demo().opened),
        (Some(replica(1)), false)
    );
}

#[test]
fn promotion_compares_the_epoch_and_refuses_a_second_primary() {
    let mut cluster = Cluster::with_volume();
    let stale = cluster.promote(2);
    cluster.serve(1);
    assert!(matches!(cluster.refused(stale), Refusal::StaleEpoch { .. }));
    assert_eq!(
        cluster.refused(cluster.promote(2)),
        Refusal::OtherPrimary(replica(1))
    );
}

#[test]
fn only_a_member_of_the_set_is_promoted() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(cluster.shrink(1, &[2]));
    cluster.done(cluster.release(1));
    assert_eq!(
        cluster.refused(cluster.promote(2)),
        Refusal::NotInSync(replica(2))
    );
    let unknown = ReplicaId {
        node: NodeId(1),
        incarnation: Incarnation(99),
    };
    let command = Command::Promote {
        volume: DEMO,
        expected: cluster.epoch(),
        candidate: unknown,
    };
    assert_eq!(cluster.refused(command), Refusal::NotInSync(unknown));
}

#[test]
fn before_opened_a_promotion_goes_back_to_the_last_opened_set() {
    let mut cluster = Cluster::with_volume();
    cluster.done(cluster.promote(1));
    cluster.done(cluster.shrink(1, &[2]));
    assert_eq!(cluster.demo().in_sync, replicas(&[1]));
    cluster.done(cluster.release(1));
    assert!(!cluster.demo().opened);
    cluster.done(cluster.promote(2));
    assert_eq!(cluster.demo().in_sync, replicas(&[1, 2]));
}

#[test]
fn an_opened_shrink_is_final() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(cluster.shrink(1, &[2]));
    let demo = cluster.demo();
    assert!(demo.opened && demo.unprotected_since_ms.is_some());
    assert_eq!(
        (demo.opened_set.clone(), demo.granted_set.clone()),
        (replicas(&[1]), replicas(&[1]))
    );
}

#[test]
fn a_primary_never_shrinks_itself_out() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    assert!(matches!(
        cluster.refused(cluster.shrink(1, &[1, 2])),
        Refusal::Invalid(_)
    ));
    assert_eq!(
        cluster.refused(cluster.shrink(1, &[5])),
        Refusal::NotInSync(replica(5))
    );
}

#[test]
fn growth_needs_an_opened_set_and_ends_being_unprotected() {
    let mut cluster = Cluster::with_volume();
    cluster.done(cluster.promote(1));
    cluster.done(cluster.shrink(1, &[2]));
    assert!(matches!(
        cluster.refused(cluster.grow(1, replica(2))),
        Refusal::Invalid(_)
    ));
    cluster.done(cluster.open(1));
    assert_eq!(
        cluster.refused(cluster.grow(1, replica(5))),
        Refusal::NotInSync(replica(5))
    );
    cluster.done(cluster.grow(1, replica(2)));
    assert_eq!(
        (
            cluster.demo().in_sync.clone(),
            cluster.demo().unprotected_since_ms
        ),
        (replicas(&[1, 2]), None)
    );
    assert!(cluster.demo().opened);
}

#[test]
fn commands_of_an_earlier_epoch_or_another_primary_are_refused() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    let stale = cluster.shrink(1, &[2]);
    cluster.done(Command::Renew {
        volume: DEMO,
        epoch: cluster.epoch(),
        primary: replica(1),
    });
    assert!(matches!(cluster.refused(stale), Refusal::StaleEpoch { .. }));
    assert_eq!(
        cluster.refused(cluster.release(2)),
        Refusal::OtherPrimary(replica(1))
    );
    cluster.done(cluster.release(1));
    assert_eq!(
        cluster.refused(cluster.open(1)),
        Refusal::NotPrimary(replica(1))
    );
}

#[test]
fn a_release_leaves_nobody_to_wait_for() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    assert_eq!(
        (cluster.demo().handover, cluster.demo().granted_set.clone()),
        (Handover::Taken, replicas(&[1, 2]))
    );
    let epoch = cluster.epoch();
    cluster.done(cluster.release(1));
    let demo = cluster.demo();
    assert_eq!(
        (demo.handover, demo.granted_set.len(), demo.epoch),
        (Handover::Released, 0, epoch)
    );
    assert!(demo.opened && demo.in_sync == replicas(&[1, 2]));
}

#[test]
fn giving_up_a_promotion_does_not_end_the_wait_for_the_primary_before() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(Cluster::deactivate(A, &[2, 3]));
    cluster.done(cluster.promote(2));
    cluster.done(cluster.release(2));
    assert_eq!(
        (cluster.demo().handover, cluster.demo().granted_set.clone()),
        (Handover::Taken, replicas(&[1, 2]))
    );
    cluster.done(cluster.promote(2));
    cluster.done(started(2, 2, 2));
    assert_eq!(
        (cluster.demo().primary, cluster.demo().handover),
        (None, Handover::Taken)
    );
}

#[test]
fn a_volume_is_served_from_the_first_opening_on() {
    let mut cluster = Cluster::with_volume();
    cluster.done(cluster.promote(1));
    assert!(!cluster.demo().served);
    cluster.done(cluster.open(1));
    cluster.done(cluster.release(1));
    assert!(cluster.demo().served);
}

#[test]
fn opened_is_idempotent_within_its_epoch() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    let before = cluster.catalog.clone();
    assert_eq!(
        cluster.done(cluster.open(1)),
        Answer::Epoch(before.volumes[&DEMO].epoch)
    );
    assert_eq!(before, cluster.catalog);
}

#[test]
fn a_primary_that_promotes_itself_again_has_to_open_again() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(cluster.promote(1));
    assert!(!cluster.demo().opened);
    assert_eq!(cluster.demo().handover, Handover::Taken);
}

#[test]
fn used_up_epochs_are_refused() {
    let mut cluster = Cluster::with_volume();
    cluster.catalog.volumes.get_mut(&DEMO).unwrap().epoch.number = u32::MAX;
    assert!(matches!(
        cluster.refused(cluster.promote(1)),
        Refusal::Invalid(_)
    ));
    assert!(matches!(
        cluster.refused(Cluster::deactivate(A, &[2])),
        Refusal::Invalid(_)
    ));
}

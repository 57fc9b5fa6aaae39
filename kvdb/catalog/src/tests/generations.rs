use super::*;
use crate::Lineage;

fn force(id: u64) -> Command {
    Command::ForceGeneration { id }
}

fn name(node: u32) -> Command {
    Command::NameReplica {
        volume: DEMO,
        replica: replica(node),
    }
}

#[test]
fn nobody_is_promoted_in_a_forced_generation_until_a_replica_is_named() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    let before = cluster.epoch();
    cluster.done(force(77));
    assert_eq!(cluster.catalog.lineage, Lineage(vec![77]));
    assert_eq!((cluster.epoch().generation, before.generation), (1, 0));
    assert!(cluster.epoch() > before);
    assert_eq!(cluster.demo().primary, None);
    for node in [1, 2] {
        let refusal = cluster.refused(cluster.promote(node));
        assert!(matches!(refusal, Refusal::Unproven(_)), "{refusal}");
    }
    let old = cluster.epoch();
    cluster.done(name(2));
    assert!(cluster.epoch() > old);
    assert_eq!(cluster.demo().in_sync, replicas(&[2]));
    assert_eq!(cluster.demo().handover, crate::Handover::Taken);
    assert!(cluster.demo().unprotected_since_ms.is_some());
    let refusal = cluster.refused(cluster.promote(1));
    assert!(matches!(refusal, Refusal::NotInSync(_)), "{refusal}");
    cluster.serve(2);
    // The other one is copied over, and joins.
    cluster.done(Command::BeginCopy {
        volume: DEMO,
        epoch: cluster.epoch(),
        primary: replica(2),
        joining: replica(1),
    });
    cluster.done(cluster.grow(2, replica(1)));
    assert_eq!(cluster.demo().unprotected_since_ms, None);
}

#[test]
fn a_replica_is_named_once_and_only_where_none_counts() {
    let mut cluster = Cluster::with_volume();
    let refusal = cluster.refused(name(2));
    assert!(matches!(refusal, Refusal::Proven(_)), "{refusal}");
    cluster.done(force(77));
    let refusal = cluster.refused(name(3));
    assert!(matches!(refusal, Refusal::NotInSync(_)), "{refusal}");
    cluster.done(name(2));
    let refusal = cluster.refused(name(1));
    assert!(matches!(refusal, Refusal::Proven(_)), "{refusal}");
}

#[test]
fn a_replica_in_an_inactive_domain_is_not_named() {
    let mut cluster = Cluster::with_volume();
    cluster.done(Cluster::deactivate(B, &[1, 3]));
    cluster.done(Command::Deactivated {
        domain: B,
        proof: String::new(),
    });
    cluster.done(force(77));
    let refusal = cluster.refused(name(2));
    assert!(matches!(refusal, Refusal::DomainState { .. }), "{refusal}");
    cluster.done(name(1));
}

#[test]
fn volumes_that_the_generation_has_not_heard_of_are_not_deleted_ones() {
    let mut cluster = Cluster::with_volume();
    cluster.done(create("gone"));
    let gone = VolumeId(2);
    cluster.done(Command::DeleteVolume { volume: gone });
    cluster.done(force(77));
    let Answer::Volume(new) = cluster.done(create("new")) else {
        panic!("no volume")
    };
    let catalog = &cluster.catalog;
    assert!(catalog.was_deleted(gone));
    assert!(!catalog.was_deleted(DEMO) && !catalog.was_deleted(new));
    assert!(!catalog.was_deleted(VolumeId(3)) && !catalog.was_deleted(VolumeId(new.0 - 1)));
    assert!(
        !catalog.was_deleted(VolumeId(new.0 + 1)),
        "it is not made yet"
    );
}

#[test]
fn a_site_is_deactivated_also_where_no_set_counts() {
    let mut cluster = Cluster::with_volume();
    cluster.done(force(77));
    cluster.done(Cluster::deactivate(A, &[2]));
    let refusal = cluster.refused(cluster.promote(2));
    assert!(matches!(refusal, Refusal::Unproven(_)), "{refusal}");
    cluster.done(name(2));
    cluster.serve(2);
}

#[test]
fn a_saved_catalog_takes_the_place_of_a_later_one_of_its_own_cluster_only() {
    let mut cluster = Cluster::with_volume();
    let saved = cluster.catalog.clone();
    cluster.done(create("later"));
    cluster.done(force(77));
    let held = cluster.catalog.clone();
    let restored = saved
        .clone()
        .restored_over(&held, 7, &held.lineage)
        .unwrap();
    cluster.catalog = restored;
    cluster.done(force(78));
    let catalog = &cluster.catalog;
    assert_eq!(catalog.lineage, Lineage(vec![77, 78]));
    assert_eq!(catalog.volumes.len(), 1);
    assert!(!catalog.was_deleted(VolumeId(2)), "its replicas are kept");
    assert!(catalog.next_volume > held.next_volume && catalog.revision > held.revision);
    assert!(catalog.volumes[&DEMO].epoch > held.volumes[&DEMO].epoch);

    let other = saved.clone().restored_over(&held, 8, &held.lineage);
    assert_eq!(other, Err(Refusal::OtherCluster(8)));
    let forced_apart = held.restored_over(&saved, 7, &Lineage(vec![5]));
    assert!(matches!(forced_apart, Err(Refusal::Invalid(_))));
}

#[test]
fn a_generation_descends_from_those_that_it_was_forced_from_and_from_no_other() {
    let first = Lineage::default();
    let (ours, theirs) = (first.forced(7), first.forced(8));
    assert!(ours.descends_from(&first) && ours.forced(9).descends_from(&first));
    assert!(!first.descends_from(&ours) && !ours.descends_from(&ours));
    assert!(!ours.descends_from(&theirs) && !theirs.forced(9).descends_from(&ours));
}

use super::*;
use crate::{BootId, Durability, OnPeerLoss};

fn publish(node: u32) -> Command {
    Command::Publish {
        volume: DEMO,
        node: NodeId(node),
        read_only: false,
    }
}

fn unpublish(node: u32) -> Command {
    Command::Unpublish {
        volume: DEMO,
        node: NodeId(node),
        idle: false,
    }
}

fn relocate(to: u32) -> Command {
    Command::Relocate {
        volume: DEMO,
        to: NodeId(to),
    }
}

fn expand(bytes: u64) -> Command {
    Command::ExpandVolume {
        volume: DEMO,
        bytes,
    }
}

#[test]
fn a_volume_is_published_to_one_node_at_a_time() {
    let mut cluster = Cluster::with_volume();
    cluster.done(publish(1));
    cluster.done(publish(1));
    assert!(matches!(
        cluster.refused(publish(2)),
        Refusal::Published { .. }
    ));
    cluster.done(unpublish(2));
    cluster.done(unpublish(1));
    cluster.done(publish(2));
    assert!(matches!(
        cluster.refused(publish(3)),
        Refusal::NoReplica { .. }
    ));
    assert!(matches!(
        cluster.refused(publish(9)),
        Refusal::UnknownNode(_)
    ));
    assert!(matches!(
        cluster.refused(Command::DeleteVolume { volume: DEMO }),
        Refusal::Published { .. }
    ));
}

#[test]
fn a_node_that_may_serve_keeps_its_publication() {
    let mut cluster = Cluster::with_volume();
    cluster.done(publish(1));
    cluster.serve(1);
    assert!(matches!(
        cluster.refused(unpublish(1)),
        Refusal::MayServe { .. }
    ));
    assert!(matches!(
        cluster.refused(publish(2)),
        Refusal::Published { .. }
    ));
    // Unless it says that no client is left there.
    cluster.done(Command::Unpublish {
        volume: DEMO,
        node: NodeId(1),
        idle: true,
    });
    cluster.done(publish(1));
    // The site is being deactivated: its grants may be out still.
    cluster.done(Cluster::deactivate(A, &[2]));
    assert!(matches!(
        cluster.refused(unpublish(1)),
        Refusal::MayServe { .. }
    ));
    assert!(matches!(
        cluster.refused(publish(2)),
        Refusal::Published { .. }
    ));
    // The other replica has opened, having seen them out: that is proof enough.
    cluster.serve(2);
    cluster.done(publish(2));
    assert_eq!(cluster.catalog.published[&DEMO].node, NodeId(2));
    cluster.done(unpublish(1));
}

#[test]
fn an_inactive_domain_gives_publications_back() {
    let mut cluster = Cluster::with_volume();
    cluster.done(publish(1));
    cluster.serve(1);
    cluster.done(Cluster::deactivate(A, &[2]));
    cluster.done(Command::Deactivated {
        domain: A,
        proof: String::new(),
    });
    cluster.done(unpublish(1));
    cluster.done(publish(2));
    assert!(matches!(
        cluster.refused(publish(1)),
        Refusal::DomainState { .. }
    ));
}

#[test]
fn a_volume_moves_to_a_replica_that_is_in_sync_only() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    assert!(matches!(
        cluster.refused(relocate(3)),
        Refusal::NoReplica { .. }
    ));
    cluster.done(relocate(1));
    assert!(
        cluster.catalog.relocations.is_empty(),
        "it is there already"
    );
    cluster.done(relocate(2));
    assert_eq!(cluster.catalog.relocations[&DEMO].to, NodeId(2));
    // Asked back before it has happened.
    cluster.done(relocate(1));
    assert!(cluster.catalog.relocations.is_empty());
    cluster.done(cluster.shrink(1, &[2]));
    assert!(matches!(cluster.refused(relocate(2)), Refusal::Invalid(_)));
}

#[test]
fn a_published_volume_moves_with_its_publication_only() {
    let mut cluster = Cluster::with_volume();
    cluster.done(publish(1));
    assert!(matches!(
        cluster.refused(relocate(2)),
        Refusal::Published { .. }
    ));
    cluster.done(relocate(1));
    cluster.done(unpublish(1));
    cluster.done(relocate(2));
    // Published elsewhere meanwhile: the move is off.
    cluster.done(publish(1));
    assert!(cluster.catalog.relocations.is_empty());
}

#[test]
fn a_move_ends_when_its_goal_is_deactivated() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(relocate(2));
    cluster.done(Cluster::deactivate(B, &[1]));
    assert!(cluster.catalog.relocations.is_empty());
}

#[test]
fn a_move_ends_when_its_goal_leaves_the_set() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(relocate(2));
    cluster.done(cluster.shrink(1, &[2]));
    assert!(cluster.catalog.relocations.is_empty());
    let mut cluster = Cluster::with_volume();
    cluster.done(relocate(2));
    assert_eq!(cluster.catalog.relocations.len(), 1);
    // Its disk was replaced.
    cluster.done(started(2, 22, 1));
    assert!(cluster.catalog.relocations.is_empty());
}

#[test]
fn a_move_ends_when_its_goal_loses_power_and_may_lack_what_was_answered() {
    let mut cluster = Cluster::with_volume();
    cluster.done(change(Some(Durability::Flush), None));
    let booted = |starts, boot| Command::NodeStartedIn {
        node: NodeId(2),
        incarnation: replica(2).incarnation,
        starts,
        boot: BootId(boot),
    };
    cluster.done(booted(2, 1));
    cluster.serve(1);
    cluster.done(relocate(2));
    cluster.done(booted(3, 1));
    assert_eq!(cluster.catalog.relocations.len(), 1, "its memory is kept");
    cluster.done(booted(4, 2));
    assert!(cluster.catalog.relocations.is_empty());
}

#[test]
fn a_volume_grows_and_never_shrinks() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    let epoch = cluster.epoch();
    cluster.done(expand(2 << 20));
    assert_eq!((cluster.demo().bytes, cluster.epoch()), (2 << 20, epoch));
    cluster.done(expand(2 << 20));
    assert!(matches!(
        cluster.refused(expand(1 << 20)),
        Refusal::WouldShrink { .. }
    ));
    for wrong in [0, (2 << 20) + 1, Catalog::VOLUME_BYTES_MAX + 4096] {
        assert!(matches!(
            cluster.refused(expand(wrong)),
            Refusal::Invalid(_)
        ));
    }
}

fn change(durability: Option<Durability>, preferred: Option<Option<DomainId>>) -> Command {
    Command::ChangePolicy {
        volume: DEMO,
        on_peer_loss: None,
        durability,
        preferred_domain: preferred,
    }
}

#[test]
fn a_policy_changes_where_something_is_given() {
    let mut cluster = Cluster::with_volume();
    cluster.done(change(None, Some(Some(B))));
    cluster.done(change(Some(Durability::Flush), None));
    let policy = &cluster.demo().policy;
    assert_eq!(policy.preferred_domain, Some(B));
    assert_eq!(policy.durability, Durability::Flush);
    assert_eq!(policy.on_peer_loss, OnPeerLoss::Degrade);
    cluster.done(change(None, Some(None)));
    assert_eq!(cluster.demo().policy.preferred_domain, None);
    // What is in memory only can't be called durable by a word.
    assert!(matches!(
        cluster.refused(change(Some(Durability::Acknowledged), None)),
        Refusal::StaysFlush(_)
    ));
    assert!(matches!(
        cluster.refused(change(None, Some(Some(WITNESS)))),
        Refusal::Invalid(_)
    ));
}

#[test]
fn a_failover_is_reported_with_what_it_found() {
    let mut cluster = Cluster::with_volume();
    cluster.done(create("idle"));
    cluster.serve(1);
    let epoch = cluster.epoch();
    let answer = cluster.done(Command::FailOver {
        domain: A,
        answering: nodes(&[2, 3]),
    });
    let report = cluster.catalog.failovers.back().unwrap().clone();
    assert_eq!(answer, Answer::Update(report.name.clone()));
    assert!(report.automatic && report.domain == A && report.others == 1);
    let [volume] = &report.volumes[..] else {
        panic!("one volume is worth telling: {report:?}")
    };
    assert!(volume.moved && !volume.lost && volume.epoch == epoch);
    assert_eq!(volume.in_sync_before, nodes(&[1, 2]));
    assert_eq!(volume.in_sync_after, nodes(&[2]));
    let note = |seq| Command::NoteFailover {
        name: report.name.clone(),
        positions: vec![(DEMO, seq), (VolumeId(99), 1)],
    };
    cluster.done(note(7));
    cluster.done(note(5));
    let report = cluster.catalog.failovers.back().unwrap();
    assert_eq!(report.volumes[0].committed_seq, Some(7));
}

#[test]
fn the_policy_fails_nothing_over_that_would_be_lost() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(cluster.shrink(1, &[2]));
    let refused = cluster.refused(Command::FailOver {
        domain: A,
        answering: nodes(&[2, 3]),
    });
    assert!(matches!(refused, Refusal::WouldLose { .. }));
}

#[test]
fn a_changed_audit_record_shows() {
    let mut cluster = Cluster::with_volume();
    cluster.done(publish(1));
    cluster.done(unpublish(1));
    assert_eq!(cluster.catalog.audit_gap(), None);
    let last = cluster.catalog.audit.len() - 1;
    let changes: [fn(&mut Catalog, usize); 3] = [
        |catalog, at| catalog.audit[at].who = "nobody".to_owned(),
        |catalog, at| catalog.audit[at].at_ms += 1,
        |catalog, at| drop((catalog.audit.remove(at), catalog.audit_digests.remove(at))),
    ];
    for change in changes {
        let mut changed = cluster.catalog.clone();
        change(&mut changed, last - 1);
        assert!(changed.audit_gap().is_some());
    }
}

use super::*;
use crate::{Handover, UpdateStatus};

fn state(cluster: &Cluster, domain: DomainId) -> DomainState {
    cluster.catalog.domains[&domain].state
}

#[test]
fn deactivating_the_primarys_domain_ends_it_and_keeps_the_other_side() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    let epoch = cluster.epoch();
    cluster.done(Cluster::deactivate(A, &[2, 3]));
    let demo = cluster.demo();
    assert!(demo.epoch > epoch && demo.opened);
    assert_eq!(
        (demo.primary, demo.in_sync.clone(), demo.handover),
        (None, replicas(&[2]), Handover::Taken)
    );
    assert_eq!(demo.granted_set, replicas(&[1, 2]));
    assert!(matches!(
        cluster.refused(cluster.promote(1)),
        Refusal::DomainState { .. }
    ));
    cluster.serve(2);
}

#[test]
fn deactivating_the_secondarys_domain_keeps_the_primary_open_under_a_new_epoch() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    let epoch = cluster.epoch();
    cluster.done(Cluster::deactivate(B, &[1, 3]));
    let demo = cluster.demo();
    assert!(demo.epoch > epoch && demo.opened && demo.unprotected_since_ms.is_some());
    assert_eq!(
        (demo.primary, demo.in_sync.clone()),
        (Some(replica(1)), replicas(&[1]))
    );
}

#[test]
fn deactivation_raises_the_epoch_of_every_volume() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(cluster.shrink(1, &[2]));
    let epoch = cluster.epoch();
    cluster.done(Cluster::deactivate(B, &[1, 3]));
    assert!(
        cluster.epoch() > epoch,
        "it leaves out a joiner that was asked for (I6)"
    );
}

#[test]
fn a_deactivation_that_would_lose_a_volume_is_refused_with_its_name() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    let would_lose = Refusal::WouldLose {
        domain: "site-a".to_owned(),
        volumes: vec!["demo".to_owned()],
    };
    assert_eq!(
        cluster.refused(Cluster::deactivate(A, &[1, 3])),
        would_lose,
        "its replica there does not answer"
    );
    cluster.done(cluster.shrink(1, &[2]));
    assert_eq!(
        cluster.refused(Cluster::deactivate(A, &[1, 2, 3])),
        would_lose,
        "its replica there is not in sync"
    );
}

#[test]
fn accepting_data_loss_takes_the_replicas_that_answer_and_says_so() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(cluster.shrink(1, &[2]));
    cluster.done(Command::Deactivate {
        domain: A,
        answering: nodes(&[2, 3]),
        accept_data_loss: true,
    });
    let demo = cluster.demo();
    assert_eq!(
        (
            demo.in_sync.clone(),
            demo.handover,
            demo.granted_set.clone()
        ),
        (replicas(&[2]), Handover::Taken, replicas(&[1]))
    );
    assert!(demo.opened && demo.primary.is_none());
    let audit = cluster.catalog.audit.back().unwrap();
    assert!(
        audit.what.contains("accepting the loss") && audit.what.contains("demo"),
        "{audit:?}"
    );
    cluster.done(cluster.promote(2));
}

#[test]
fn a_replica_that_had_no_part_in_the_first_opening_is_not_complete() {
    let mut cluster = Cluster::with_volume();
    cluster.done(cluster.promote(1));
    cluster.done(cluster.shrink(1, &[2]));
    assert_eq!(
        cluster.demo().complete,
        replicas(&[1, 2]),
        "all are empty until one has served"
    );
    cluster.done(cluster.open(1));
    assert_eq!(cluster.demo().complete, replicas(&[1]));
    cluster.done(Command::Deactivate {
        domain: A,
        answering: nodes(&[2, 3]),
        accept_data_loss: true,
    });
    assert_eq!(
        cluster.demo().in_sync,
        replicas(&[1]),
        "it waits for the site that holds it"
    );
}

#[test]
fn a_replica_that_is_being_copied_over_never_serves_not_even_where_a_loss_is_accepted() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(cluster.shrink(1, &[2]));
    let demo = cluster.demo();
    assert_eq!(demo.complete, replicas(&[1, 2]), "an old state is a state");
    let primary = demo.primary.unwrap();
    let joining = *replicas(&[2]).first().unwrap();
    cluster.done(Command::BeginCopy {
        volume: DEMO,
        epoch: demo.epoch,
        primary,
        joining,
    });
    assert_eq!(cluster.demo().complete, replicas(&[1]));
    cluster.done(Command::Deactivate {
        domain: A,
        answering: nodes(&[2, 3]),
        accept_data_loss: true,
    });
    let demo = cluster.demo();
    assert_eq!(
        (demo.in_sync.clone(), demo.primary),
        (replicas(&[1]), None),
        "it waits for the site that holds it"
    );
}

#[test]
fn accepting_data_loss_with_nobody_left_keeps_the_set() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    cluster.done(cluster.shrink(1, &[2]));
    cluster.done(Command::Deactivate {
        domain: A,
        answering: nodes(&[3]),
        accept_data_loss: true,
    });
    assert_eq!(
        (cluster.demo().in_sync.clone(), cluster.demo().primary),
        (replicas(&[1]), None)
    );
    cluster.done(Command::Deactivated {
        domain: A,
        proof: String::new(),
    });
    cluster.done(Command::Activate { domain: A });
    cluster.done(Command::Activated { domain: A });
    cluster.serve(1);
}

#[test]
fn before_opened_deactivation_falls_back_to_the_last_opened_set() {
    let mut cluster = Cluster::with_volume();
    cluster.done(cluster.promote(1));
    cluster.done(cluster.shrink(1, &[2]));
    cluster.done(Cluster::deactivate(A, &[2, 3]));
    assert_eq!(
        (cluster.demo().in_sync.clone(), cluster.demo().opened),
        (replicas(&[2]), false)
    );
    cluster.serve(2);
}

#[test]
fn the_last_active_data_domain_is_never_deactivated() {
    let mut cluster = Cluster::with_volume();
    cluster.done(Cluster::deactivate(A, &[2, 3]));
    let accept = Command::Deactivate {
        domain: B,
        answering: nodes(&[2]),
        accept_data_loss: true,
    };
    assert_eq!(
        cluster.refused(accept),
        Refusal::LastDataDomain("site-b".to_owned())
    );
}

#[test]
fn unknown_and_inactive_domains_are_refused_with_clear_words() {
    let mut cluster = Cluster::with_volume();
    let refusal = cluster.refused(Cluster::deactivate(DomainId(9), &[2]));
    assert_eq!(refusal.to_string(), "provided cluster domain d9 not found");
    cluster.done(Cluster::deactivate(A, &[2]));
    let refusal = cluster.refused(Cluster::deactivate(A, &[2]));
    assert_eq!(
        refusal.to_string(),
        "cluster domain site-a is being deactivated: wait until that is done, or has failed"
    );
    cluster.done(Command::Deactivated {
        domain: A,
        proof: String::new(),
    });
    assert_eq!(
        cluster.refused(Cluster::deactivate(A, &[2])).to_string(),
        "cluster domain site-a is inactive"
    );
    assert_eq!(
        cluster.refused(Command::Activate { domain: B }).to_string(),
        "cluster domain site-b is active already"
    );
}

#[test]
fn a_domain_goes_through_its_states_in_order() {
    let mut cluster = Cluster::with_volume();
    assert!(matches!(
        cluster.refused(Command::Deactivated {
            domain: A,
            proof: String::new()
        }),
        Refusal::DomainState { .. }
    ));
    let Answer::Update(name) = cluster.done(Cluster::deactivate(A, &[2])) else {
        panic!("no update")
    };
    assert!(name.starts_with("site-a-deactivate-"), "{name}");
    assert!(matches!(
        cluster.refused(Command::Activate { domain: A }),
        Refusal::DomainState { .. }
    ));
    cluster.done(Command::Deactivated {
        domain: A,
        proof: "its lease is over".to_owned(),
    });
    assert_eq!(
        cluster.catalog.updates.back().unwrap().status,
        UpdateStatus::Successful
    );
    assert!(matches!(
        cluster.refused(Command::Activated { domain: A }),
        Refusal::DomainState { .. }
    ));
    cluster.done(Command::Activate { domain: A });
    assert!(
        matches!(
            cluster.refused(cluster.promote(1)),
            Refusal::DomainState { .. }
        ),
        "it serves nothing before it is active"
    );
    cluster.done(Command::Activated { domain: A });
    assert_eq!(state(&cluster, A), DomainState::Active);
    assert_eq!(
        cluster.demo().in_sync,
        replicas(&[2]),
        "its replicas resync first"
    );
}

#[test]
fn a_failed_update_goes_the_safe_way() {
    let mut cluster = Cluster::with_volume();
    let failed = |domain| Command::UpdateFailed {
        domain,
        reason: "no quorum".to_owned(),
    };
    cluster.done(Cluster::deactivate(A, &[2]));
    cluster.done(failed(A));
    assert_eq!(
        state(&cluster, A),
        DomainState::Deactivating,
        "that none of its nodes serves is not proven"
    );
    assert!(matches!(
        cluster.catalog.updates.back().unwrap().status,
        UpdateStatus::Failed(_)
    ));
    cluster.done(Cluster::deactivate(A, &[2]));
    cluster.done(failed(A));
    cluster.done(Command::Activate { domain: A });
    cluster.done(failed(A));
    assert_eq!(state(&cluster, A), DomainState::Inactive);
    assert!(matches!(
        cluster.refused(failed(A)),
        Refusal::DomainState { .. }
    ));
}

#[test]
fn a_witness_domain_is_deactivated_without_touching_volumes() {
    let mut cluster = Cluster::with_volume();
    cluster.serve(1);
    let before = cluster.demo().clone();
    cluster.done(Cluster::deactivate(WITNESS, &[]));
    assert_eq!(
        (before, DomainState::Deactivating),
        (cluster.demo().clone(), state(&cluster, WITNESS))
    );
}

#[test]
fn a_plan_says_what_a_deactivation_does() {
    let mut cluster = Cluster::with_volume();
    cluster.done(create("idle"));
    cluster.done(create("alone"));
    cluster.serve(1);
    let alone = VolumeId(3);
    cluster.done(Command::Promote {
        volume: alone,
        expected: Epoch {
            generation: 0,
            number: 1,
        },
        candidate: replica(1),
    });
    let epoch = cluster.catalog.volumes[&alone].epoch;
    cluster.done(Command::Opened {
        volume: alone,
        epoch,
        primary: replica(1),
    });
    cluster.done(Command::Shrink {
        volume: alone,
        epoch,
        primary: replica(1),
        leaving: replicas(&[2]),
    });
    let plan = cluster
        .catalog
        .plan_deactivation(A, &nodes(&[1, 2, 3]))
        .unwrap();
    assert_eq!(
        (plan.moved, plan.unprotected, plan.lost),
        (vec![DEMO, alone], vec![DEMO, VolumeId(2)], vec![alone])
    );
    assert_eq!(plan.voters, nodes(&[2]));
}

#[test]
fn operators_commands_leave_an_audit_trail_and_refusals_do_not() {
    let mut cluster = Cluster::with_volume();
    let before = cluster.catalog.audit.len();
    cluster.serve(1);
    cluster.refused(create("demo"));
    assert_eq!(cluster.catalog.audit.len(), before);
    cluster.done(Cluster::deactivate(A, &[2]));
    let audit = cluster.catalog.audit.back().unwrap();
    assert_eq!(
        (audit.who.as_str(), audit.why.as_str(), audit.revision),
        ("operator", "test", cluster.catalog.revision)
    );
}

#[test]
fn texts_and_trails_are_bounded() {
    let mut cluster = Cluster::with_volume();
    for _ in 0..Catalog::UPDATES_MAX + 10 {
        cluster.done(Cluster::deactivate(A, &[2]));
        cluster.done(Command::Deactivated {
            domain: A,
            proof: "ä".repeat(10_000),
        });
        cluster.done(Command::Activate { domain: A });
        cluster.done(Command::Activated { domain: A });
    }
    assert_eq!(cluster.catalog.updates.len(), Catalog::UPDATES_MAX);
    assert!(
        cluster
            .catalog
            .updates
            .iter()
            .all(|update| update.detail.len() <= Catalog::TEXT_BYTES_MAX)
    );
    assert!(
        cluster
            .catalog
            .audit
            .iter()
            .all(|audit| audit.what.len() <= Catalog::TEXT_BYTES_MAX)
    );
}

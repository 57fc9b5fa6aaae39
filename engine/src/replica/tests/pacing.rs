//! Members behind a link that is too slow.

use super::*;

fn slow(a: &mut Bench, now: Time, peers: &[ReplicaId]) {
    let peers = peers.iter().map(|peer| peer.node).collect();
    a.replica.on_slow_peers(now, &peers, &mut a.effects);
}

fn prepares(effects: &Effects) -> bool {
    let prepare = |effect: &Effect| matches!(effect, Effect::Send { to, message: Message::Prepare { .. }, .. } if *to == B.node);
    effects.iter().any(prepare)
}

#[test]
fn a_member_behind_a_slow_link_leaves_by_a_commit_and_counts_until_then() {
    let mut a = serving();
    let seq = write(&mut a, at(10), 1);
    a.persist(at(11));
    a.take();
    slow(&mut a, at(12), &[B]);
    assert_eq!(a.asked(), [ProposalKind::Shrink], "without any time-out");
    a.tick(at(500));
    assert_eq!(
        a.acknowledged(),
        [],
        "it is a member as long as kvdb says so"
    );
    let durable = seq;
    let epoch = epoch(3);
    a.hear(at(501), B, Message::Acked { epoch, durable });
    assert_eq!(a.acknowledged(), [ClientOp(1)], "and as good as ever");
    write(&mut a, at(502), 2);
    a.persist(at(503));
    a.view(at(510), view(4, Some(A), true, &[A]));
    a.persist(at(511));
    a.replica
        .on_confirmed(at(513), at(512), true, &mut a.effects);
    assert_eq!(a.acknowledged(), [ClientOp(2)]);
}

#[test]
fn who_is_out_for_its_link_is_greeted_when_the_link_is_good() {
    let mut a = serving();
    slow(&mut a, at(12), &[B]);
    a.view(at(20), view(4, Some(A), true, &[A]));
    a.persist(at(21));
    a.take();
    a.tick(at(5_000));
    a.replica.on_session_up(at(5_001), B.node, &mut a.effects);
    a.tick(at(5_200));
    let effects = a.take();
    assert!(!prepares(&effects), "{effects:?}");
    slow(&mut a, at(6_000), &[]);
    let effects = a.take();
    assert!(prepares(&effects), "{effects:?}");
    // And a joiner is dropped again when its link is.
    assert!(
        a.replica
            .primary_mut()
            .unwrap()
            .members
            .contains_key(&B.node)
    );
    slow(&mut a, at(6_001), &[B]);
    assert!(a.replica.primary_mut().unwrap().members.is_empty());
}

#[test]
fn a_joiner_that_kvdb_was_asked_to_add_is_left_out_by_a_newer_epoch_only() {
    let mut a = serving();
    a.view(at(10), view(4, Some(A), true, &[A]));
    a.persist(at(11));
    a.tick(at(200));
    let (history, end, committed) = (History::new(), Seq::ZERO, Seq::ZERO);
    let epoch = epoch(4);
    a.hear(
        at(210),
        B,
        Message::Report {
            epoch,
            history,
            end,
            committed,
        },
    );
    a.hear(
        at(211),
        B,
        Message::Acked {
            epoch,
            durable: end,
        },
    );
    a.hear(
        at(211),
        B,
        Message::Grant {
            epoch,
            asked: at(210),
        },
    );
    a.take();
    a.hear(at(212), B, Message::Copied { epoch });
    assert_eq!(a.asked(), [ProposalKind::Grow]);
    slow(&mut a, at(213), &[B]);
    write(&mut a, at(214), 1);
    a.persist(at(215));
    a.replica
        .on_confirmed(at(217), at(216), true, &mut a.effects);
    assert_eq!(a.acknowledged(), [], "kvdb may have added it");
    a.tick(at(1_300));
    assert_eq!(a.asked(), [ProposalKind::Renew]);
    a.view(at(1_400), view(5, Some(A), true, &[A]));
    a.persist(at(1_401));
    a.tick(at(1_500));
    assert_eq!(a.acknowledged(), [ClientOp(1)]);
}

#[test]
fn under_suspend_a_member_behind_a_slow_link_stays() {
    let mut a = serving();
    let mut suspend = view(3, Some(A), true, &[A, B]);
    suspend.may_degrade = false;
    a.view(at(9), suspend);
    a.take();
    slow(&mut a, at(10), &[B]);
    assert_eq!(a.asked(), []);
}

#[test]
fn nobody_becomes_primary_to_bring_back_who_is_behind_a_slow_link() {
    let mut a = Bench::new(A);
    a.replica.begin_whole(&mut a.effects);
    a.replica.on_session_up(at(0), B.node, &mut a.effects);
    a.view(at(1), released(view(4, None, true, &[A])));
    assert!(a.replica.could_bring_back());
    slow(&mut a, at(2), &[B]);
    assert!(!a.replica.could_bring_back());
}

#[test]
fn a_member_is_not_asked_out_for_its_link_before_the_logs_are_level() {
    let mut a = Bench::new(A);
    slow(&mut a, at(0), &[B]);
    a.replica.on_session_up(at(0), B.node, &mut a.effects);
    a.replica.want(at(0), true, &mut a.effects);
    a.view(at(0), released(view(2, None, true, &[A, B])));
    a.view(at(1), released(view(3, Some(A), false, &[A, B])));
    a.persist(at(2));
    a.take();
    a.tick(at(100));
    assert_eq!(a.asked(), []);
}

//! A replica whose disk does not let it take part, and blocks that went bad.

use super::*;
use crate::effect::NotServed;

#[test]
fn a_member_that_says_it_is_unable_is_asked_out_at_once_and_nothing_is_acknowledged_before() {
    let mut a = serving();
    let seq = write(&mut a, at(10), 1);
    a.persist(at(11));
    a.take();
    a.hear(at(12), B, unable());
    assert_eq!(a.asked(), [ProposalKind::Shrink], "without any time-out");
    // What it said before its disk failed counts no more, and neither does what it might say after.
    a.hear(
        at(13),
        B,
        Message::Acked {
            epoch: epoch(3),
            durable: seq,
        },
    );
    assert_eq!(a.acknowledged(), []);
    a.view(at(14), view(4, Some(A), true, &[A]));
    a.persist(at(15));
    a.replica.on_confirmed(at(16), at(15), true, &mut a.effects);
    assert_eq!(a.acknowledged(), [ClientOp(1)]);
}

#[test]
fn under_suspend_an_unable_member_stays_in_the_set_and_writes_wait() {
    let mut a = serving();
    let mut suspend = view(3, Some(A), true, &[A, B]);
    suspend.may_degrade = false;
    a.view(at(9), suspend);
    write(&mut a, at(10), 1);
    a.persist(at(11));
    a.take();
    a.hear(at(12), B, unable());
    a.tick(at(10_000));
    let effects = a.take();
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Propose(_) | Effect::Acknowledge { .. })),
        "{effects:?}"
    );
}

#[test]
fn an_unable_primary_fails_what_waits_and_gives_its_rights_back() {
    let mut a = serving();
    write(&mut a, at(10), 1);
    a.take();
    a.replica
        .become_unable(at(11), "no space".into(), &mut a.effects);
    let effects = a.take();
    let why = NotServed::Unable("no space".into());
    let failed = Effect::Fail {
        op: ClientOp(1),
        why,
    };
    assert!(effects.contains(&failed) && effects.contains(&Effect::Demoted));
    let release = Effect::Propose(Proposal {
        kind: ProposalKind::Release,
        epoch: epoch(3),
        replicas: BTreeSet::new(),
    });
    assert!(effects.contains(&release), "{effects:?}");
    assert!(!a.replica.is_serving());
    // A change that it had asked for came first: the release is for what it is primary of now.
    a.view(at(12), view(4, Some(A), true, &[A]));
    a.tick(at(2_000));
    let released_newer = |effect: &Effect| matches!(effect, Effect::Propose(proposal) if proposal.epoch == epoch(4) && proposal.kind == ProposalKind::Release);
    assert!(a.take().iter().any(released_newer));
    assert!(
        !a.replica.become_able(at(2_001), &mut a.effects),
        "kvdb could still note the release of this epoch"
    );
    a.view(at(2_002), released(view(4, None, true, &[A])));
    assert!(a.replica.become_able(at(2_003), &mut a.effects));
    assert_eq!(a.asked(), [ProposalKind::Promote], "clients still want it");
}

#[test]
fn an_unable_secondary_takes_acknowledges_and_promises_nothing_until_it_is_able() {
    let mut b = following();
    b.replica
        .become_unable(at(20), "no space".into(), &mut b.effects);
    assert!(sent(&b.take(), |message| matches!(
        message,
        Message::Unable { .. }
    )));
    b.hear(
        at(21),
        A,
        Message::GrantRequest {
            epoch: epoch(3),
            asked: at(21),
            committed: Seq::ZERO,
        },
    );
    b.hear(at(22), A, append(1));
    b.persist(at(23));
    b.view(at(24), view(4, Some(A), true, &[A]));
    assert_eq!(b.take(), []);
    let prepare = Message::Prepare {
        configuration: view(4, Some(A), true, &[A]).configuration,
    };
    b.hear(at(25), A, prepare.clone());
    assert!(sent(&b.take(), |message| matches!(
        message,
        Message::Unable { .. }
    )));
    assert!(b.replica.become_able(at(26), &mut b.effects));
    assert_eq!(b.replica.configuration().epoch, epoch(4));
    b.hear(at(27), A, prepare);
    b.persist(at(28));
    assert!(sent(&b.take(), |message| matches!(
        message,
        Message::Report { .. }
    )));
}

#[test]
fn only_members_under_one_epoch_mend_each_other_and_never_with_older_blocks() {
    let mut a = serving();
    assert_eq!(a.replica.mending_source(), Some(B.node));
    let asked = |bench: &mut Bench, from: ReplicaId, number: u32, committed: u64| {
        bench.replica.on_mending_asked(
            at(30),
            from.node,
            epoch(number),
            Seq(committed),
            &mut bench.effects,
        )
    };
    assert!(asked(&mut a, B, 3, 0));
    assert!(!asked(&mut a, B, 2, 0), "another epoch");
    assert!(!asked(&mut a, B, 3, 1), "it is not that far itself");
    let mut b = following();
    assert_eq!(b.replica.mending_source(), Some(A.node));
    b.hear(at(22), A, append(1));
    assert!(!asked(&mut b, A, 3, 1), "not durable here");
    b.persist(at(23));
    assert!(asked(&mut b, A, 3, 1));
    assert_eq!(b.replica.log().committed(), Seq(1));
    b.replica
        .become_unable(at(24), "EIO".into(), &mut b.effects);
    assert!(!asked(&mut b, A, 3, 1) && b.replica.mending_source().is_none());
}

fn unable() -> Message {
    Message::Unable {
        reason: "no space".into(),
    }
}

fn append(seq: u64) -> Message {
    Message::Append {
        epoch: epoch(3),
        entry: Entry {
            position: Position {
                epoch: epoch(3),
                seq: Seq(seq),
            },
            kind: RecordKind::Write,
            range: BlockRange::new(seq, 1),
        },
        committed: Seq::ZERO,
    }
}

fn sent(effects: &[Effect], wanted: impl Fn(&Message) -> bool) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::Send { message, .. } if wanted(message)))
}

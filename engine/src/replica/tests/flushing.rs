//! Volumes that answer what is held (durability `flush`).

use super::*;

fn answers_held(mut view: View) -> View {
    view.answers_held = true;
    view
}

/// A, serving a volume that answers what is held.
fn serving_held() -> Bench {
    let mut a = serving();
    a.view(at(7), answers_held(view(3, Some(A), true, &[A, B])));
    a.take();
    a
}

fn held(seq: Seq) -> Message {
    let epoch = epoch(3);
    Message::Held { epoch, held: seq }
}

fn acked(seq: Seq) -> Message {
    let epoch = epoch(3);
    Message::Acked {
        epoch,
        durable: seq,
    }
}

/// B, following A, with one record that is not durable.
fn following_held() -> Bench {
    let mut b = Bench::new(B);
    b.replica.on_session_up(at(0), A.node, &mut b.effects);
    b.view(
        at(1),
        answers_held(released(view(3, Some(A), true, &[A, B]))),
    );
    let configuration = view(3, Some(A), true, &[A, B]).configuration;
    b.hear(at(2), A, Message::Prepare { configuration });
    b.persist(at(3));
    b.hear(
        at(4),
        A,
        Message::Rewind {
            epoch: epoch(3),
            to: Seq::ZERO,
        },
    );
    let position = Position {
        epoch: epoch(3),
        seq: Seq(1),
    };
    let (kind, range) = (RecordKind::Write, BlockRange::new(0, 1));
    let entry = Entry {
        position,
        kind,
        range,
    };
    let (epoch, committed) = (epoch(3), Seq::ZERO);
    b.hear(
        at(5),
        A,
        Message::Append {
            epoch,
            entry,
            committed,
        },
    );
    b.take();
    b
}

fn hold(a: &mut Bench, now: Time) {
    let token = a.replica.next_token;
    a.replica.on_held(now, token, &mut a.effects);
}

fn flush(a: &mut Bench, now: Time, op: u64) {
    a.replica
        .on_flush(now, ClientOp(op), &mut a.effects)
        .unwrap();
}

fn syncs(effects: &Effects) -> (usize, usize) {
    let own = effects.iter().filter(|effect| **effect == Effect::Sync);
    let asked = effects.iter().filter(|effect| {
        matches!(
            effect,
            Effect::Send {
                message: Message::Sync { .. },
                ..
            }
        )
    });
    (own.count(), asked.count())
}

#[test]
fn a_write_is_answered_when_every_member_holds_it_and_committed_when_it_is_durable_everywhere() {
    let mut a = serving_held();
    let seq = write(&mut a, at(10), 1);
    a.hear(at(11), B, held(seq));
    assert_eq!(a.acknowledged(), [], "its own kernel does not have it");
    hold(&mut a, at(12));
    let effects = a.take();
    let show = effects
        .iter()
        .position(|effect| *effect == Effect::Show { through: seq });
    let answer = effects
        .iter()
        .position(|effect| *effect == Effect::Acknowledge { op: ClientOp(1) });
    assert!(
        show.is_some() && show < answer,
        "a read that follows sees it: {effects:?}"
    );
    assert_eq!(
        (a.replica.answered(), a.replica.log().committed()),
        (seq, Seq::ZERO)
    );
    a.persist(at(13));
    assert_eq!(
        a.replica.log().committed(),
        Seq::ZERO,
        "not durable at the other member"
    );
    a.hear(at(14), B, acked(seq));
    assert!(a.take().contains(&Effect::Apply { through: seq }));
}

#[test]
fn a_volume_that_answers_what_is_durable_takes_no_notice_of_what_is_held() {
    let mut a = serving();
    let seq = write(&mut a, at(10), 1);
    hold(&mut a, at(11));
    a.hear(at(12), B, held(seq));
    a.tick(at(300));
    flush(&mut a, at(301), 2);
    let effects = a.take();
    assert_eq!(syncs(&effects), (0, 0));
    let answered = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Acknowledge { .. }));
    assert_eq!(
        answered.count(),
        1,
        "the flush, which has nothing to wait for: {effects:?}"
    );
}

#[test]
fn a_flush_waits_until_what_was_answered_before_it_is_durable_everywhere() {
    let mut a = serving_held();
    let seq = write(&mut a, at(10), 1);
    hold(&mut a, at(11));
    a.hear(at(12), B, held(seq));
    assert_eq!(a.acknowledged(), [ClientOp(1)]);
    flush(&mut a, at(13), 2);
    assert_eq!(syncs(&a.take()), (1, 1));
    // Another write, and a second flush for the same: nothing is asked for twice.
    write(&mut a, at(14), 3);
    flush(&mut a, at(15), 4);
    assert_eq!(syncs(&a.effects), (0, 0));
    a.persist(at(16));
    assert_eq!(a.acknowledged(), [], "not durable at the other member");
    a.hear(at(17), B, acked(seq));
    assert_eq!(a.acknowledged(), [ClientOp(2), ClientOp(4)]);
}

#[test]
fn while_a_member_that_lost_power_has_not_caught_up_only_what_is_durable_is_answered() {
    let mut a = serving_held();
    let mut seen = answers_held(view(4, Some(A), true, &[A, B]));
    seen.rebooted = BTreeSet::from([B]);
    a.view(at(8), seen);
    a.persist(at(9));
    let epoch = epoch(4);
    let (history, end, committed) = (History::new(), Seq::ZERO, Seq::ZERO);
    let report = Message::Report {
        epoch,
        history,
        end,
        committed,
    };
    a.hear(at(9), B, report);
    let level = Message::Acked {
        epoch,
        durable: Seq::ZERO,
    };
    a.hear(at(9), B, level);
    let asked = at(9);
    a.hear(at(9), B, Message::Grant { epoch, asked });
    a.take();
    let seq = write(&mut a, at(10), 1);
    assert_eq!(syncs(&a.effects), (1, 1), "it is not left to the next tick");
    hold(&mut a, at(11));
    a.hear(at(12), B, Message::Held { epoch, held: seq });
    assert_eq!(a.acknowledged(), [], "held, and no more");
    a.persist(at(13));
    a.hear(
        at(14),
        B,
        Message::Acked {
            epoch,
            durable: seq,
        },
    );
    assert_eq!(a.acknowledged(), [ClientOp(1)]);
}

#[test]
fn writes_from_before_a_member_lost_power_are_made_durable_too() {
    let mut a = serving_held();
    let seq = write(&mut a, at(10), 1);
    hold(&mut a, at(11));
    let mut seen = answers_held(view(4, Some(A), true, &[A, B]));
    seen.rebooted = BTreeSet::from([B]);
    a.view(at(12), seen);
    a.persist(at(13));
    a.take();
    // Asked before B is there, and again once it is.
    a.tick(at(200));
    let epoch = epoch(4);
    let (history, end, committed) = (History::new(), Seq::ZERO, Seq::ZERO);
    let report = Message::Report {
        epoch,
        history,
        end,
        committed,
    };
    a.hear(at(201), B, report);
    let asked = at(201);
    a.hear(at(201), B, Message::Grant { epoch, asked });
    a.take();
    a.tick(at(400));
    assert_eq!(syncs(&a.take()).1, 1);
    let durable = Message::Acked {
        epoch,
        durable: seq,
    };
    a.hear(at(401), B, durable);
    assert_eq!(a.acknowledged(), [ClientOp(1)]);
}

#[test]
fn a_follower_that_loses_its_primary_makes_what_it_holds_durable() {
    let mut b = following_held();
    b.replica.on_session_down(at(20), A.node, &mut b.effects);
    assert_eq!(syncs(&b.take()), (1, 0));
}

#[test]
fn a_flush_with_nothing_to_make_durable_is_answered_at_once() {
    let mut a = serving_held();
    flush(&mut a, at(10), 1);
    let effects = a.take();
    assert_eq!(effects, [Effect::Acknowledge { op: ClientOp(1) }]);
}

#[test]
fn what_was_answered_is_made_durable_without_being_asked_for() {
    let mut a = serving_held();
    let seq = write(&mut a, at(10), 1);
    hold(&mut a, at(11));
    a.hear(at(12), B, held(seq));
    a.take();
    a.tick(at(300));
    assert_eq!(syncs(&a.take()), (1, 1));
}

#[test]
fn a_member_that_does_not_sync_is_lost() {
    let mut a = serving_held();
    let seq = write(&mut a, at(10), 1);
    hold(&mut a, at(11));
    a.hear(at(12), B, held(seq));
    flush(&mut a, at(13), 2);
    a.persist(at(14));
    a.take();
    for now in (100..2_000).step_by(100) {
        a.tick(at(now));
        // It answers all else.
        let asked = at(now);
        a.hear(
            at(now),
            B,
            Message::Grant {
                epoch: epoch(3),
                asked,
            },
        );
    }
    assert_eq!(a.asked(), []);
    a.tick(at(2_100));
    assert_eq!(a.asked(), [ProposalKind::Shrink]);
}

#[test]
fn a_sync_is_asked_for_again_under_a_new_epoch() {
    let mut a = serving_held();
    let seq = write(&mut a, at(10), 1);
    hold(&mut a, at(11));
    a.hear(at(12), B, held(seq));
    flush(&mut a, at(13), 2);
    a.take();
    // B took the epoch before it heard that, and passed it over.
    a.view(at(14), answers_held(view(4, Some(A), true, &[A, B])));
    a.persist(at(15));
    a.take();
    a.tick(at(300));
    assert_eq!(syncs(&a.take()), (1, 1));
}

#[test]
fn a_follower_says_what_it_holds_and_what_is_durable() {
    let mut b = following_held();
    let epoch = epoch(3);
    hold(&mut b, at(6));
    let sent = |effects: Effects| -> Vec<Message> {
        let sent = effects.into_iter().filter_map(|effect| match effect {
            Effect::Send { message, .. } => Some(message),
            _ => None,
        });
        sent.collect()
    };
    assert_eq!(sent(b.take()), [held(Seq(1))]);
    b.hear(at(7), A, Message::Sync { epoch });
    assert_eq!(syncs(&b.take()), (1, 0));
    b.persist(at(8));
    assert_eq!(sent(b.take()), [acked(Seq(1))]);
    b.hear(at(9), A, Message::Sync { epoch });
    assert_eq!(
        syncs(&b.take()),
        (0, 0),
        "there is nothing that is not durable"
    );
}

#[test]
fn a_rebooted_replica_does_not_ask_to_be_primary() {
    let mut b = Bench::new(B);
    b.replica.want(at(0), true, &mut b.effects);
    let mut seen = answers_held(released(view(4, None, true, &[A, B])));
    seen.rebooted = BTreeSet::from([B]);
    b.view(at(1), seen.clone());
    b.tick(at(2_000));
    assert_eq!(b.asked(), []);
    seen.rebooted.clear();
    b.view(at(2_001), seen);
    assert_eq!(b.asked(), [ProposalKind::Promote]);
}

#[test]
fn who_kept_its_memory_brings_a_rebooted_member_back() {
    let mut a = Bench::new(A);
    let mut seen = answers_held(released(view(4, None, true, &[A, B])));
    seen.rebooted = BTreeSet::from([B]);
    a.view(at(1), seen);
    assert!(!a.replica.could_bring_back(), "it is not there");
    a.replica.on_session_up(at(2), B.node, &mut a.effects);
    assert!(a.replica.could_bring_back());
}

#[test]
fn kvdb_is_told_that_a_rebooted_member_has_caught_up_when_it_holds_everything_answered() {
    let mut a = serving_held();
    let seq = write(&mut a, at(10), 1);
    hold(&mut a, at(11));
    a.hear(at(12), B, held(seq));
    assert_eq!(a.acknowledged(), [ClientOp(1)]);
    // B lost power, and with it the record; its start gave the volume a new epoch.
    a.replica.on_session_down(at(13), B.node, &mut a.effects);
    let mut seen = answers_held(view(4, Some(A), true, &[A, B]));
    seen.rebooted = BTreeSet::from([B]);
    a.view(at(14), seen);
    a.persist(at(15));
    a.replica.on_session_up(at(16), B.node, &mut a.effects);
    let report = Message::Report {
        epoch: epoch(4),
        history: History::new(),
        end: Seq::ZERO,
        committed: Seq::ZERO,
    };
    a.hear(at(17), B, report);
    assert_eq!(syncs(&a.take()).1, 1, "what it is sent is to be durable");
    a.tick(at(300));
    assert_eq!(a.asked(), []);
    a.hear(
        at(301),
        B,
        Message::Held {
            epoch: epoch(4),
            held: seq,
        },
    );
    a.tick(at(500));
    assert_eq!(a.asked(), [ProposalKind::CaughtUp]);
}

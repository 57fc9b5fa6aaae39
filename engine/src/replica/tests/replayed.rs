//! Row 20 of the fault table: messages of a primary's earlier time arrive when it was replaced and promoted again.

use super::*;

/// Hears a message, to which nothing may be answered but that its epoch is over.
#[track_caller]
fn refuses(bench: &mut Bench, now: Time, from: ReplicaId, message: Message) {
    let what = format!("{message:?}");
    bench.hear(now, from, message);
    for effect in bench.take() {
        let stale = matches!(
            effect,
            Effect::Send {
                message: Message::Stale { .. },
                ..
            }
        );
        assert!(stale, "{what} brings about {effect:?}");
    }
}

#[test]
fn row_20_old_messages_of_a_primary_are_refused_after_its_re_promotion() {
    let mut b = following();
    let append = Message::Append {
        epoch: epoch(3),
        entry: entry(3, 1),
        committed: Seq::ZERO,
    };
    b.hear(at(11), A, append.clone());
    b.persist(at(12));
    // Its promise to A is over.
    b.view(at(5_000), view(4, Some(B), false, &[A, B]));
    b.persist(at(5_001));
    b.view(at(5_002), view(5, Some(A), false, &[A, B]));
    b.persist(at(5_003));
    assert_eq!(b.replica.configuration().epoch, epoch(5));
    b.take();
    let old = [
        append,
        Message::Append {
            epoch: epoch(3),
            entry: entry(3, 2),
            committed: Seq(1),
        },
        Message::Prepare {
            configuration: view(3, Some(A), false, &[A, B]).configuration,
        },
        Message::Configure {
            configuration: view(3, Some(A), true, &[A]).configuration,
        },
        Message::Rewind {
            epoch: epoch(3),
            to: Seq::ZERO,
        },
        Message::GrantRequest {
            epoch: epoch(3),
            asked: at(9),
            committed: Seq(1),
        },
    ];
    for message in old {
        refuses(&mut b, at(5_010), A, message);
    }
    assert_eq!(b.replica.configuration().epoch, epoch(5));
}

#[test]
fn row_20_old_answers_count_nothing_for_a_primary_that_was_promoted_again() {
    let mut a = serving();
    let seq = write(&mut a, at(7), 1);
    a.view(at(5_000), view(4, Some(B), false, &[A, B]));
    a.persist(at(5_001));
    a.view(at(5_002), view(5, Some(A), false, &[A, B]));
    a.persist(at(5_003));
    a.take();
    // What B said to A's first time as primary, as late as this: its report, that it holds the write, its grant.
    let old = [
        Message::Report {
            epoch: epoch(3),
            history: History::new(),
            end: Seq::ZERO,
            committed: Seq::ZERO,
        },
        Message::Acked {
            epoch: epoch(3),
            durable: seq,
        },
        Message::Grant {
            epoch: epoch(3),
            asked: at(5_002),
        },
    ];
    for message in old {
        refuses(&mut a, at(5_010), B, message);
    }
}

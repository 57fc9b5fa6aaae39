//! Rules of the replica, one at a time, by its events. Whole clusters under faults are the simulator's business.

use super::*;
use crate::blocks::BlockRange;
use crate::history::History;
use crate::ids::{DomainId, Incarnation, Position};
use crate::log::{Entry, RecordKind};

mod flushing;
mod pacing;
mod takeover;
mod unable;

const A: ReplicaId = ReplicaId {
    node: NodeId(1),
    incarnation: Incarnation(11),
};
const B: ReplicaId = ReplicaId {
    node: NodeId(2),
    incarnation: Incarnation(22),
};

fn epoch(number: u32) -> Epoch {
    Epoch {
        generation: 0,
        number,
    }
}

fn at(ms: u64) -> Time {
    Time(1_000_000_000_000 + ms * 1_000_000)
}

fn view(number: u32, primary: Option<ReplicaId>, opened: bool, in_sync: &[ReplicaId]) -> View {
    View {
        configuration: Configuration {
            epoch: epoch(number),
            primary,
            opened,
            in_sync: in_sync.iter().copied().collect(),
        },
        released: false,
        granted_set: BTreeSet::from([A, B]),
        eligible: BTreeSet::from([A, B]),
        complete: in_sync.iter().copied().collect(),
        domains: BTreeMap::from([(A.node, DomainId(1)), (B.node, DomainId(2))]),
        may_degrade: true,
        answers_held: false,
        rebooted: BTreeSet::new(),
        preferred_domain: None,
    }
}

fn released(mut view: View) -> View {
    view.released = true;
    view
}

/// A replica and what it asked for since the last look.
struct Bench {
    replica: Replica,
    effects: Effects,
}

impl Bench {
    fn new(me: ReplicaId) -> Bench {
        Bench {
            replica: Replica::new(me, Settings::default(), Durable::new(), at(0)),
            effects: Effects::new(),
        }
    }

    fn view(&mut self, now: Time, view: View) {
        self.replica.on_view(now, view, &mut self.effects);
    }

    fn hear(&mut self, now: Time, from: ReplicaId, message: Message) {
        self.replica
            .on_message(now, from.node, message, &mut self.effects);
    }

    /// Everything handed to the journal becomes durable.
    fn persist(&mut self, now: Time) {
        let token = self.replica.next_token;
        self.replica.on_persisted(now, token, &mut self.effects);
    }

    fn tick(&mut self, now: Time) {
        self.replica.on_tick(now, &mut self.effects);
    }

    fn take(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    fn asked(&mut self) -> Vec<ProposalKind> {
        self.take()
            .into_iter()
            .filter_map(|effect| {
                if let Effect::Propose(proposal) = effect {
                    Some(proposal.kind)
                } else {
                    None
                }
            })
            .collect()
    }

    fn acknowledged(&mut self) -> Vec<ClientOp> {
        self.take()
            .into_iter()
            .filter_map(|effect| {
                if let Effect::Acknowledge { op } = effect {
                    Some(op)
                } else {
                    None
                }
            })
            .collect()
    }
}

/// A, serving under epoch 3 with B in its set, and B's grant.
fn serving() -> Bench {
    let mut a = Bench::new(A);
    a.replica.on_session_up(at(0), B.node, &mut a.effects);
    a.replica.want(at(0), true, &mut a.effects);
    a.view(at(0), released(view(2, None, true, &[A, B])));
    assert_eq!(a.asked(), [ProposalKind::Promote]);
    a.view(at(1), released(view(3, Some(A), false, &[A, B])));
    a.persist(at(2));
    a.hear(
        at(3),
        B,
        Message::Report {
            epoch: epoch(3),
            history: History::new(),
            end: Seq::ZERO,
            committed: Seq::ZERO,
        },
    );
    a.hear(
        at(4),
        B,
        Message::Acked {
            epoch: epoch(3),
            durable: Seq::ZERO,
        },
    );
    assert!(a.asked().contains(&ProposalKind::Opened));
    a.view(at(5), view(3, Some(A), true, &[A, B]));
    a.hear(
        at(6),
        B,
        Message::Grant {
            epoch: epoch(3),
            asked: at(5),
        },
    );
    assert!(a.take().contains(&Effect::Serving));
    a
}

fn write(a: &mut Bench, now: Time, op: u64) -> Seq {
    a.replica
        .on_write(
            now,
            ClientOp(op),
            RecordKind::Write,
            BlockRange::new(op, 1),
            &mut a.effects,
        )
        .unwrap()
}

#[test]
fn a_write_waits_for_every_member_of_the_committed_set() {
    let mut a = serving();
    let seq = write(&mut a, at(10), 1);
    a.hear(
        at(11),
        B,
        Message::Acked {
            epoch: epoch(3),
            durable: seq,
        },
    );
    assert_eq!(
        a.acknowledged(),
        [],
        "this replica's own journal does not hold it yet"
    );
    a.persist(at(12));
    assert_eq!(a.acknowledged(), [ClientOp(1)]);
    let seq = write(&mut a, at(13), 2);
    a.persist(at(14));
    assert_eq!(
        a.acknowledged(),
        [],
        "the other member does not hold it yet"
    );
    a.hear(
        at(15),
        B,
        Message::Acked {
            epoch: epoch(2),
            durable: seq,
        },
    );
    assert_eq!(
        a.acknowledged(),
        [],
        "an acknowledgement of an older epoch counts for nothing"
    );
    a.hear(
        at(16),
        B,
        Message::Acked {
            epoch: epoch(3),
            durable: seq,
        },
    );
    assert_eq!(a.acknowledged(), [ClientOp(2)]);
}

#[test]
fn nothing_is_acknowledged_without_a_lost_member_before_the_shrink_is_committed_and_durable_and_confirmed()
 {
    let mut a = serving();
    write(&mut a, at(10), 1);
    a.persist(at(11));
    a.replica.on_session_down(at(20), B.node, &mut a.effects);
    a.take();
    a.tick(at(200));
    a.tick(at(700));
    let effects = a.take();
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::Propose(Proposal {
            kind: ProposalKind::Shrink,
            ..
        })
    )));
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Acknowledge { .. }))
    );
    a.view(at(800), view(4, Some(A), true, &[A]));
    assert_eq!(a.acknowledged(), [], "the new epoch is not durable here");
    a.persist(at(801));
    assert_eq!(
        a.acknowledged(),
        [],
        "a set in one domain needs kvdb's grant"
    );
    a.replica
        .on_confirmed(at(803), at(802), true, &mut a.effects);
    assert_eq!(a.acknowledged(), [ClientOp(1)]);
}

#[test]
fn the_grants_in_question_are_a_frozen_primarys_and_what_is_out_to_one_that_is_gone() {
    let mut a = serving();
    assert_eq!(a.replica.grants_in_question(at(7)), []);
    a.replica.on_session_down(at(20), B.node, &mut a.effects);
    let until = at(5) + Settings::default().lease;
    let (from, to) = (Some(B.node), A.node);
    assert_eq!(
        a.replica.grants_in_question(at(21)),
        [Grant { from, to, until }]
    );
    a.view(at(800), view(4, Some(A), true, &[A]));
    a.persist(at(801));
    let kvdbs = a.replica.grants_in_question(at(802));
    assert!(kvdbs.len() == 1 && kvdbs[0].from.is_none(), "{kvdbs:?}");
}

#[test]
fn nothing_is_copied_over_a_complete_replica_before_kvdb_has_noted_that() {
    let mut a = serving();
    let mut alone = view(4, Some(A), true, &[A]);
    alone.complete.insert(B);
    a.view(at(10), alone.clone());
    a.persist(at(11));
    a.tick(at(200));
    a.take();
    let report = || Message::Report {
        epoch: epoch(4),
        history: History::new(),
        end: Seq::ZERO,
        committed: Seq::ZERO,
    };
    let joins = |effects: &Effects| {
        effects.iter().any(|effect| {
            matches!(
                effect,
                Effect::Send {
                    message: Message::Join { .. },
                    ..
                }
            )
        })
    };
    let asks = |effects: &Effects| {
        effects.iter().any(|effect| {
            matches!(effect, Effect::Propose(proposal) if proposal.kind == ProposalKind::BeginCopy)
        })
    };
    a.hear(at(210), B, report());
    let effects = a.take();
    assert!(asks(&effects) && !joins(&effects), "{effects:?}");
    alone.complete.remove(&B);
    a.view(at(220), alone);
    a.tick(at(1000));
    a.take();
    a.hear(at(1010), B, report());
    let effects = a.take();
    assert!(joins(&effects) && !asks(&effects), "{effects:?}");
}

#[test]
fn a_primary_opens_although_the_view_that_says_so_is_left_out_for_a_newer_one() {
    let mut a = Bench::new(A);
    a.replica.on_session_up(at(0), B.node, &mut a.effects);
    a.replica.want(at(0), true, &mut a.effects);
    a.view(at(0), released(view(2, None, true, &[A, B])));
    a.view(at(1), released(view(3, Some(A), false, &[A, B])));
    a.persist(at(2));
    let report = Message::Report {
        epoch: epoch(3),
        history: History::new(),
        end: Seq::ZERO,
        committed: Seq::ZERO,
    };
    a.hear(at(3), B, report);
    let durable = Seq::ZERO;
    a.hear(
        at(4),
        B,
        Message::Acked {
            epoch: epoch(3),
            durable,
        },
    );
    assert!(a.asked().contains(&ProposalKind::Opened));
    // Committed; and then B's site was deactivated, which keeps `opened`. Only that view comes.
    a.view(at(5), view(4, Some(A), true, &[A]));
    assert!(a.take().contains(&Effect::Serving));
    assert!(a.replica.is_serving());
}

#[test]
fn a_read_is_answered_only_under_the_grant_of_every_member_checked_after_the_fetch() {
    let mut a = serving();
    a.replica
        .on_read(at(10), ClientOp(7), &mut a.effects)
        .unwrap();
    assert!(a.take().contains(&Effect::Fetch { op: ClientOp(7) }));
    // The grant was asked for at 5 ms and lasts 3 s.
    a.replica.on_fetched(at(3_006), ClientOp(7), &mut a.effects);
    assert!(!a.take().contains(&Effect::Deliver { op: ClientOp(7) }));
    a.hear(
        at(3_010),
        B,
        Message::Grant {
            epoch: epoch(3),
            asked: at(3_008),
        },
    );
    assert!(a.take().contains(&Effect::Deliver { op: ClientOp(7) }));
}

#[test]
fn a_replaced_primary_fails_what_it_has_and_serves_no_more() {
    let mut a = serving();
    write(&mut a, at(10), 1);
    a.replica
        .on_read(at(10), ClientOp(2), &mut a.effects)
        .unwrap();
    a.take();
    a.view(at(20), view(4, None, true, &[B]));
    let effects = a.take();
    for op in [ClientOp(1), ClientOp(2)] {
        assert!(effects.contains(&Effect::Fail {
            op,
            why: crate::effect::NotServed::NotPrimary
        }));
    }
    assert!(effects.contains(&Effect::Demoted));
    assert!(
        a.replica
            .on_write(
                at(21),
                ClientOp(3),
                RecordKind::Write,
                BlockRange::new(0, 1),
                &mut a.effects
            )
            .is_err()
    );
}

/// B, following A under epoch 3, with a promise given at 10 ms.
fn following() -> Bench {
    let mut b = Bench::new(B);
    b.replica.on_session_up(at(0), A.node, &mut b.effects);
    b.view(at(0), released(view(2, None, true, &[A, B])));
    b.hear(
        at(1),
        A,
        Message::Prepare {
            configuration: view(3, Some(A), false, &[A, B]).configuration,
        },
    );
    b.persist(at(2));
    b.hear(
        at(3),
        A,
        Message::Rewind {
            epoch: epoch(3),
            to: Seq::ZERO,
        },
    );
    b.hear(
        at(10),
        A,
        Message::GrantRequest {
            epoch: epoch(3),
            asked: at(9),
            committed: Seq::ZERO,
        },
    );
    assert!(b.take().iter().any(|effect| matches!(
        effect,
        Effect::Send {
            message: Message::Grant { .. },
            ..
        }
    )));
    b
}

fn entry(number: u32, seq: u64) -> Entry {
    Entry {
        position: Position {
            epoch: epoch(number),
            seq: Seq(seq),
        },
        kind: RecordKind::Write,
        range: BlockRange::new(seq, 1),
    }
}

#[test]
fn a_giver_takes_no_higher_epoch_with_another_primary_while_its_promise_is_out() {
    let mut b = following();
    b.view(at(20), view(4, Some(B), false, &[B]));
    assert_eq!(b.replica.configuration().epoch, epoch(3));
    b.hear(
        at(30),
        A,
        Message::GrantRequest {
            epoch: epoch(3),
            asked: at(29),
            committed: Seq::ZERO,
        },
    );
    assert_eq!(
        b.take(),
        [],
        "who knows of a higher epoch promises nothing more"
    );
    b.tick(at(3_039));
    assert_eq!(
        b.replica.configuration().epoch,
        epoch(3),
        "10 ms + 3 s + 1 % are not over"
    );
    b.tick(at(3_140));
    assert_eq!(b.replica.configuration().epoch, epoch(4));
}

#[test]
fn a_promise_given_back_binds_no_more() {
    let mut b = following();
    b.view(at(20), view(4, Some(B), false, &[B]));
    b.hear(at(21), A, Message::GiveUp { epoch: epoch(3) });
    assert_eq!(b.replica.configuration().epoch, epoch(4));
}

#[test]
fn a_view_of_an_older_release_does_not_end_a_newer_promise() {
    let mut b = following();
    // Epoch 3 was made from a released volume; this view says so, and only arrives after the promise was given.
    b.view(at(11), released(view(3, Some(A), false, &[A, B])));
    b.view(at(20), view(4, Some(B), false, &[B]));
    assert_eq!(b.replica.configuration().epoch, epoch(3));
}

#[test]
fn a_giver_that_restarted_waits_a_lease_first() {
    let mut durable = Durable::new();
    durable.configuration = view(3, Some(A), true, &[A, B]).configuration;
    let mut b = Bench {
        replica: Replica::new(B, Settings::default(), durable, at(0)),
        effects: Effects::new(),
    };
    b.view(at(1), view(4, Some(B), false, &[B]));
    assert_eq!(b.replica.configuration().epoch, epoch(3));
    b.tick(at(3_100));
    assert_eq!(b.replica.configuration().epoch, epoch(4));
}

#[test]
fn a_record_of_an_older_epoch_is_refused() {
    let mut b = following();
    b.view(at(20), view(4, Some(A), true, &[A, B]));
    b.take();
    b.hear(
        at(21),
        A,
        Message::Append {
            epoch: epoch(3),
            entry: entry(3, 1),
            committed: Seq::ZERO,
        },
    );
    let effects = b.take();
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Append { .. }))
    );
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::Send {
            message: Message::Stale { .. },
            ..
        }
    )));
}

#[test]
fn a_different_record_at_a_held_position_stops_the_volume() {
    let mut b = following();
    b.hear(
        at(20),
        A,
        Message::Append {
            epoch: epoch(3),
            entry: entry(2, 1),
            committed: Seq::ZERO,
        },
    );
    b.hear(
        at(21),
        A,
        Message::Append {
            epoch: epoch(3),
            entry: entry(3, 1),
            committed: Seq::ZERO,
        },
    );
    assert!(matches!(b.replica.standing(at(22)), Standing::Damaged(_)));
}

#[test]
fn committed_follows_only_what_is_durable_here() {
    let mut b = following();
    b.take();
    b.hear(
        at(20),
        A,
        Message::Append {
            epoch: epoch(3),
            entry: entry(3, 1),
            committed: Seq(1),
        },
    );
    assert_eq!(b.replica.log().committed(), Seq::ZERO);
    b.persist(at(21));
    assert_eq!(b.replica.log().committed(), Seq(1));
    assert!(b.take().contains(&Effect::Apply { through: Seq(1) }));
}

#[test]
fn a_replica_that_restarted_follows_nobody_before_kvdb_has_told_it_what_is() {
    let mut durable = Durable::new();
    durable.configuration = view(3, Some(A), true, &[A, B]).configuration;
    let mut b = Bench {
        replica: Replica::new(B, Settings::default(), durable, at(0)),
        effects: Effects::new(),
    };
    b.replica.on_session_up(at(1), A.node, &mut b.effects);
    let prepare = Message::Prepare {
        configuration: view(3, Some(A), true, &[A, B]).configuration,
    };
    b.hear(at(2), A, prepare.clone());
    assert_eq!(b.take(), [], "it may have known that epoch 3 is over");
    b.view(at(3), view(4, None, true, &[B]));
    b.hear(at(4), A, prepare);
    let stale = Effect::Send {
        to: A.node,
        message: Message::Stale { epoch: epoch(4) },
        after: None,
    };
    assert_eq!(b.take(), [stale]);
}

mod replayed;

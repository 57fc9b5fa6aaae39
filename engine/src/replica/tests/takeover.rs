//! Two replicas in one site: the one that misses its primary takes over, without anybody's word.

use super::*;

fn same_site(mut view: View) -> View {
    view.domains = BTreeMap::from([(A.node, DomainId(1)), (B.node, DomainId(1))]);
    view
}

fn of_a(in_sync: &[ReplicaId]) -> View {
    view(3, Some(A), true, in_sync)
}

/// B follows A, and has promised it at 10 ms to take no other primary's epoch.
fn promised(shown: View) -> Bench {
    let mut b = Bench::new(B);
    b.replica.begin_whole(&mut b.effects);
    b.replica.on_session_up(at(0), A.node, &mut b.effects);
    let configuration = shown.configuration.clone();
    b.view(at(1), shown);
    b.persist(at(2));
    b.hear(at(3), A, Message::Prepare { configuration });
    let epoch = epoch(3);
    b.hear(
        at(4),
        A,
        Message::Rewind {
            epoch,
            to: Seq::ZERO,
        },
    );
    b.persist(at(5));
    b.hear(
        at(10),
        A,
        Message::GrantRequest {
            epoch,
            asked: at(9),
            committed: Seq::ZERO,
        },
    );
    assert_eq!(b.replica.promised_to(at(11)), Some(A.node));
    b.take();
    b
}

/// When it asks to be promoted, looking every 100 ms for ten seconds.
fn asks_at(b: &mut Bench) -> Option<u64> {
    (1..100).map(|step| step * 100).find(|ms| {
        b.tick(at(*ms));
        b.asked().contains(&ProposalKind::Promote)
    })
}

#[test]
fn a_member_whose_primary_is_gone_takes_over_once_its_promise_is_over() {
    let mut b = promised(same_site(of_a(&[A, B])));
    b.replica.on_session_down(at(20), A.node, &mut b.effects);
    let promised_ms = 10 + Settings::default().lease_of_giver().as_millis() as u64;
    let asked = asks_at(&mut b).expect("it takes over, though no client wants it to");
    assert!(
        asked > promised_ms && asked <= promised_ms + 200,
        "{asked} ms, the promise was over at {promised_ms} ms"
    );
}

#[test]
fn nobody_takes_over_who_is_elsewhere_or_out_of_the_set_or_hears_the_primary() {
    let mut elsewhere = promised(of_a(&[A, B]));
    elsewhere
        .replica
        .on_session_down(at(20), A.node, &mut elsewhere.effects);
    assert_eq!(asks_at(&mut elsewhere), None, "in the other site");
    let mut hears = promised(same_site(of_a(&[A, B])));
    assert_eq!(asks_at(&mut hears), None, "it hears its primary");
    let mut out = promised(same_site(of_a(&[A, B])));
    out.replica
        .on_session_down(at(20), A.node, &mut out.effects);
    out.view(at(30), same_site(view(4, Some(A), true, &[A])));
    assert_eq!(asks_at(&mut out), None, "out of the set");
}

#[test]
fn a_primary_that_comes_back_in_time_stays() {
    let mut b = promised(same_site(of_a(&[A, B])));
    for begin in [0, 2000] {
        let lost = at(begin + 20);
        b.replica.on_session_down(lost, A.node, &mut b.effects);
        for ms in [1000, 1900] {
            b.tick(at(begin + ms));
        }
        let back = at(begin + 1950);
        b.replica.on_session_up(back, A.node, &mut b.effects);
        b.tick(at(begin + 1960));
    }
    assert_eq!(b.asked(), []);
}

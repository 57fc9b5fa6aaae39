//! kvdb's own group alone.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use isthmus_engine::Incarnation;
use simulation::group::{Group, GroupPlan};
use simulation::schedule::SECOND;

fn formed(seed: u64) -> Group {
    let mut group = Group::new(seed, GroupPlan::default());
    group.form([1, 2, 3].map(Incarnation), [1; 3]).unwrap();
    group
}

#[test]
fn three_members_form_a_group_and_idle() {
    let mut group = formed(1);
    println!("formed at {} ms", group.now() / 1_000_000);
    let begun = std::time::Instant::now();
    let from = group.now();
    group.advance(from + 200 * SECOND);
    let _ = group.take_outputs();
    println!("200 s took {:?}", begun.elapsed());
    assert_eq!(group.failure(), None);
    assert!(group.leader().is_some());
}

//! A few ten thousand fresh cases, and a place for nothing else: a failing case is known by what runs at that time.

use fuzz::random::Random;
use fuzz::runner::{Runner, run_all};
use fuzz::targets;

const CASES: u64 = 30_000;

#[test]
fn no_decoder_breaks_a_rule() {
    let seed = Random::fresh_seed();
    println!("seed {seed}, {CASES} cases");
    let mut runners: Vec<Runner> = targets::all()
        .into_iter()
        .map(|target| Runner::new(target, seed))
        .collect();
    run_all(&mut runners, CASES);
    for runner in &runners {
        let (name, tally) = (runner.target().name(), runner.tally());
        assert!(tally.cases > 0, "{name} has run");
        assert!(tally.accepted > 0, "{name} has accepted something");
    }
}

//! The model, run to its end within small bounds; and each rule broken once.

use clap::ValueEnum;
use isthmus_model::configurations::{QUICK, refuting};
use isthmus_model::mutation::Mutation;
use isthmus_model::properties::SITUATION_NAMES;
use isthmus_model::run::explore;

#[test]
fn the_rules_hold_in_every_state_of_the_small_configurations() {
    for configuration in &QUICK {
        let outcome = explore(configuration, None, 2, false);
        if let Some(counterexample) = outcome.broken {
            panic!(
                "{}: {} broken in {} steps\n{}",
                configuration.name,
                counterexample.property,
                counterexample.steps,
                counterexample.text
            );
        }
        for at in configuration.reaches {
            assert!(
                outcome.reached[*at],
                "{} never reaches: {}",
                configuration.name, SITUATION_NAMES[*at]
            );
        }
    }
}

#[test]
fn every_broken_rule_is_refuted_but_for_those_that_others_cover() {
    for mutation in Mutation::value_variants() {
        let (configuration, redundant) = refuting(*mutation);
        let outcome = explore(&configuration, Some(*mutation), 1, false);
        assert_eq!(
            outcome.broken.is_some(),
            redundant.is_none(),
            "{mutation:?}: {:?}",
            outcome.broken.map(|counterexample| counterexample.property)
        );
    }
}

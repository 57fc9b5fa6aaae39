//! Makes a failing scenario smaller: leaves out faults, wishes, clients, visits and operations as long as the same rule still breaks.
//!
//! The method is delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002): parts of a list are
//! left out, first halves, then quarters, down to single items. Leaving something out changes what comes later by chance, too, so a
//! smaller scenario may miss the failure with one seed and show it with another: each candidate gets a few.

use crate::scenario::{Scenario, Visit};

/// Seeds of chance that a candidate is tried with.
const CHANCES: u64 = 3;

/// Whether a scenario breaks the rule in question.
pub trait Trial {
    /// Runs it; returns when the rule was broken, in microseconds, if it was.
    fn breaks(&mut self, scenario: &Scenario) -> Option<u64>;
    /// Whether there is time for more trials.
    fn may_go_on(&self) -> bool;
}

/// The smallest scenario found that still breaks the rule. `scenario` does.
pub fn shrink(scenario: &Scenario, trial: &mut dyn Trial) -> Scenario {
    let mut best = scenario.clone();
    if let Some(at_us) = trial.breaks(&best) {
        try_it(&mut best, trial, |candidate| end_at(candidate, at_us));
    }
    loop {
        let before = best.length();
        leave_out(&mut best, trial, |scenario| &mut scenario.wishes);
        leave_out(&mut best, trial, |scenario| &mut scenario.faults);
        leave_out(&mut best, trial, |scenario| &mut scenario.clients);
        for client in 0..best.clients.len() {
            leave_out(&mut best, trial, |scenario| {
                &mut scenario.clients[client].visits
            });
            for visit in 0..best.clients[client].visits.len() {
                leave_out(&mut best, trial, |scenario| {
                    &mut scenario.clients[client].visits[visit].operations
                });
            }
        }
        leave_volumes_out(&mut best, trial);
        if best.length() == before || !trial.may_go_on() {
            return best;
        }
    }
}

/// Takes the changed scenario if it still breaks the rule.
fn try_it(best: &mut Scenario, trial: &mut dyn Trial, change: impl FnOnce(&mut Scenario)) -> bool {
    let mut candidate = best.clone();
    change(&mut candidate);
    for chance in 0..CHANCES {
        if !trial.may_go_on() {
            return false;
        }
        candidate.seed = best.seed.wrapping_add(chance);
        if trial.breaks(&candidate).is_some() {
            *best = candidate;
            return true;
        }
    }
    false
}

/// Nothing is planned after the moment of the failure.
fn end_at(scenario: &mut Scenario, at_us: u64) {
    scenario.faults.retain(|fault| fault.at_us <= at_us);
    scenario.wishes.retain(|wish| wish.at_us <= at_us);
    scenario.world.faults_end_us = scenario.world.faults_end_us.min(at_us + 1);
    for client in &mut scenario.clients {
        let mut begins = 0;
        client.visits.retain(|visit: &Visit| {
            begins += visit.after_us;
            let keep = begins <= at_us;
            begins += visit.operations.iter().map(|one| one.after_us).sum::<u64>();
            keep
        });
    }
}

/// Delta debugging over one list of the scenario.
fn leave_out<T: Clone>(
    best: &mut Scenario,
    trial: &mut dyn Trial,
    list: impl Fn(&mut Scenario) -> &mut Vec<T>,
) {
    let mut size = list(best).len();
    while size > 0 {
        let mut first = 0;
        while first < list(best).len() {
            let left_out = try_it(best, trial, |candidate| {
                let list = list(candidate);
                let end = (first + size).min(list.len());
                list.drain(first..end);
            });
            if !trial.may_go_on() {
                return;
            }
            if !left_out {
                first += size;
            }
        }
        size /= 2;
    }
}

/// Volumes that no client uses any more, last ones first.
fn leave_volumes_out(best: &mut Scenario, trial: &mut dyn Trial) {
    for volume in (0..best.volumes.len()).rev() {
        let is_used = best.clients.iter().any(|client| client.volume == volume);
        if is_used || best.volumes.len() == 1 {
            continue;
        }
        try_it(best, trial, |candidate| {
            candidate.volumes.remove(volume);
            for client in &mut candidate.clients {
                client.volume -= usize::from(client.volume > volume);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Fault, Style};

    /// A rule that breaks exactly if there is a cut of the link and a flap.
    struct CutAndFlap(u64);

    impl Trial for CutAndFlap {
        fn breaks(&mut self, scenario: &Scenario) -> Option<u64> {
            self.0 += 1;
            let mut faults = scenario.faults.iter().map(|planned| planned.fault);
            let has_cut = faults
                .clone()
                .any(|fault| matches!(fault, Fault::Cut { .. }));
            (has_cut && faults.any(|fault| fault == Fault::Flap)).then_some(60_000_000)
        }

        fn may_go_on(&self) -> bool {
            self.0 < 10_000
        }
    }

    #[test]
    fn only_what_the_failure_needs_is_left() {
        let mut shrunk = 0;
        for seed in 0..40 {
            let scenario = Scenario::drawn(seed, Style::Swarm);
            let mut trial = CutAndFlap(0);
            if trial.breaks(&scenario).is_some() {
                let small = shrink(&scenario, &mut trial);
                assert_eq!(small.faults.len(), 2, "{:?}", small.faults);
                assert_eq!(small.length(), 2);
                assert_eq!(small.volumes.len(), 1);
                shrunk += 1;
            }
        }
        assert!(shrunk > 5, "{shrunk}");
    }
}

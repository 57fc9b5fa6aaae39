//! Which epochs ordered which records: what makes two logs comparable without looking at their records.
//!
//! A record is named by (epoch, seq), an epoch has one primary, and a primary orders each seq once. So two logs that agree on the
//! epoch of a seq agree on every record up to it (the log matching property of Ongaro and Ousterhout: "In Search of an
//! Understandable Consensus Algorithm", 2014, section 5.3), and the last record in common follows from the two histories alone.

use crate::ids::{Epoch, Seq};
use serde::{Deserialize, Serialize};

/// Epochs kept. Older ones are forgotten; replicas that have nothing newer in common are compared block by block.
pub const HISTORY_EPOCHS_MAX: usize = 512;

/// The first seq of each epoch that ordered at least one record, ascending in both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    starts: Vec<(Epoch, Seq)>,
    /// Whether older epochs than the first kept one have been forgotten.
    forgot: bool,
}

impl History {
    /// The history of a log that holds nothing.
    #[must_use]
    pub fn new() -> History {
        History::default()
    }

    /// Notes that `epoch` ordered `seq`, which follows everything noted before.
    pub fn note(&mut self, epoch: Epoch, seq: Seq) {
        match self.starts.last() {
            Some((last, _)) if *last == epoch => {}
            Some((last, first)) => {
                assert!(
                    *last < epoch && *first < seq,
                    "history goes forward: {last:?} from {first:?}, then {epoch:?} from {seq:?}"
                );
                self.starts.push((epoch, seq));
            }
            None => self.starts.push((epoch, seq)),
        }
        if self.starts.len() > HISTORY_EPOCHS_MAX {
            self.starts.remove(0);
            self.forgot = true;
        }
    }

    /// Whether `epoch` can have ordered `seq`, behind everything noted before. What comes from a disk or a peer is asked for it first.
    #[must_use]
    pub fn may_note(&self, epoch: Epoch, seq: Seq) -> bool {
        self.starts
            .last()
            .is_none_or(|(last, first)| *last == epoch || (*last < epoch && *first < seq))
    }

    /// Forgets what lies after `end`.
    pub fn cut(&mut self, end: Seq) {
        self.starts.retain(|(_, first)| *first <= end);
    }

    /// The epoch that ordered `seq`, if the history reaches back to it. `seq` must be in the log.
    #[must_use]
    pub fn epoch_of(&self, seq: Seq) -> Option<Epoch> {
        self.starts
            .iter()
            .rev()
            .find(|(_, first)| *first <= seq)
            .map(|(epoch, _)| *epoch)
    }

    /// The last seq that two logs, this one up to `end` and `other` up to `other_end`, have in common; none when the histories
    /// don't reach back far enough to tell.
    #[must_use]
    pub fn common(&self, end: Seq, other: &History, other_end: Seq) -> Option<Seq> {
        for (index, (epoch, first)) in self.starts.iter().enumerate().rev() {
            let Some(position) = other.starts.iter().position(|(theirs, _)| theirs == epoch) else {
                continue;
            };
            // An epoch's first seq is the same in all logs, unless one forgot older epochs and was cut there.
            let other_first = other.starts[position].1;
            let last = |starts: &[(Epoch, Seq)], at: usize, end: Seq| {
                starts.get(at + 1).map_or(end, |next| Seq(next.1.0 - 1))
            };
            let common =
                last(&self.starts, index, end).min(last(&other.starts, position, other_end));
            return (common >= (*first).max(other_first)).then_some(common);
        }
        if self.forgot || other.forgot {
            None
        } else {
            Some(Seq::ZERO)
        }
    }

    /// Whether what came from a peer is a history at all: ascending and bounded.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.starts.len() <= HISTORY_EPOCHS_MAX
            && self
                .starts
                .windows(2)
                .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u32) -> Epoch {
        Epoch {
            generation: 0,
            number,
        }
    }

    fn history(starts: &[(u32, u64)]) -> History {
        let mut history = History::new();
        for (number, seq) in starts {
            history.note(epoch(*number), Seq(*seq));
        }
        history
    }

    #[test]
    fn logs_have_in_common_what_the_last_shared_epoch_ordered_in_both() {
        let ours = history(&[(1, 1), (3, 10), (5, 20)]);
        assert_eq!(
            ours.common(Seq(25), &history(&[(1, 1), (3, 10)]), Seq(22)),
            Some(Seq(19))
        );
        assert_eq!(
            ours.common(Seq(25), &history(&[(1, 1), (3, 10)]), Seq(15)),
            Some(Seq(15))
        );
        assert_eq!(
            ours.common(Seq(25), &history(&[(1, 1), (4, 12)]), Seq(30)),
            Some(Seq(9))
        );
        assert_eq!(
            ours.common(Seq(25), &history(&[(2, 1)]), Seq(30)),
            Some(Seq(0))
        );
        assert_eq!(ours.common(Seq(25), &History::new(), Seq(0)), Some(Seq(0)));
    }

    #[test]
    fn a_history_that_forgot_its_beginning_says_so() {
        let mut long = History::new();
        for number in 1..=(HISTORY_EPOCHS_MAX as u32 + 1) {
            long.note(epoch(number), Seq(u64::from(number)));
        }
        assert_eq!(long.common(Seq(600), &history(&[(1, 1)]), Seq(1)), None);
        assert_eq!(
            long.common(Seq(600), &history(&[(1, 1), (2, 2)]), Seq(2)),
            Some(Seq(2))
        );
    }

    #[test]
    fn a_cut_history_ends_where_it_was_cut() {
        let mut ours = history(&[(1, 1), (3, 10), (5, 20)]);
        ours.cut(Seq(12));
        assert_eq!(ours, history(&[(1, 1), (3, 10)]));
        assert_eq!(ours.epoch_of(Seq(12)), Some(epoch(3)));
        assert_eq!(ours.epoch_of(Seq(9)), Some(epoch(1)));
    }
}

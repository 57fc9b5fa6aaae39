//! Which lines are written: of those that are alike, the first at once, then one a minute that says how many were left out.
//!
//! Lines are alike when the same place in the code says the same about the same volume and epoch, peer or other thing; numbers in the words don't count.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long lines like one that was written are left out.
pub const PERIOD: Duration = Duration::from_secs(60);
/// Kinds of lines that are told apart at a time. Any more are all alike.
const KINDS_MAX: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Kind {
    /// When one was written last.
    written: Instant,
    /// How many were left out since.
    left_out: u64,
}

/// What was written lately.
#[derive(Debug, Default)]
pub struct Limit {
    kinds: HashMap<u64, Kind>,
    /// All that there is no room for.
    crowd: Option<Kind>,
}

impl Limit {
    /// Whether a line of this kind is written: if so, how many like it were left out since the last one.
    pub fn admit(&mut self, kind: u64, now: Instant) -> Option<u64> {
        let is_over = |kind: &Kind| now.duration_since(kind.written) >= PERIOD;
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&kind) {
            self.kinds.retain(|_, kind| !is_over(kind));
        }
        let fresh = Kind {
            written: now,
            left_out: 0,
        };
        let known = if self.kinds.len() < KINDS_MAX || self.kinds.contains_key(&kind) {
            match self.kinds.get_mut(&kind) {
                Some(known) => known,
                None => {
                    self.kinds.insert(kind, fresh);
                    return Some(0);
                }
            }
        } else {
            match &mut self.crowd {
                Some(known) => known,
                crowd @ None => {
                    *crowd = Some(fresh);
                    return Some(0);
                }
            }
        };
        if !is_over(known) {
            known.left_out += 1;
            return None;
        }
        Some(std::mem::replace(known, fresh).left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_written_at_once_then_one_a_minute_with_a_count() {
        let (mut limit, begin) = (Limit::default(), Instant::now());
        let mut written = Vec::new();
        for second in 0..180 {
            let now = begin + Duration::from_secs(second);
            if let Some(left_out) = limit.admit(1, now) {
                written.push((second, left_out));
            }
        }
        assert_eq!(written, [(0, 0), (60, 59), (120, 59)]);
        let other = limit.admit(2, begin + Duration::from_secs(180));
        assert_eq!(other, Some(0), "another kind is not held up");
    }

    #[test]
    fn a_storm_of_many_kinds_takes_bounded_memory_and_few_lines() {
        let (mut limit, begin) = (Limit::default(), Instant::now());
        let written = (0..100_000).filter(|kind| limit.admit(*kind, begin).is_some());
        assert_eq!(written.count(), KINDS_MAX + 1);
        assert_eq!(limit.kinds.len(), KINDS_MAX);
        let later = begin + PERIOD;
        assert_eq!(limit.admit(200_000, later), Some(0), "there is room again");
        assert!(limit.kinds.len() < KINDS_MAX);
    }
}

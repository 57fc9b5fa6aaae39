//! What happened: a hash of everything, by which two runs of a seed are compared, and, where wanted, lines for people.

use crate::schedule::MILLISECOND;
use std::collections::VecDeque;

/// What becomes of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// They aren't even made.
    Off,
    /// The last ones are kept, so many.
    Last(usize),
    /// They are printed at once.
    Print,
}

/// The record of a run.
#[derive(Debug)]
pub struct Timeline {
    hash: u64,
    recording: Recording,
    lines: VecDeque<String>,
}

impl Timeline {
    /// An empty record.
    #[must_use]
    pub fn new(recording: Recording) -> Timeline {
        Timeline {
            hash: 0xcbf2_9ce4_8422_2325,
            recording,
            lines: VecDeque::new(),
        }
    }

    /// Takes a fact into the hash.
    pub fn mix(&mut self, fact: u64) {
        self.hash = (self.hash ^ fact)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }

    /// The hash of all facts so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Notes a line for people, at true time `now`, about what `who` did or met.
    pub fn note(&mut self, now: u64, who: &str, line: impl FnOnce() -> String) {
        if self.recording == Recording::Off {
            return;
        }
        let (whole, part) = (now / MILLISECOND, now % MILLISECOND / 1000);
        let line = format!("{whole:>7}.{part:03} ms  {who:>8}  {}", line());
        match self.recording {
            Recording::Off => {}
            Recording::Print => println!("{line}"),
            Recording::Last(count) => {
                self.lines.push_back(line);
                if self.lines.len() > count {
                    self.lines.pop_front();
                }
            }
        }
    }

    /// The last lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}

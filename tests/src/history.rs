//! What was written and acknowledged, and so what a sector may hold.
//!
//! The rule is that of a linearizable register for each sector: a write takes effect at one moment between its begin and its
//! acknowledgement; one that was never acknowledged takes effect at any later moment or never; and what a read has returned stays.
//! So a sector may hold a write unless another one that was acknowledged had begun after the first one's end. Nothing is promised
//! about several sectors of one write that was not acknowledged: a part of it may be there.

use crate::stamp::Seen;
use std::collections::BTreeMap;

/// A write's number within its history.
pub type WriteNumber = u64;

/// What a write leaves in its sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its stamp.
    Stamps,
    /// Zeros.
    Zeros,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    first_sector: u64,
    sectors: u64,
    content: Content,
    begun: u64,
    /// When it was acknowledged; none while it is in doubt.
    ended: Option<u64>,
}

/// A volume's writes by one test.
#[derive(Debug)]
pub struct History {
    id: u64,
    clock: u64,
    writes: Vec<Write>,
    /// A sector that is missing was never written: it is empty.
    sectors: BTreeMap<u64, Sector>,
}

#[derive(Debug)]
struct Sector {
    /// What it held when nothing was under way last.
    settled: Seen,
    /// The writes since then that may show.
    writes: Vec<WriteNumber>,
}

impl History {
    /// The history of an empty volume; `id` goes into every sector.
    #[must_use]
    pub fn new(id: u64) -> History {
        History {
            id,
            clock: 0,
            writes: Vec::new(),
            sectors: BTreeMap::new(),
        }
    }

    /// What goes into every sector.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How many writes were begun.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.writes.len() as u64
    }

    /// How many writes were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.writes
            .iter()
            .filter(|write| write.ended.is_some())
            .count() as u64
    }

    /// A write begins: to be said before its first byte is sent.
    pub fn begin(&mut self, first_sector: u64, sectors: u64, content: Content) -> WriteNumber {
        self.clock += 1;
        let number = self.writes.len() as WriteNumber;
        self.writes.push(Write {
            first_sector,
            sectors,
            content,
            begun: self.clock,
            ended: None,
        });
        for sector in first_sector..first_sector + sectors {
            let fresh = || Sector {
                settled: Seen::Empty,
                writes: Vec::new(),
            };
            self.sectors
                .entry(sector)
                .or_insert_with(fresh)
                .writes
                .push(number);
        }
        number
    }

    /// A write was acknowledged: to be said after its reply was received.
    ///
    /// # Panics
    /// When it was acknowledged before.
    pub fn acknowledge(&mut self, number: WriteNumber) {
        self.clock += 1;
        let clock = self.clock;
        let write = self.write_mut(number);
        assert!(
            write.ended.is_none(),
            "write {number} was acknowledged twice"
        );
        write.ended = Some(clock);
        let Write {
            first_sector,
            sectors,
            begun,
            ..
        } = *write;
        for sector in first_sector..first_sector + sectors {
            let writes = &self.writes;
            if let Some(sector) = self.sectors.get_mut(&sector) {
                sector.writes.retain(|other| {
                    writes[*other as usize]
                        .ended
                        .is_none_or(|ended| ended >= begun)
                });
            }
        }
    }

    /// Whether a read that began and ended with no write under way may see this in that sector.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, sector: u64, seen: Seen) -> Result<(), String> {
        let possible = self.possible(sector);
        if possible.contains(&seen) {
            return Ok(());
        }
        let kind = match seen {
            Seen::Empty => "an acknowledged write is lost",
            Seen::Write(_) => "an acknowledged write is lost, an older one shows",
            Seen::Foreign { .. } => "it belongs elsewhere",
            Seen::Torn => "it is torn",
        };
        Err(format!(
            "sector {sector} holds {seen:?}, may hold {possible:?}: {kind}"
        ))
    }

    /// After a check: what was seen stays, and what was not seen can no longer come.
    pub fn settle(&mut self, sector: u64, seen: Seen) {
        match seen {
            Seen::Empty => _ = self.sectors.remove(&sector),
            Seen::Write(_) | Seen::Foreign { .. } | Seen::Torn => {
                _ = self.sectors.insert(
                    sector,
                    Sector {
                        settled: seen,
                        writes: Vec::new(),
                    },
                );
            }
        }
    }

    /// What may show in that sector.
    fn possible(&self, sector: u64) -> Vec<Seen> {
        let Some(Sector { settled, writes }) = self.sectors.get(&sector) else {
            return vec![Seen::Empty];
        };
        let write = |number: &WriteNumber| &self.writes[*number as usize];
        // The begin of the acknowledged write that began last: whatever had ended by then is overwritten.
        let begun = writes
            .iter()
            .filter(|number| write(number).ended.is_some())
            .map(|number| write(number).begun)
            .max();
        let overwritten = |ended: u64| begun.is_some_and(|begun| ended < begun);
        let shows = writes
            .iter()
            .filter(|number| write(number).ended.is_none_or(|ended| !overwritten(ended)));
        let shown = shows.map(|number| match write(number).content {
            Content::Stamps => Seen::Write(*number),
            Content::Zeros => Seen::Empty,
        });
        shown.chain(begun.is_none().then_some(*settled)).collect()
    }

    fn write_mut(&mut self, number: WriteNumber) -> &mut Write {
        &mut self.writes[number as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_write_must_be_there() {
        let mut history = History::new(1);
        let first = history.begin(8, 2, Content::Stamps);
        assert!(
            history.check(8, Seen::Empty).is_ok(),
            "it may not have happened yet"
        );
        assert!(
            history.check(8, Seen::Write(first)).is_ok(),
            "it may have happened already"
        );
        history.acknowledge(first);
        assert!(
            history.check(8, Seen::Empty).is_err(),
            "it was acknowledged"
        );
        assert!(history.check(9, Seen::Write(first)).is_ok());
        assert!(
            history.check(10, Seen::Write(first)).is_err(),
            "it does not reach there"
        );
        assert!(history.check(10, Seen::Empty).is_ok());
        assert!(history.check(8, Seen::Torn).is_err());
    }

    #[test]
    fn a_later_write_that_was_acknowledged_hides_an_earlier_one() {
        let mut history = History::new(1);
        let first = history.begin(0, 1, Content::Stamps);
        history.acknowledge(first);
        let second = history.begin(0, 1, Content::Stamps);
        assert!(history.check(0, Seen::Write(first)).is_ok());
        history.acknowledge(second);
        assert!(history.check(0, Seen::Write(first)).is_err());
        assert!(history.check(0, Seen::Write(second)).is_ok());
    }

    #[test]
    fn of_writes_at_the_same_time_either_may_be_the_last() {
        let mut history = History::new(1);
        let first = history.begin(0, 1, Content::Stamps);
        let second = history.begin(0, 1, Content::Zeros);
        history.acknowledge(second);
        history.acknowledge(first);
        assert!(history.check(0, Seen::Write(first)).is_ok());
        assert!(history.check(0, Seen::Empty).is_ok());
    }

    #[test]
    fn what_was_read_stays_and_what_was_not_read_never_comes() {
        let mut history = History::new(1);
        let first = history.begin(0, 2, Content::Stamps);
        history.settle(0, Seen::Write(first));
        assert!(
            history.check(1, Seen::Empty).is_ok(),
            "a part of what was not acknowledged may be there"
        );
        history.settle(1, Seen::Empty);
        assert!(history.check(0, Seen::Empty).is_err());
        assert!(history.check(1, Seen::Write(first)).is_err());
    }
}

//! A replica's log: which write stands at which position, ordered under which epoch, and how far it is durable and committed.

/// Positions that a log has room for. Bounds on writes keep within it.
pub const POSITIONS: usize = 4;

/// A log. Positions count from 1; 0 is before any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The epoch that ordered each position; 0 after `end`.
    epochs: [u8; POSITIONS],
    /// The write at each position; 0 after `end`, and up to `base`.
    ids: [u8; POSITIONS],
    /// Up to here the content came by copying: the records themselves are not held.
    pub base: u8,
    /// Up to here this replica knows it as committed, and has applied it.
    pub committed: u8,
    /// Up to here a crash loses nothing.
    pub durable: u8,
    /// The last position.
    pub end: u8,
}

impl Log {
    /// Puts a write at the end. Returns its position.
    pub fn append(&mut self, epoch: u8, id: u8) -> u8 {
        self.epochs[usize::from(self.end)] = epoch;
        self.ids[usize::from(self.end)] = id;
        self.end += 1;
        self.end
    }

    /// Whether one more position fits.
    #[must_use]
    pub fn has_room(&self) -> bool {
        usize::from(self.end) < POSITIONS
    }

    /// The epoch that ordered `position`, which must be in the log.
    #[must_use]
    pub fn epoch(&self, position: u8) -> u8 {
        self.epochs[usize::from(position) - 1]
    }

    /// The write at `position`, 0 where it is not held.
    #[must_use]
    pub fn id(&self, position: u8) -> u8 {
        self.ids[usize::from(position) - 1]
    }

    /// Whether `id` stands at `position`, or came there by copying.
    #[must_use]
    pub fn holds(&self, position: u8, id: u8) -> bool {
        position <= self.base || (position <= self.end && self.id(position) == id)
    }

    /// Drops what lies after `to`.
    pub fn cut(&mut self, to: u8) {
        while self.end > to {
            self.end -= 1;
            self.epochs[usize::from(self.end)] = 0;
            self.ids[usize::from(self.end)] = 0;
        }
        self.durable = self.durable.min(to);
        self.committed = self.committed.min(to);
    }

    /// Takes the place of another log at `start`.
    #[must_use]
    pub fn rebased(other: &Log, start: u8) -> Log {
        let mut log = *other;
        log.cut(start);
        log.ids = [0; POSITIONS];
        log.base = start;
        log.committed = start;
        log.durable = start;
        log
    }

    /// The last position that both logs have in common, by the epochs alone, as `engine/src/history.rs` finds it; none when the
    /// histories contradict each other.
    #[must_use]
    pub fn common(&self, other: &Log) -> Option<u8> {
        let mut last = self.end;
        while last > 0 {
            let epoch = self.epoch(last);
            let first = (1..=last)
                .find(|position| self.epoch(*position) == epoch)
                .unwrap_or(last);
            let mut theirs = (1..=other.end).filter(|position| other.epoch(*position) == epoch);
            if let Some(their_first) = theirs.next() {
                let common = last.min(theirs.next_back().unwrap_or(their_first));
                return (common >= first.max(their_first)).then_some(common);
            }
            last = first - 1;
        }
        Some(0)
    }

    /// The parts that make two logs different, for hashing.
    pub(crate) fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epochs);
        for pair in self.ids.chunks_exact(2) {
            out.push(pair[0] | pair[1] << 4);
        }
        out.push(self.base | self.committed << 4);
        out.push(self.durable | self.end << 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(epochs: &[u8]) -> Log {
        let mut log = Log::default();
        for (epoch, id) in epochs.iter().zip(1..) {
            log.append(*epoch, id);
        }
        log
    }

    #[test]
    fn logs_have_in_common_what_the_last_shared_epoch_ordered_in_both() {
        assert_eq!(log(&[1, 1, 3]).common(&log(&[1, 1, 1])), Some(2));
        assert_eq!(log(&[1, 1]).common(&log(&[1, 2, 2])), Some(1));
        assert_eq!(log(&[1]).common(&log(&[2])), Some(0));
        assert_eq!(log(&[1, 1]).common(&log(&[1, 1])), Some(2));
    }

    #[test]
    fn a_rebased_log_keeps_the_history_and_no_records() {
        let rebased = Log::rebased(&log(&[1, 1, 3]), 2);
        assert_eq!(
            (rebased.end, rebased.base, rebased.epoch(2), rebased.id(2)),
            (2, 2, 1, 0)
        );
    }
}

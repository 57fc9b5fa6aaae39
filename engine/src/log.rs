//! A replica's log: how far it reaches, how far it is held and durable here, how far it is committed, and the entries in doubt between.

use crate::blocks::BlockRange;
use crate::history::History;
use crate::ids::{Position, Seq};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What a record does to its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordKind {
    /// Gives them new content.
    Write,
    /// Makes them read as zeroes (trim, write-zeroes).
    Clear,
}

/// A record without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name: epoch and place in the order.
    pub position: Position,
    /// What it does.
    pub kind: RecordKind,
    /// To which blocks.
    pub range: BlockRange,
}

/// Counts what a replica has handed to its journal; rises by one with each record, so "durable up to" is one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// The log of one replica. Entries up to `committed` live in the extents; those after it only in the journal and here.
#[derive(Clone, Debug, Default)]
pub struct Log {
    history: History,
    end: Seq,
    committed: Seq,
    /// Entries `committed + 1 ..= end`, with the token that makes each durable.
    tail: VecDeque<(Entry, Token)>,
    /// Every entry up to here is durable in this replica's journal.
    durable: Seq,
    /// Every entry up to here is in the kernel's hands: the end of this process leaves it. At least `durable`.
    held: Seq,
}

impl Log {
    /// The log that a recovery found: committed up to `committed`, and then `tail`, all of it durable.
    #[must_use]
    pub fn recovered(
        history: History,
        committed: Seq,
        tail: impl IntoIterator<Item = Entry>,
    ) -> Log {
        // The entries of the tail note their epochs themselves.
        let mut history = history;
        history.cut(committed);
        let mut log = Log {
            history,
            end: committed,
            committed,
            tail: VecDeque::new(),
            durable: committed,
            held: committed,
        };
        for entry in tail {
            log.append(entry, Token::default());
        }
        log.durable = log.end;
        log.held = log.end;
        log
    }

    /// Puts an entry at the end.
    ///
    /// # Panics
    /// When it does not follow the last one.
    pub fn append(&mut self, entry: Entry, token: Token) {
        assert_eq!(
            entry.position.seq,
            self.end.next(),
            "records are appended in order"
        );
        self.history.note(entry.position.epoch, entry.position.seq);
        self.end = entry.position.seq;
        self.tail.push_back((entry, token));
    }

    /// Everything handed over up to `token` is durable now.
    pub fn persisted(&mut self, token: Token) {
        self.durable = self.reached(self.durable, token);
        self.held = self.held.max(self.durable);
    }

    /// The kernel has everything handed over up to `token` now.
    pub fn holds(&mut self, token: Token) {
        self.held = self.reached(self.held, token);
    }

    /// The last entry behind `after` that was handed over with `token` or before.
    fn reached(&self, after: Seq, token: Token) -> Seq {
        let from = usize::try_from(after.0.saturating_sub(self.committed.0)).unwrap_or(usize::MAX);
        let handed_over = self.tail.iter().skip(from);
        let reached = handed_over.take_while(|(_, theirs)| *theirs <= token);
        reached
            .last()
            .map_or(after, |(entry, _)| entry.position.seq)
    }

    /// Everything up to `seq` is committed. Returns how many entries became so.
    ///
    /// # Panics
    /// When `seq` is not durable here: committed means durable at every member.
    pub fn commit(&mut self, seq: Seq) -> usize {
        assert!(
            seq <= self.durable,
            "committed {seq:?} must be durable, which is only {:?}",
            self.durable
        );
        let mut count = 0;
        while self.committed < seq {
            let (entry, _) = self
                .tail
                .pop_front()
                .expect("entries after committed are in the tail");
            self.committed = entry.position.seq;
            count += 1;
        }
        count
    }

    /// Drops every entry after `seq`.
    ///
    /// # Panics
    /// When `seq` is before the committed position: what is committed is never undone.
    pub fn cut(&mut self, seq: Seq) {
        assert!(
            seq >= self.committed,
            "cut at {seq:?}, committed {:?}",
            self.committed
        );
        while self.end > seq {
            self.tail.pop_back();
            self.end = Seq(self.end.0 - 1);
        }
        self.durable = self.durable.min(seq);
        self.held = self.held.min(seq);
        self.history.cut(seq);
    }

    /// Takes over another log's place: everything up to `end` comes by copying, so nothing is in doubt.
    pub fn rebase(&mut self, history: History, end: Seq) {
        *self = Log {
            history,
            end,
            committed: end,
            tail: VecDeque::new(),
            durable: end,
            held: end,
        };
        self.history.cut(end);
    }

    /// The last entry's seq.
    #[must_use]
    pub fn end(&self) -> Seq {
        self.end
    }

    /// The last committed seq that this replica knows of.
    #[must_use]
    pub fn committed(&self) -> Seq {
        self.committed
    }

    /// The last seq that is durable in this replica's journal.
    #[must_use]
    pub fn durable(&self) -> Seq {
        self.durable
    }

    /// The last seq that this replica's kernel has.
    #[must_use]
    pub fn held(&self) -> Seq {
        self.held
    }

    /// Which epochs ordered what.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The entries after the committed position, in order.
    pub fn tail(&self) -> impl Iterator<Item = &Entry> {
        self.tail.iter().map(|(entry, _)| entry)
    }

    /// The entry at `seq`, if it is in the tail.
    #[must_use]
    pub fn entry(&self, seq: Seq) -> Option<&Entry> {
        let index = seq.0.checked_sub(self.committed.0 + 1)?;
        self.tail
            .get(usize::try_from(index).ok()?)
            .map(|(entry, _)| entry)
    }
}

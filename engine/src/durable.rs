//! What a replica finds again after a crash: rebuilt from its last checkpoint and the journal behind it.

use crate::configuration::Configuration;
use crate::effect::Change;
use crate::history::History;
use crate::ids::Seq;
use crate::log::Entry;
use serde::{Deserialize, Serialize};

/// The durable state of one replica's engine. A checkpoint keeps it; recovery replays entries and changes onto it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// The newest configuration that it has taken.
    pub configuration: Configuration,
    /// Which epochs ordered its log.
    pub history: History,
    /// How far it knows its log as committed.
    pub committed: Seq,
    /// Entries after `committed`. Not part of a checkpoint: they are carried forward in the journal.
    #[serde(skip)]
    pub tail: Vec<Entry>,
    /// Whether its extents hold everything committed: false while it copies.
    pub whole: bool,
}

impl Durable {
    /// A new, empty replica: whole, as every replica of a new volume is.
    #[must_use]
    pub fn new() -> Durable {
        Durable {
            whole: true,
            ..Durable::default()
        }
    }

    /// The last entry's seq.
    #[must_use]
    pub fn end(&self) -> Seq {
        Seq(self.committed.0 + self.tail.len() as u64)
    }

    /// A journalled entry, with the committed position that its holder knew then. Entries that the log has already (carried
    /// forward, or older than the checkpoint) are passed over. Returns whether it was new.
    ///
    /// # Errors
    /// When it neither is in the log nor follows it: a record is missing, or its epoch went back.
    pub fn replay_entry(&mut self, entry: Entry) -> Result<bool, String> {
        let seq = entry.position.seq;
        if seq <= self.end() {
            return Ok(false);
        }
        if self.end().0.checked_add(1) != Some(seq.0) {
            return Err(format!(
                "record {} follows {} in the journal: records between are missing",
                entry.position,
                self.end()
            ));
        }
        if !self.history.may_note(entry.position.epoch, seq) {
            return Err(format!(
                "record {} follows one of a later epoch in the journal",
                entry.position
            ));
        }
        self.history.note(entry.position.epoch, seq);
        self.tail.push(entry);
        Ok(true)
    }

    /// Entries up to `seq` are known as committed. Returns those that became so, in order.
    pub fn replay_committed(&mut self, seq: Seq) -> Vec<Entry> {
        let count = usize::try_from(seq.0.saturating_sub(self.committed.0))
            .unwrap_or(usize::MAX)
            .min(self.tail.len());
        let applied: Vec<Entry> = self.tail.drain(..count).collect();
        self.committed = Seq(self.committed.0 + applied.len() as u64);
        applied
    }

    /// A journalled change.
    pub fn replay_change(&mut self, change: &Change) {
        match change {
            Change::Adopt { configuration, .. } => {
                if configuration.epoch >= self.configuration.epoch {
                    self.configuration = configuration.clone();
                }
            }
            Change::Rewind { to } => {
                if *to < self.end() && *to >= self.committed {
                    self.tail
                        .truncate(usize::try_from(to.0 - self.committed.0).unwrap_or(usize::MAX));
                    self.history.cut(*to);
                }
            }
            Change::Rebase { history, end, .. } => {
                self.tail.clear();
                self.history = history.clone();
                self.history.cut(*end);
                self.committed = *end;
                self.whole = false;
            }
            Change::Whole => self.whole = true,
        }
    }
}

//! Groups that are written and not durable yet, and the syncs that make them so.
//!
//! Recovery stops at the first group that is missing, so a group is durable only together with all before it. As long as none before
//! it waits for a sync, a group that has to be durable is one durable write. Else it is written like those, and then every segment file that
//! holds one of them is synced; only then `durable` moves on, and with it the head that these groups name.
//!
//! They lie in the last two segments at most ([`Journal::may_leave_behind`]): so recovery, which does not look into files that were
//! never used, finds them all.

use crate::disk::{Disk, DiskOp, Done, OpId};
use crate::error::JournalError;
use crate::journal::Journal;
use crate::layout::Lsn;
use std::collections::{BTreeSet, VecDeque};
use std::io;

/// A group that is written and not durable.
#[derive(Debug)]
pub(crate) struct Unsynced {
    /// Its last record.
    pub last: Lsn,
    /// The use of the segment that it lies in.
    pub sequence: u64,
    /// The head that it names.
    pub head_sequence: u64,
    /// Whether it carries only what is durable and needed.
    pub mark: bool,
}

/// What is written and not durable, and who waits for that.
#[derive(Debug, Default)]
pub(crate) struct Syncing {
    groups: VecDeque<Unsynced>,
    /// Positions up to which somebody wants everything to be durable, ascending.
    wanted: VecDeque<Lsn>,
    /// The syncs under way, one for each file.
    running: BTreeSet<OpId>,
    /// How many of the groups they cover.
    covered: usize,
}

impl Syncing {
    /// Whether every group that is written is durable.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub fn holds_mark(&self) -> bool {
        self.groups.iter().any(|group| group.mark)
    }

    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    pub fn is_sync(&self, id: OpId) -> bool {
        self.running.contains(&id)
    }

    /// A group was written.
    pub fn note(&mut self, group: Unsynced) {
        self.groups.push_back(group);
    }

    /// Everything up to here is to be durable soon.
    pub fn want(&mut self, last: Lsn) {
        if self.wanted.back().is_none_or(|wanted| *wanted < last) {
            self.wanted.push_back(last);
        }
    }

    /// Everything up to here is durable.
    pub fn reached(&mut self, durable: Lsn) {
        while self.wanted.front().is_some_and(|wanted| *wanted <= durable) {
            self.wanted.pop_front();
        }
    }
}

impl Journal {
    /// Makes everything appended so far durable; where it is, nothing is done. See [`Journal::durable`].
    pub fn sync(&mut self) {
        match self.pending.back_mut() {
            Some(group) => group.durable = true,
            None => {
                let last = Lsn(self.next.0 - 1);
                // What is on its way to be durable by itself needs nothing.
                if !self.syncing.is_empty() || self.in_flight.iter().any(|write| !write.durable) {
                    self.syncing.want(last);
                }
            }
        }
    }

    /// Whether a group may be written into segment `sequence`: none before the segment before it waits for a sync. If one does, it is
    /// wanted now.
    pub(crate) fn may_leave_behind(&mut self, sequence: u64) -> bool {
        let before = |theirs: u64| theirs + 1 < sequence;
        let written = self.syncing.groups.front();
        let is_behind = written.is_some_and(|group| before(group.sequence));
        let will_be = |write: &crate::journal::InFlight| !write.durable && before(write.sequence);
        if !self.syncing.is_empty() {
            // A segment is full: what it holds is made durable before the next one is.
            self.syncing.want(self.written);
        }
        !is_behind && !self.in_flight.iter().any(will_be)
    }

    /// Begins a sync of everything written, if one is due and none is running.
    pub(crate) fn start_sync<D: Disk>(&mut self, disk: &mut D) {
        let is_due = self
            .syncing
            .wanted
            .front()
            .is_some_and(|wanted| *wanted <= self.written)
            || self.syncing.holds_mark();
        if self.failed || !is_due || self.syncing.is_running() || self.syncing.is_empty() {
            return;
        }
        let sequences: BTreeSet<u64> = self
            .syncing
            .groups
            .iter()
            .map(|group| group.sequence)
            .collect();
        let ids: Vec<(OpId, u64)> = sequences
            .iter()
            .map(|sequence| (self.ids.next_id(), *sequence))
            .collect();
        for (id, sequence) in ids {
            let file = self.files[self.shape.file_of(sequence) as usize];
            if disk.submit(id, DiskOp::Sync { file }).is_err() {
                // With what has begun, nothing is covered: all of it again at the next step.
                self.syncing.covered = 0;
                return;
            }
            self.syncing.running.insert(id);
        }
        self.syncing.covered = self.syncing.groups.len();
    }

    /// A sync has completed. The groups are durable when those of all their files have.
    pub(crate) fn on_synced(
        &mut self,
        id: OpId,
        result: io::Result<Done>,
    ) -> Result<(), JournalError> {
        self.syncing.running.remove(&id);
        if let Err(source) = result {
            self.failed = true;
            return Err(JournalError::WriteFailed {
                first: self.durable.next(),
                last: self.written,
                source,
            });
        }
        if self.failed || self.syncing.is_running() {
            return Ok(());
        }
        let covered = std::mem::take(&mut self.syncing.covered);
        for group in self.syncing.groups.drain(..covered).collect::<Vec<_>>() {
            self.is_durable(group.last, group.head_sequence);
        }
        self.segments.free(self.durable);
        Ok(())
    }
}

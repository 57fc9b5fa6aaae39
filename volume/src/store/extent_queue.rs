//! [`ExtentQueue`]: the operations on one extent, in the order of their submission. A part waits for every earlier part
//! that it conflicts with; others overtake it.

use super::block_set::BlockSet;
use std::collections::VecDeque;

/// How many waiting parts are looked at for one that may start. Later ones wait, which is always right.
const WINDOW: usize = 64;

/// What a part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKind {
    Read,
    Status,
    Write,
    Clear,
}

impl PartKind {
    fn changes(self) -> bool {
        match self {
            PartKind::Read | PartKind::Status => false,
            PartKind::Write | PartKind::Clear => true,
        }
    }
}

/// What a request does within one extent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// The request.
    pub(super) ticket: u64,
    pub(super) kind: PartKind,
    /// Position in the extent.
    pub(super) first: u64,
    pub(super) count: u64,
}

impl Part {
    pub(super) fn blocks(&self) -> BlockSet {
        BlockSet::range(self.first, self.count)
    }
}

/// The parts on one extent.
#[derive(Debug, Default)]
pub(super) struct ExtentQueue {
    /// In the order of submission.
    waiting: VecDeque<Part>,
    /// Started, not completed.
    running: Vec<Part>,
    /// The extent's header is being read.
    pub(super) loading: bool,
    /// The extent is on the list of those to look at.
    pub(super) listed: bool,
}

impl ExtentQueue {
    pub(super) fn push(&mut self, part: Part) {
        self.waiting.push_back(part);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && !self.loading
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a read waits for a change that runs.
    pub(super) fn holds_up_a_read(&self) -> bool {
        self.running.iter().any(|part| part.kind.changes())
            && self
                .waiting
                .iter()
                .take(WINDOW)
                .any(|part| !part.kind.changes())
    }

    /// The first waiting part, when nothing runs.
    pub(super) fn front_alone(&self) -> Option<&Part> {
        if self.running.is_empty() {
            self.waiting.front()
        } else {
            None
        }
    }

    /// Whether a write is on its way to the extent's slot.
    pub(super) fn is_writing(&self) -> bool {
        self.running.iter().any(|part| part.kind == PartKind::Write)
    }

    /// Moves the parts that may start now to the running ones, and returns them.
    pub(super) fn start(&mut self) -> Vec<Part> {
        let mut read = BlockSet::EMPTY;
        let mut changed = BlockSet::EMPTY;
        for part in &self.running {
            let busy = if part.kind.changes() {
                &mut changed
            } else {
                &mut read
            };
            *busy = busy.or(part.blocks());
        }
        let mut started = Vec::new();
        let mut at = 0;
        while at < self.waiting.len().min(WINDOW) {
            let part = self.waiting[at];
            let blocks = part.blocks();
            let conflicts =
                blocks.intersects(changed) || part.kind.changes() && blocks.intersects(read);
            let busy = if part.kind.changes() {
                &mut changed
            } else {
                &mut read
            };
            *busy = busy.or(blocks);
            if conflicts {
                at += 1;
            } else {
                self.waiting.remove(at);
                self.running.push(part);
                started.push(part);
            }
        }
        started
    }

    /// A running part is over.
    pub(super) fn complete(&mut self, ticket: u64) -> Part {
        let at = self.running.iter().position(|part| part.ticket == ticket);
        self.running
            .swap_remove(at.expect("a part completes once, after it started"))
    }

    /// Takes all waiting parts away: the header can't be read.
    pub(super) fn give_up_waiting(&mut self) -> VecDeque<Part> {
        std::mem::take(&mut self.waiting)
    }
}

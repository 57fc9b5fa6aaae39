//! When the disk does not let the replica take part: committed records that wait to be applied, and the ways back.
//!
//! ```text
//!            no space ──▶ Full ──── all applied, some slots reserved ──▶ able
//!  able ──── EIO, read-only, journal ──▶ Failing ──── the process starts anew
//!            records lost (marked) ──▶ Lost ──── outside of the set ──▶ forgotten ──▶ checkpoint ──▶ mark removed ──▶ able
//! ```
//!
//! A committed record is kept until it and all before it are in the extents. What failed is tried again from the first failure on, in order, so
//! that nothing older lands on something newer; and no checkpoint is made while something is missing, or a restart would count it as applied.

use super::{Context, Mirror};
use crate::status::FaultKind;
use crate::wire::Payload;
use isthmus_engine::{Effects, Entry, RecordKind, Time, VolumeId};
use isthmus_journal::Disk;
use isthmus_mutation::Mutation;
use isthmus_volume::{RegionMap, StoreOp};
use std::io;
use std::time::Duration;

/// How soon a full replica tries again; longer, up to the second, when it was full again soon after it had found space.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(32);
/// How soon is soon.
const SOON: Duration = Duration::from_secs(60);
/// Slots that a replica must get to be able again, beyond what it needs: so that it is not full again at once.
pub(super) const SLOTS_AGAIN: u32 = 4;

/// The file that says: records of this replica were lost.
pub(crate) fn mark_of(folder: &str) -> String {
    format!("{folder}/lost")
}

/// Why the replica can't take part.
#[derive(Debug)]
pub(super) struct Fault {
    pub kind: FaultKind,
    pub reason: String,
    pub since: Time,
    next_try: Time,
    way_back: WayBack,
}

/// How long to wait before trying again.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    able_since: Option<Time>,
    wait: Duration,
}

impl Backoff {
    fn begin(&mut self, now: Time) -> Duration {
        let soon = self.able_since.is_some_and(|since| now.since(since) < SOON);
        self.wait = if soon {
            (self.wait * 2).clamp(AGAIN, AGAIN_MAX)
        } else {
            AGAIN
        };
        self.wait
    }
}

/// How far a replica that lost its records is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WayBack {
    /// It waits until the set is without it.
    Waiting,
    /// What it is now has to be made durable.
    Forgotten,
    /// It is; the mark has to go.
    Durable,
}

/// A committed record on its way into the extents.
#[derive(Debug)]
pub(super) struct Applying {
    op: StoreOp,
    pub entry: Entry,
    payload: Payload,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Submitted,
    Applied,
    Failed,
}

/// What kind of fault an error of the disk is.
pub(super) fn kind_of(error: &io::Error) -> FaultKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FaultKind::Full,
        _ => FaultKind::Failing,
    }
}

impl<R> Mirror<R> {
    /// The disk does not let this replica take part.
    pub fn fail(&mut self, context: &mut Context<'_, R>, kind: FaultKind, reason: String) {
        if let Some(fault) = &mut self.fault {
            // From bad to worse only.
            if fault.kind == FaultKind::Full && kind == FaultKind::Failing {
                fault.kind = kind;
                fault.reason.clone_from(&reason);
            }
            return;
        }
        context
            .outputs
            .events
            .push((self.volume, format!("UNABLE: {reason}")));
        self.fault = Some(Fault {
            kind,
            reason: reason.clone(),
            since: context.now,
            next_try: context.now + self.backoff.begin(context.now),
            way_back: WayBack::Waiting,
        });
        // Nothing is taken from its peers any more: what waited goes nowhere. Neither does what waits to go out: it tells of records that
        // may never be durable here, and what is said now must not wait behind it.
        self.deferred.clear();
        self.held.clear();
        self.with_engine(context, |engine, now, effects| {
            engine.become_unable(now, reason, effects)
        });
        self.fail_waiting(context);
    }

    /// This replica was opened with the mark that records of it were lost.
    pub(super) fn begin_lost(&mut self, now: Time, events: &mut Vec<(VolumeId, String)>) {
        let reason = "records of this replica were lost with the journal: it comes back by itself, compared whole, once the in-sync set is without it; if it is the only one in the set, what it lost can't be made good";
        events.push((self.volume, format!("UNABLE: {reason}")));
        self.fault = Some(Fault {
            kind: FaultKind::Lost,
            reason: reason.into(),
            since: now,
            next_try: now,
            way_back: WayBack::Waiting,
        });
        let mut effects = Effects::new();
        self.engine.become_unable(now, reason.into(), &mut effects);
        assert!(
            effects.is_empty(),
            "a replica that just started has no role"
        );
    }

    /// When to look at the fault next.
    pub(super) fn next_look_at_fault(&self) -> Option<Time> {
        let fault = self.fault.as_ref()?;
        (fault.kind != FaultKind::Failing).then_some(fault.next_try)
    }

    /// Tries to be able again. To be called with the disk, when [`Mirror::next_look_at_fault`] is over.
    pub(super) fn look_at_fault<D: Disk>(&mut self, context: &mut Context<'_, R>, disk: &mut D) {
        let due = self
            .next_look_at_fault()
            .is_some_and(|due| due <= context.now);
        let Some(fault) = self.fault.as_mut().filter(|_| due) else {
            return;
        };
        fault.next_try = context.now + self.backoff.wait.max(AGAIN);
        if fault.kind == FaultKind::Lost {
            self.look_at_lost(context, disk);
        } else if self.misses_records() {
            self.apply_again();
        } else if self.applying.is_empty() {
            let slots = self.slots_needed(&[]) + SLOTS_AGAIN;
            if self.store.reserve(slots, disk).is_ok() {
                self.become_able(context);
            }
        }
    }

    fn become_able(&mut self, context: &mut Context<'_, R>) {
        let mut able = false;
        self.with_engine(context, |engine, now, effects| {
            able = engine.become_able(now, effects);
        });
        if able && self.fault.take().is_some() {
            self.backoff.able_since = Some(context.now);
            self.space.found();
            context.outputs.events.push((
                self.volume,
                "ABLE: the disk lets this replica take part again".into(),
            ));
            self.tell_wanted(context);
        }
    }

    fn look_at_lost<D: Disk>(&mut self, context: &mut Context<'_, R>, disk: &mut D) {
        let Some(fault) = &mut self.fault else { return };
        match fault.way_back {
            WayBack::Waiting => {
                let submitted = |applying: &Applying| applying.progress == Progress::Submitted;
                if self.engine.is_outside()
                    && !self.checkpoint.is_running()
                    && !self.applying.iter().any(submitted)
                {
                    fault.way_back = WayBack::Forgotten;
                    self.forget();
                    self.want_checkpoint();
                }
            }
            WayBack::Forgotten => self.want_checkpoint(),
            WayBack::Durable => {
                let mark = mark_of(&crate::host::folder(self.volume));
                if disk.remove(&mark).is_ok() {
                    self.become_able(context);
                }
            }
        }
    }

    /// Whatever this replica holds may be old: everything is to be compared.
    fn forget(&mut self) {
        self.engine.forget();
        self.window.clear();
        self.window_bytes = 0;
        self.applying.clear();
        self.absent.clear();
        let mut todo = RegionMap::new(self.blocks);
        todo.mark_all();
        self.todo = Some(todo);
    }

    /// A checkpoint is durable: with it, that this replica has everything to compare.
    pub(super) fn forgotten_durably(&mut self) {
        if let Some(fault) = &mut self.fault
            && fault.way_back == WayBack::Forgotten
        {
            fault.way_back = WayBack::Durable;
        }
    }

    /// Whether a checkpoint may be made of this replica as it is.
    pub(super) fn may_checkpoint(&self) -> bool {
        let lost = self.fault.as_ref().is_some_and(|fault| {
            fault.kind == FaultKind::Lost && fault.way_back == WayBack::Waiting
        });
        !lost && !self.misses_records()
    }

    /// An unable replica outside of the set keeps the journal from recycling: its records are given up, durably marked.
    pub fn let_records_go<D: Disk>(&mut self, context: &mut Context<'_, R>, disk: &mut D) {
        let stream = self.stream();
        let Some(fault) = self.fault.as_mut().filter(|_| self.engine.is_outside()) else {
            return;
        };
        if fault.kind == FaultKind::Lost {
            return;
        }
        let folder = crate::host::folder(self.volume);
        if let Err(error) = disk.create(&mark_of(&folder), 0, false)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return;
        }
        context.journal.release(stream, context.journal.next());
        context.outputs.events.push((
            self.volume,
            "its records are given up, so that the journal can recycle: it will be compared whole"
                .into(),
        ));
        if fault.kind == FaultKind::Full {
            fault.kind = FaultKind::Lost;
        }
    }

    /// Hands a committed record to the extents.
    pub(super) fn apply_one(&mut self, entry: Entry, payload: Payload) {
        self.store_busy = true;
        self.checkpoint.note(payload.data.len());
        if let Some(target) = &mut self.target {
            target.note_newer(entry.range, entry.position.seq);
        }
        self.mending.touch(entry.range);
        if Mutation::TrimOutOfOrder.is_on()
            && entry.kind == RecordKind::Clear
            && !self.engine.is_serving()
        {
            return;
        }
        let op = StoreOp(self.number());
        self.submit_change(op, entry, payload.clone());
        self.applying.push_back(Applying {
            op,
            entry,
            payload,
            progress: Progress::Submitted,
        });
    }

    fn submit_change(&mut self, op: StoreOp, entry: Entry, payload: Payload) {
        match entry.kind {
            RecordKind::Write => self
                .store
                .write(op, entry.range, payload.data, payload.checksums),
            RecordKind::Clear => self.store.clear(op, entry.range),
        }
    }

    fn applying_mut(&mut self, op: StoreOp) -> Option<&mut Applying> {
        let at = self
            .applying
            .binary_search_by_key(&op, |applying| applying.op)
            .ok()?;
        self.applying.get_mut(at)
    }

    /// A store operation has ended well. Returns whether it was a record.
    pub(super) fn record_applied(&mut self, op: StoreOp) -> bool {
        let Some(applying) = self.applying_mut(op) else {
            return false;
        };
        applying.progress = Progress::Applied;
        while self
            .applying
            .front()
            .is_some_and(|applying| applying.progress == Progress::Applied)
        {
            self.applying.pop_front();
        }
        true
    }

    /// A store operation has failed. Returns whether it was a record.
    pub(super) fn record_failed(
        &mut self,
        context: &mut Context<'_, R>,
        op: StoreOp,
        error: &io::Error,
    ) -> bool {
        let Some(applying) = self.applying_mut(op) else {
            return false;
        };
        applying.progress = Progress::Failed;
        self.disk_failed(context, "a committed record can't be applied", error);
        true
    }

    /// Something that this replica can't do without has failed.
    pub(super) fn disk_failed(
        &mut self,
        context: &mut Context<'_, R>,
        what: &str,
        error: &io::Error,
    ) {
        let kind = kind_of(error);
        let next = match kind {
            FaultKind::Full => "free space: the replica then comes back by itself",
            _ => "look at the disk, then restart the node",
        };
        self.fail(context, kind, format!("{what}: {error}; {next}"));
    }

    /// Whether a committed record is not in the extents because the disk refused it.
    fn misses_records(&self) -> bool {
        let failed = |applying: &Applying| applying.progress == Progress::Failed;
        // Only then there is more than a few to look at.
        self.fault.is_some() && self.applying.iter().any(failed)
    }

    /// From the first one that failed on, all are applied again, in order: also those that succeeded, which may be newer.
    fn apply_again(&mut self) {
        let submitted = |applying: &Applying| applying.progress == Progress::Submitted;
        if self.applying.iter().any(submitted) {
            return;
        }
        for mut applying in std::mem::take(&mut self.applying) {
            applying.op = StoreOp(self.number());
            applying.progress = Progress::Submitted;
            self.submit_change(applying.op, applying.entry, applying.payload.clone());
            self.applying.push_back(applying);
        }
        self.store_busy = true;
    }
}

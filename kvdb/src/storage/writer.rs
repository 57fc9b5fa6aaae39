//! What happens on the disk, as a state machine: work goes in, is written in order, and whoever asked hears when it is durable. All
//! records that are queued are written at once (group commit). It waits for nothing and knows no thread: whoever owns the disk
//! ([`super::owner`]) calls [`Writer::step`] whenever there is work, or the disk has finished something.
//!
//! ```text
//!           ┌──────────── left over: the journal was full ───────────┐
//!           ▼                                                        │
//! Nothing ─▶ Records (append, flush) ─▶ told ─▶ Rewriting (repeat what is needed, flush, release)
//!    └─────▶ Snapshot (one durable write of a file) ─▶ told
//! ```

use bytes::Bytes;
use isthmus_catalog::codec;
use isthmus_journal::{Disk, DiskOp, Done, Journal, Lsn, OpId, OpIds, StreamId};
use openraft::entry::RaftEntry;
use openraft::storage::IOFlushed;
use std::collections::VecDeque;
use std::io;

use super::journal_folder;
use super::records::Record;
use super::retained::Replay;
use super::snapshots::{SnapshotFiles, StoredSnapshot};
use crate::error::KvdbError;
use crate::group::{Entry, LogId, Types, Vote, kind};
use crate::runtime::{OneshotSender as _, OneshotSenderOf, Runtime};

/// Pieces of work written together.
pub(super) const BATCH_MAX: usize = 256;
/// The journal is all kvdb's: one stream.
const STREAM: StreamId = StreamId(0);
/// Of the journal's disk operations, and of the snapshots'.
const JOURNAL_TAG: u16 = 0;
const SNAPSHOT_TAG: u16 = 1;

/// Who hears that records are durable.
pub(crate) enum Flushed<R: Runtime> {
    /// Nobody: the order of records is all that matters.
    Nobody,
    /// openraft.
    Raft(IOFlushed<Types<R>>),
    /// Who waits.
    Waiting(OneshotSenderOf<R, io::Result<()>>),
}

impl<R: Runtime> Flushed<R> {
    fn tell(self, result: io::Result<()>) {
        match self {
            Flushed::Nobody => {}
            Flushed::Raft(callback) => callback.io_completed(result),
            // The waiting one may have gone away, which is its own affair.
            Flushed::Waiting(waiting) => drop(waiting.send(result)),
        }
    }
}

/// What is to be written.
pub(crate) enum Work<R: Runtime> {
    Records {
        records: Vec<Record>,
        flushed: Flushed<R>,
    },
    Snapshot {
        snapshot: StoredSnapshot,
        done: OneshotSenderOf<R, io::Result<()>>,
    },
}

/// What was on disk at the start.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    /// With their encoded lengths.
    pub entries: Vec<(Entry, usize)>,
    pub snapshot: Option<StoredSnapshot>,
}

/// What is under way.
enum Doing<R: Runtime> {
    Nothing,
    /// Records that are appended, and flushed: all but those left, for which there was no room.
    Records(Batch<R>),
    /// Everything from `begin` on repeats what is still needed; then the batch goes on.
    Rewriting {
        begin: Lsn,
        batch: Batch<R>,
    },
    /// The file of a snapshot.
    Snapshot {
        op: Option<(OpId, DiskOp)>,
        done: OneshotSenderOf<R, io::Result<()>>,
        result: Option<io::Result<()>>,
    },
}

/// Work that is written together.
struct Batch<R: Runtime> {
    left: VecDeque<Record>,
    waiting: Vec<Flushed<R>>,
}

impl<R: Runtime> Batch<R> {
    fn empty() -> Batch<R> {
        Batch {
            left: VecDeque::new(),
            waiting: Vec::new(),
        }
    }
}

/// What the store in `folder` holds, as a start finds it.
pub(crate) fn recover<D: Disk>(mut disk: D, folder: &str) -> Result<Recovered, KvdbError> {
    Writer::<crate::runtime::Tokio>::open(&mut disk, folder).map(|(_, recovered)| recovered)
}

pub(super) struct Writer<R: Runtime> {
    journal: Journal,
    snapshots: SnapshotFiles,
    snapshot_ops: OpIds,
    replay: Replay,
    queue: VecDeque<Work<R>>,
    doing: Doing<R>,
    /// Set for good by the first write that failed: what is on disk is unknown from there on.
    failed: Option<String>,
}

impl<R: Runtime> Writer<R> {
    pub(super) fn open<D: Disk>(
        disk: &mut D,
        folder: &str,
    ) -> Result<(Writer<R>, Recovered), KvdbError> {
        let store = |error: &dyn std::fmt::Display| KvdbError::Store(error.to_string());
        let mut replay = Replay::default();
        let mut unknown = 0_u64;
        let mut each = |_: Lsn, _: StreamId, bytes: Bytes| match Record::decode(&bytes) {
            Some((record, is_rewritten)) => replay.apply(record, is_rewritten),
            None => unknown += 1,
        };
        let journal = Journal::open(disk, &journal_folder(folder), JOURNAL_TAG, &mut each)
            .map_err(|error| store(&error))?;
        if unknown > 0 {
            return Err(KvdbError::Store(format!(
                "{unknown} records are of an unknown kind: start the release that wrote them"
            )));
        }
        let (snapshots, snapshot) =
            SnapshotFiles::open(disk, folder).map_err(|error| store(&error))?;
        let recovered = recovered(&replay, snapshot)?;
        let writer = Writer {
            journal,
            snapshots,
            snapshot_ops: OpIds::new(SNAPSHOT_TAG),
            replay,
            queue: VecDeque::new(),
            doing: Doing::Nothing,
            failed: None,
        };
        Ok((writer, recovered))
    }

    /// Takes work, behind all that was taken before.
    pub(super) fn push(&mut self, work: Work<R>) {
        self.queue.push_back(work);
    }

    /// Whether more may be taken: what is queued is written together as soon as the write under way has ended.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < BATCH_MAX
    }

    /// Whether everything is written, and who asked was told.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && matches!(self.doing, Doing::Nothing)
    }

    /// Takes what the disk has finished, and goes on until it waits for the disk, or for work.
    pub(super) fn step<D: Disk>(&mut self, disk: &mut D) {
        let mut completed = Vec::new();
        loop {
            let has_advanced = self.advance(disk);
            disk.completed(&mut completed);
            if !has_advanced && completed.is_empty() {
                return;
            }
            for (id, result) in completed.drain(..) {
                self.on_completed(id, result);
            }
        }
    }

    fn on_completed(&mut self, id: OpId, completed: io::Result<Done>) {
        if id.tag() == JOURNAL_TAG {
            self.try_to(|writer| {
                let taken = writer.journal.on_completed(id, completed);
                taken.map_err(io::Error::other)
            });
        } else if let Doing::Snapshot { result, .. } = &mut self.doing {
            *result = Some(completed.map(drop));
        }
    }

    /// Goes on where that needs no completion; returns whether it did.
    fn advance<D: Disk>(&mut self, disk: &mut D) -> bool {
        if self.failed.is_none() {
            self.journal.step(disk);
        }
        let is_flushed = self.failed.is_some() || self.journal.is_idle();
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Nothing => self.begin(disk),
            Doing::Records(batch) if is_flushed => {
                self.records_are_durable(batch);
                true
            }
            Doing::Rewriting { begin, mut batch } if is_flushed => {
                self.journal.release(STREAM, begin);
                let left = batch.left.len();
                self.append_left(&mut batch);
                if left > 0 && batch.left.len() == left {
                    self.try_to(|_| Err(full()));
                }
                self.doing = Doing::Records(batch);
                true
            }
            Doing::Snapshot {
                done,
                result: Some(result),
                ..
            } => {
                self.snapshots.was_written(result.is_ok());
                // Whoever asked may have gone away.
                drop(done.send(result));
                true
            }
            Doing::Snapshot {
                op: Some((id, op)),
                done,
                result,
            } => {
                let is_busy = disk.submit(id, op.clone()).is_err();
                let op = is_busy.then_some((id, op));
                self.doing = Doing::Snapshot { op, done, result };
                false
            }
            waits => {
                self.doing = waits;
                false
            }
        }
    }

    /// Begins the next work, if there is any.
    fn begin<D: Disk>(&mut self, disk: &mut D) -> bool {
        let mut batch = Batch::empty();
        let mut pieces = 0;
        while pieces < BATCH_MAX {
            match self.queue.pop_front() {
                Some(Work::Records { records, flushed }) => {
                    batch.left.extend(records);
                    batch.waiting.push(flushed);
                    pieces += 1;
                }
                Some(snapshot @ Work::Snapshot { .. }) if pieces > 0 => {
                    self.queue.push_front(snapshot);
                    break;
                }
                Some(Work::Snapshot { snapshot, done }) => {
                    self.begin_snapshot(disk, &snapshot, done);
                    return true;
                }
                None => break,
            }
        }
        if pieces == 0 {
            return false;
        }
        self.append_left(&mut batch);
        self.doing = Doing::Records(batch);
        true
    }

    fn begin_snapshot<D: Disk>(
        &mut self,
        disk: &mut D,
        snapshot: &StoredSnapshot,
        done: OneshotSenderOf<R, io::Result<()>>,
    ) {
        let (op, result) = match self.snapshots.begin(disk, snapshot) {
            Ok(op) => (Some((self.snapshot_ops.next_id(), op)), None),
            Err(error) => (None, Some(Err(error))),
        };
        self.doing = Doing::Snapshot { op, done, result };
    }

    /// Appends as many records as there is room for.
    fn append_left(&mut self, batch: &mut Batch<R>) {
        while self.failed.is_none()
            && let Some(record) = batch.left.front()
        {
            if self.journal.append(STREAM, &record.encode(false)).is_err() {
                return;
            }
            if let Some(record) = batch.left.pop_front() {
                self.replay.apply(record, false);
            }
        }
    }

    fn records_are_durable(&mut self, batch: Batch<R>) {
        if self.failed.is_none() && !batch.left.is_empty() {
            self.begin_rewrite(batch);
            return;
        }
        for flushed in batch.waiting {
            flushed.tell(match &self.failed {
                None => Ok(()),
                Some(reason) => Err(io::Error::other(reason.clone())),
            });
        }
        let wants_room = self.journal.used_bytes() > self.journal.capacity_bytes() / 2;
        if self.failed.is_none()
            && wants_room
            && self.replay.current().bytes() < self.journal.capacity_bytes() / 4
        {
            self.begin_rewrite(Batch::empty());
        }
    }

    /// Repeats what is still needed, so that everything before it can be given up.
    fn begin_rewrite(&mut self, batch: Batch<R>) {
        let mut begin = None;
        self.try_to(|writer| {
            let append = |writer: &mut Writer<R>, record: &Record, is_rewritten| {
                let appended = writer
                    .journal
                    .append_reserved(STREAM, &record.encode(is_rewritten));
                appended.map_err(|_| full())
            };
            begin = Some(append(writer, &Record::RewriteBegin, false)?);
            for record in writer.replay.current().records() {
                append(writer, &record, true)?;
            }
            append(writer, &Record::RewriteEnd, false).map(drop)
        });
        self.doing = match begin.filter(|_| self.failed.is_none()) {
            Some(begin) => Doing::Rewriting { begin, batch },
            None => Doing::Records(batch),
        };
    }

    fn try_to(&mut self, step: impl FnOnce(&mut Writer<R>) -> io::Result<()>) {
        if self.failed.is_none()
            && let Err(error) = step(self)
        {
            tracing::error!(%error, "kvdb's journal failed; this node leaves kvdb until it is started again");
            self.failed = Some(error.to_string());
        }
    }
}

fn full() -> io::Error {
    io::Error::new(
        io::ErrorKind::StorageFull,
        "kvdb's journal is full: no snapshot could be written for long",
    )
}

/// Decodes what the records came to, and checks that nothing is missing.
fn recovered(replay: &Replay, snapshot: Option<StoredSnapshot>) -> Result<Recovered, KvdbError> {
    let retained = replay.current();
    let damaged = |what: &str| {
        KvdbError::Store(format!(
            "{what}; empty this node's data directory, so that it comes back as a new member"
        ))
    };
    if !retained.is_whole() {
        return Err(damaged("the log has a gap"));
    }
    let broken =
        |error: codec::CodecError| damaged(&format!("a record of the log can't be read ({error})"));
    let log_id = |bytes: &Bytes| codec::unseal::<LogId>(kind::LOG_ID, bytes).map_err(broken);
    // What a record says of its payload is what the log was put together by: if it lied, the log may have a gap after all.
    let at = |index: u64, found: u64| {
        if found == index {
            Ok(())
        } else {
            Err(damaged(&format!(
                "record {index} of the log holds what belongs at {found}"
            )))
        }
    };
    let purged = match &retained.purged {
        Some((index, bytes)) => {
            let purged = log_id(bytes)?;
            at(*index, purged.index)?;
            Some(purged)
        }
        None => None,
    };
    let covered = snapshot
        .as_ref()
        .and_then(|snapshot| snapshot.meta.last_log_id.map(|last| last.index));
    if let Some(purged) = purged
        && covered.is_none_or(|covered| covered < purged.index)
    {
        return Err(damaged(
            "the snapshot that the log goes on from is missing or damaged",
        ));
    }
    let mut entries = Vec::with_capacity(retained.entries.len());
    for (index, bytes) in &retained.entries {
        let entry = codec::unseal::<Entry>(kind::ENTRY, bytes).map_err(broken)?;
        at(*index, entry.index())?;
        entries.push((entry, bytes.len()));
    }
    Ok(Recovered {
        vote: retained
            .vote
            .as_ref()
            .map(|bytes| codec::unseal(kind::VOTE, bytes))
            .transpose()
            .map_err(broken)?,
        committed: retained.committed.as_ref().map(log_id).transpose()?,
        purged,
        entries,
        snapshot,
    })
}

//! The thread that owns the disk: takes work in order, writes all that is queued at once, then says so.

use bytes::Bytes;
use isthmus_catalog::codec;
use isthmus_journal::{Disk, Journal, Lsn, StreamId};
use openraft::entry::RaftEntry;
use openraft::storage::IOFlushed;
use std::io;
use std::thread;

use super::blocking::Blocking;
use super::journal_folder;
use super::records::Record;
use super::retained::Replay;
use super::snapshots::{SnapshotFiles, StoredSnapshot};
use crate::error::KvdbError;
use crate::group::{Entry, LogId, Types, Vote, kind};
use crate::runtime::{mpsc, oneshot};

/// Pieces of work that may wait; more have to wait before they are taken.
const WORK_MAX: usize = 1024;
/// Pieces of work written together.
const BATCH_MAX: usize = 256;
/// The journal is all kvdb's: one stream.
const STREAM: StreamId = StreamId(0);
/// Of the disk operations; none of them leaves the thread.
const TAG: u16 = 0;

/// Who hears that records are durable.
pub(crate) enum Flushed {
    /// Nobody: the order of records is all that matters.
    Nobody,
    /// openraft.
    Raft(IOFlushed<Types>),
    /// Who waits.
    Waiting(oneshot::Sender<io::Result<()>>),
}

impl Flushed {
    fn tell(self, result: &io::Result<()>) {
        let result = match result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        match self {
            Flushed::Nobody => {}
            Flushed::Raft(callback) => callback.io_completed(result),
            // The waiting one may have gone away, which is its own affair.
            Flushed::Waiting(waiting) => drop(waiting.send(result)),
        }
    }
}

/// What the thread is asked to do.
pub(crate) enum Work {
    Records {
        records: Vec<Record>,
        flushed: Flushed,
    },
    Snapshot {
        snapshot: StoredSnapshot,
        done: oneshot::Sender<io::Result<()>>,
    },
    Stop {
        done: oneshot::Sender<()>,
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

/// The way to the thread, which ends when this and its clones are dropped, or when it is told to.
#[derive(Clone)]
pub(crate) struct Storage {
    work: mpsc::Sender<Work>,
}

impl Storage {
    /// Starts the thread, which opens the store first.
    ///
    /// # Errors
    /// `Store`, when the store is not there, damaged, or can't be read.
    pub(crate) async fn start<D: Disk + Send + 'static>(
        disk: D,
        folder: String,
    ) -> Result<(Storage, Recovered), KvdbError> {
        let (work, queue) = mpsc::channel(WORK_MAX);
        let (opened, is_opened) = oneshot::channel();
        let run = move || match Writer::open(disk, &folder) {
            Ok((writer, recovered)) => {
                if opened.send(Ok(recovered)).is_ok() {
                    writer.run(queue);
                }
            }
            Err(error) => drop(opened.send(Err(error))),
        };
        thread::Builder::new()
            .name("kvdb-disk".to_owned())
            .spawn(run)
            .map_err(|error| KvdbError::Store(error.to_string()))?;
        let gone = |_| KvdbError::Store("its thread has ended".to_owned());
        let recovered = is_opened.await.map_err(gone)??;
        Ok((Storage { work }, recovered))
    }

    /// Hands over records; who is to hear of it hears when they are durable.
    pub(crate) async fn append(&self, records: Vec<Record>, flushed: Flushed) -> io::Result<()> {
        self.work
            .send(Work::Records { records, flushed })
            .await
            .map_err(|_| io::Error::other("kvdb's disk thread has ended"))
    }

    /// Writes records; they are durable on return.
    pub(crate) async fn append_durably(&self, records: Vec<Record>) -> io::Result<()> {
        let (waiting, flushed) = oneshot::channel();
        self.append(records, Flushed::Waiting(waiting)).await?;
        flushed.await.map_err(io::Error::other)?
    }

    /// Writes a snapshot; it is durable on return.
    pub(crate) async fn write_snapshot(&self, snapshot: StoredSnapshot) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        let sent = self.work.send(Work::Snapshot { snapshot, done }).await;
        sent.map_err(|_| io::Error::other("kvdb's disk thread has ended"))?;
        written.await.map_err(io::Error::other)?
    }

    /// Ends the thread, and returns when it has given the disk up. What is asked of it afterwards fails.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.work.send(Work::Stop { done }).await.is_ok() {
            // An error says that the thread has ended already.
            drop(stopped.await);
        }
    }
}

/// What the store in `folder` holds, as a start finds it.
pub(crate) fn recover<D: Disk>(disk: D, folder: &str) -> Result<Recovered, KvdbError> {
    Writer::open(disk, folder).map(|(_, recovered)| recovered)
}

struct Writer<D> {
    disk: D,
    journal: Journal,
    snapshots: SnapshotFiles,
    replay: Replay,
    /// Set for good by the first write that failed: what is on disk is unknown from there on.
    failed: Option<String>,
}

impl<D: Disk> Writer<D> {
    fn open(mut disk: D, folder: &str) -> Result<(Writer<D>, Recovered), KvdbError> {
        let store = |error: &dyn std::fmt::Display| KvdbError::Store(error.to_string());
        let mut replay = Replay::default();
        let mut unknown = 0_u64;
        let mut each = |_: Lsn, _: StreamId, bytes: Bytes| match Record::decode(&bytes) {
            Some((record, is_rewritten)) => replay.apply(record, is_rewritten),
            None => unknown += 1,
        };
        let journal = Journal::open(&mut disk, &journal_folder(folder), TAG, &mut each)
            .map_err(|error| store(&error))?;
        if unknown > 0 {
            return Err(KvdbError::Store(format!(
                "{unknown} records are of an unknown kind: start the release that wrote them"
            )));
        }
        let (snapshots, snapshot) =
            SnapshotFiles::open(&mut disk, folder).map_err(|error| store(&error))?;
        let recovered = recovered(&replay, snapshot)?;
        Ok((
            Writer {
                disk,
                journal,
                snapshots,
                replay,
                failed: None,
            },
            recovered,
        ))
    }

    fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        while let Some(first) = queue.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_MAX {
                let Ok(next) = queue.try_recv() else { break };
                batch.push(next);
            }
            if let Some(done) = self.write(batch) {
                drop(self);
                // Whoever asked may have gone away.
                let _ = done.send(());
                return;
            }
        }
    }

    /// Does a batch of work; returns who waits for the end, if it is to end.
    fn write(&mut self, batch: Vec<Work>) -> Option<oneshot::Sender<()>> {
        let mut waiting = Vec::new();
        let mut stop = None;
        for work in batch {
            match work {
                Work::Records { records, flushed } => {
                    waiting.push(flushed);
                    for record in records {
                        self.try_to(|writer| writer.append(record));
                    }
                }
                Work::Snapshot { snapshot, done } => {
                    let written = self.snapshots.write(&mut self.disk, &snapshot);
                    drop(done.send(written));
                }
                Work::Stop { done } => stop = Some(done),
            }
        }
        self.try_to(Writer::flush);
        let result = match &self.failed {
            None => Ok(()),
            Some(reason) => Err(io::Error::other(reason.clone())),
        };
        for flushed in waiting {
            flushed.tell(&result);
        }
        let wants_room = self.journal.used_bytes() > self.journal.capacity_bytes() / 2;
        if wants_room && self.replay.current().bytes() < self.journal.capacity_bytes() / 4 {
            self.try_to(Writer::rewrite);
        }
        stop
    }

    fn try_to(&mut self, step: impl FnOnce(&mut Writer<D>) -> io::Result<()>) {
        if self.failed.is_none()
            && let Err(error) = step(self)
        {
            tracing::error!(%error, "kvdb's journal failed; this node leaves kvdb until it is started again");
            self.failed = Some(error.to_string());
        }
    }

    fn append(&mut self, record: Record) -> io::Result<()> {
        if self.journal.append(STREAM, &record.encode(false)).is_err() {
            self.flush()?;
            self.rewrite()?;
            self.journal
                .append(STREAM, &record.encode(false))
                .map_err(full)?;
        }
        self.replay.apply(record, false);
        Ok(())
    }

    /// Writes everything that is queued; it is durable on return.
    fn flush(&mut self) -> io::Result<()> {
        while !self.journal.is_idle() {
            let mut disk = Blocking {
                disk: &mut self.disk,
                done: Vec::new(),
            };
            self.journal.step(&mut disk);
            if disk.done.is_empty() {
                return Err(io::Error::other("the journal has stopped"));
            }
            for (id, result) in disk.done {
                self.journal
                    .on_completed(id, result)
                    .map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Repeats what is still needed, and gives up everything before.
    fn rewrite(&mut self) -> io::Result<()> {
        let begin = self
            .journal
            .append_reserved(STREAM, &Record::RewriteBegin.encode(false))
            .map_err(full)?;
        for record in self.replay.current().records() {
            self.journal
                .append_reserved(STREAM, &record.encode(true))
                .map_err(full)?;
        }
        self.journal
            .append_reserved(STREAM, &Record::RewriteEnd.encode(false))
            .map_err(full)?;
        self.flush()?;
        self.journal.release(STREAM, begin);
        Ok(())
    }
}

fn full(_: isthmus_journal::Full) -> io::Error {
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

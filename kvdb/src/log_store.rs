//! openraft's log and vote: in memory back to the last purge for reading, in the journal for keeping.

use bytes::Bytes;
use isthmus_catalog::codec;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use crate::group::{Entry, LogId, Types, Vote, kind};
use crate::runtime::Runtime;
use crate::storage::{Flushed, Record, Recovered, Storage};
use crate::wire::ENTRIES_BYTES_MAX;

/// The log as openraft reads it. Entries are here from the moment they are handed to the disk's thread.
#[derive(Debug, Default)]
struct Memory {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// With their encoded lengths.
    entries: BTreeMap<u64, (Entry, usize)>,
}

/// The log. Clones read and write the same one.
pub(crate) struct LogStore<R: Runtime> {
    memory: Arc<Mutex<Memory>>,
    storage: Storage<R>,
}

impl<R: Runtime> Clone for LogStore<R> {
    fn clone(&self) -> LogStore<R> {
        LogStore {
            memory: Arc::clone(&self.memory),
            storage: self.storage.clone(),
        }
    }
}

impl<R: Runtime> LogStore<R> {
    /// The log as it was found.
    pub(crate) fn new(recovered: Recovered, storage: Storage<R>) -> LogStore<R> {
        let entries = recovered
            .entries
            .into_iter()
            .map(|(entry, bytes)| (entry.index(), (entry, bytes)));
        let memory = Memory {
            vote: recovered.vote,
            committed: recovered.committed,
            purged: recovered.purged,
            entries: entries.collect(),
        };
        LogStore {
            memory: Arc::new(Mutex::new(memory)),
            storage,
        }
    }

    /// Bytes of all entries in the log.
    pub(crate) fn bytes(&self) -> usize {
        self.memory
            .lock()
            .entries
            .values()
            .map(|(_, bytes)| bytes)
            .sum()
    }
}

fn seal<T: Serialize>(kind: codec::Kind, value: &T) -> io::Result<Bytes> {
    codec::seal(kind, value)
        .map(Bytes::from)
        .map_err(io::Error::other)
}

/// The range, or nothing where it is one that a map would panic on.
fn checked(range: &impl RangeBounds<u64>) -> Option<(Bound<u64>, Bound<u64>)> {
    let (start, end) = (range.start_bound().cloned(), range.end_bound().cloned());
    let first = match start {
        Bound::Included(first) => first,
        Bound::Excluded(before) => before.checked_add(1)?,
        Bound::Unbounded => 0,
    };
    let is_empty = match end {
        Bound::Included(last) => last < first,
        Bound::Excluded(after) => after <= first,
        Bound::Unbounded => false,
    };
    (!is_empty).then_some((Bound::Included(first), end))
}

impl<R: Runtime> RaftLogReader<Types<R>> for LogStore<R> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let Some(range) = checked(&range) else {
            return Ok(Vec::new());
        };
        Ok(self
            .memory
            .lock()
            .entries
            .range(range)
            .map(|(_, (entry, _))| entry.clone())
            .collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.memory.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let Some(range) = checked(&(start..end)) else {
            return Ok(Vec::new());
        };
        let memory = self.memory.lock();
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (entry, entry_bytes) in memory.entries.range(range).map(|(_, entry)| entry) {
            bytes += entry_bytes;
            if bytes > ENTRIES_BYTES_MAX && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}

impl<R: Runtime> RaftLogStorage<Types<R>> for LogStore<R> {
    type LogReader = LogStore<R>;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<R>>> {
        let memory = self.memory.lock();
        let last = memory
            .entries
            .last_key_value()
            .map(|(_, (entry, _))| entry.log_id());
        Ok(LogState {
            last_purged_log_id: memory.purged,
            last_log_id: last.or(memory.purged),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore<R> {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.storage
            .append_durably(vec![Record::Vote(seal(kind::VOTE, vote)?)])
            .await?;
        self.memory.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(log_id) = committed {
            // It may be lost: then less is applied at the next start, until the leader says so again.
            self.storage
                .append(
                    vec![Record::Committed(seal(kind::LOG_ID, &log_id)?)],
                    Flushed::Nobody,
                )
                .await?;
        }
        self.memory.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.memory.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<R>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        {
            let mut memory = self.memory.lock();
            for entry in entries {
                let bytes = seal(kind::ENTRY, &entry)?;
                let index = entry.index();
                memory.entries.insert(index, (entry, bytes.len()));
                records.push(Record::Entry {
                    index,
                    entry: bytes,
                });
            }
        }
        self.storage.append(records, Flushed::Raft(callback)).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let Some(from) = last_log_id.map_or(Some(0), |last| last.index.checked_add(1)) else {
            return Ok(());
        };
        self.memory.lock().entries.split_off(&from);
        // No need to wait: whatever is appended afterwards is durable only after this is.
        self.storage
            .append(vec![Record::TruncateFrom(from)], Flushed::Nobody)
            .await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut memory = self.memory.lock();
            let kept = log_id
                .index
                .checked_add(1)
                .map_or_else(BTreeMap::new, |next| memory.entries.split_off(&next));
            memory.entries = kept;
            memory.purged = Some(log_id);
        }
        let record = Record::Purge {
            index: log_id.index,
            log_id: seal(kind::LOG_ID, &log_id)?,
        };
        self.storage.append(vec![record], Flushed::Nobody).await
    }
}

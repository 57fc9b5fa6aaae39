//! openraft's state machine: the catalog in memory, its snapshots on disk.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use isthmus_catalog::{Answer, Catalog};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StoredMembership};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

use crate::error::KvdbError;
use crate::group::{LogId, Membership, Snapshot, SnapshotMeta, Types};
use crate::runtime::{Runtime, WatchSender as _, WatchSenderOf};
use crate::storage::{Storage, StoredSnapshot};

/// Entries after which watchers see what was applied, and who asked hears of it.
const ENTRIES_AT_ONCE: usize = 256;

/// Told of every entry that is applied on this node, and of every snapshot that replaces what was: its index in the log, and the
/// catalog with it. Simulations check histories by it.
pub type Observer = Box<dyn FnMut(u64, &Catalog) + Send + Sync>;

/// The applied catalog.
pub struct CatalogMachine<R: Runtime> {
    catalog: Arc<Catalog>,
    applied: Option<LogId>,
    membership: Membership,
    /// In a lock only because openraft shares the machine between threads, and a sender may not be.
    published: Mutex<WatchSenderOf<R, Arc<Catalog>>>,
    snapshots: Snapshots<R>,
    observe: Observer,
}

/// The newest durable snapshot, and how to make another one.
struct Snapshots<R: Runtime> {
    newest: Arc<Mutex<Option<StoredSnapshot>>>,
    storage: Storage<R>,
}

impl<R: Runtime> Clone for Snapshots<R> {
    fn clone(&self) -> Snapshots<R> {
        Snapshots {
            newest: Arc::clone(&self.newest),
            storage: self.storage.clone(),
        }
    }
}

impl<R: Runtime> Snapshots<R> {
    async fn keep(&self, snapshot: StoredSnapshot) -> io::Result<()> {
        self.storage.write_snapshot(snapshot.clone()).await?;
        *self.newest.lock() = Some(snapshot);
        Ok(())
    }
}

impl<R: Runtime> CatalogMachine<R> {
    /// The catalog of the newest snapshot; openraft applies the committed rest of the log.
    pub(crate) fn new(
        snapshot: Option<StoredSnapshot>,
        storage: Storage<R>,
        published: WatchSenderOf<R, Arc<Catalog>>,
        observe: Observer,
    ) -> Result<CatalogMachine<R>, KvdbError> {
        let (catalog, meta) = match &snapshot {
            Some(snapshot) => {
                let catalog = Catalog::decode(&snapshot.catalog)
                    .map_err(|error| KvdbError::Store(error.to_string()))?;
                (catalog, snapshot.meta.clone())
            }
            None => (Catalog::default(), SnapshotMeta::default()),
        };
        let mut machine = CatalogMachine {
            catalog: Arc::new(catalog),
            applied: meta.last_log_id,
            membership: meta.last_membership,
            published: Mutex::new(published),
            snapshots: Snapshots {
                newest: Arc::new(Mutex::new(snapshot)),
                storage,
            },
            observe,
        };
        machine.was_replaced();
        machine.publish();
        Ok(machine)
    }

    fn publish(&self) {
        // Nobody may be watching, which is fine.
        drop(self.published.lock().send(self.catalog.clone()));
    }

    /// The catalog is another one at once, by a snapshot.
    fn was_replaced(&mut self) {
        if let Some(applied) = self.applied {
            (self.observe)(applied.index, &self.catalog);
        }
    }

    fn apply_entry(&mut self, entry: crate::group::Entry) -> Answer {
        let answer = match entry.payload {
            EntryPayload::Blank => Answer::Done,
            EntryPayload::Normal(proposal) => Arc::make_mut(&mut self.catalog).apply(&proposal.0),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Answer::Done
            }
        };
        self.applied = Some(entry.log_id);
        (self.observe)(entry.log_id.index, &self.catalog);
        answer
    }
}

impl<R: Runtime> RaftStateMachine<Types<R>> for CatalogMachine<R> {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder<R>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types<R>>>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.chunks(ENTRIES_AT_ONCE);
        while let Some(chunk) = chunks.next().await {
            let mut answers = Vec::with_capacity(chunk.len());
            for item in chunk {
                let (entry, responder) = item?;
                let answer = self.apply_entry(entry);
                answers.extend(responder.map(|responder| (responder, answer)));
            }
            // Published first: whoever has an answer finds what it did.
            self.publish();
            for (responder, answer) in answers {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<R> {
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        };
        SnapshotBuilder {
            catalog: self.catalog.clone(),
            meta,
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        let catalog = Catalog::decode(&snapshot).map_err(io::Error::other)?;
        self.snapshots
            .keep(StoredSnapshot {
                meta: meta.clone(),
                catalog: snapshot,
            })
            .await?;
        self.catalog = Arc::new(catalog);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.was_replaced();
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let newest = self.snapshots.newest.lock().clone();
        Ok(newest.map(|newest| Snapshot {
            meta: newest.meta,
            snapshot: newest.catalog,
        }))
    }
}

/// Makes a snapshot of the catalog as it was, beside what is applied meanwhile.
pub struct SnapshotBuilder<R: Runtime> {
    catalog: Arc<Catalog>,
    meta: SnapshotMeta,
    snapshots: Snapshots<R>,
}

impl<R: Runtime> RaftSnapshotBuilder<Types<R>> for SnapshotBuilder<R> {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let catalog = Bytes::from(self.catalog.encode().map_err(io::Error::other)?);
        self.snapshots
            .keep(StoredSnapshot {
                meta: self.meta.clone(),
                catalog: catalog.clone(),
            })
            .await?;
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: catalog,
        })
    }
}

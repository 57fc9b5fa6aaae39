//! The store alone: openraft's own suite, and what a restart finds.

use crate::KvdbError;
use crate::group::{Entry, LogId, MemberId, Types, kind};
use crate::log_store::LogStore;
use crate::machine::CatalogMachine;
use crate::runtime::{self, Tokio};
use crate::storage::{Flushed, Record, Recovered, Storage};
use bytes::Bytes;
use isthmus_catalog::{Catalog, codec};
use isthmus_engine::{Incarnation, NodeId};
use isthmus_simulated_disk::SharedDisk;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{RaftLogReader, RaftSnapshotBuilder, StorageError};
use std::sync::Arc;

impl From<u64> for MemberId {
    fn from(number: u64) -> MemberId {
        MemberId {
            node: NodeId(number as u32),
            incarnation: Incarnation(number),
        }
    }
}

fn formatted(seed: u64) -> SharedDisk {
    let mut disk = SharedDisk::new(seed);
    crate::format(&mut disk, "raft", seed).unwrap();
    disk
}

struct Builder;

type Opened = ((), LogStore<Tokio>, CatalogMachine<Tokio>);

async fn start(disk: SharedDisk) -> Result<(Storage<Tokio>, Recovered), KvdbError> {
    Storage::start("raft".to_owned(), |owner| owner.start_thread(disk)).await
}

async fn open(disk: &SharedDisk) -> (LogStore<Tokio>, CatalogMachine<Tokio>, Storage<Tokio>) {
    let (storage, mut recovered) = start(disk.clone()).await.unwrap();
    let (publisher, _) = runtime::watch::<Tokio, _>(Arc::new(Catalog::default()));
    let snapshot = recovered.snapshot.take();
    let observe = Box::new(|_, _: &_| {});
    let machine = CatalogMachine::new(snapshot, storage.clone(), publisher, observe).unwrap();
    (LogStore::new(recovered, storage.clone()), machine, storage)
}

impl StoreBuilder<Types<Tokio>, LogStore<Tokio>, CatalogMachine<Tokio>> for Builder {
    async fn build(&self) -> Result<Opened, StorageError<Types<Tokio>>> {
        let disk = formatted(1);
        let (log, machine, _) = open(&disk).await;
        Ok(((), log, machine))
    }
}

#[test]
fn the_store_passes_openrafts_own_suite() {
    Types::<Tokio>::run(async {
        Suite::<Types<Tokio>, LogStore<Tokio>, CatalogMachine<Tokio>, Builder, ()>::test_all(
            Builder,
        )
        .await
        .unwrap();
    });
}

fn log_id(term: u64, index: u64) -> LogId {
    let leader = openraft::impls::leader_id_adv::LeaderId {
        term,
        node_id: MemberId::from(1),
    };
    LogId::new(leader, index)
}

fn blank(term: u64, index: u64) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: openraft::EntryPayload::Blank,
    }
}

fn records(term: u64, indexes: std::ops::Range<u64>) -> Vec<Record> {
    let seal = |entry: &Entry| Bytes::from(codec::seal(kind::ENTRY, entry).unwrap());
    indexes
        .map(|index| Record::Entry {
            index,
            entry: seal(&blank(term, index)),
        })
        .collect()
}

async fn indexes(log: &mut LogStore<Tokio>) -> Vec<u64> {
    log.try_get_log_entries(..)
        .await
        .unwrap()
        .iter()
        .map(|entry| entry.log_id.index)
        .collect()
}

#[tokio::test]
async fn what_is_durable_survives_a_power_loss() {
    let disk = formatted(2);
    let (mut log, _, storage) = open(&disk).await;
    let vote = openraft::Vote::new(7, MemberId::from(3));
    log.save_vote(&vote).await.unwrap();
    storage.append_durably(records(1, 0..10)).await.unwrap();
    log.truncate_after(Some(log_id(1, 4))).await.unwrap();
    storage.append_durably(records(2, 5..7)).await.unwrap();
    storage.stop().await;
    disk.crash();
    let (mut log, _, _) = open(&disk).await;
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(indexes(&mut log).await, (0..7).collect::<Vec<_>>());
    assert_eq!(
        log.get_log_state().await.unwrap().last_log_id,
        Some(log_id(2, 6))
    );
}

#[tokio::test]
async fn the_journal_never_fills_while_the_log_is_purged() {
    let disk = formatted(3);
    let (mut log, mut machine, storage) = open(&disk).await;
    let vote = openraft::Vote::new(9, MemberId::from(1));
    log.save_vote(&vote).await.unwrap();
    machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    // Some five times what the journal holds, with the vote given at the very start.
    let padding = Bytes::from(vec![0; 250 << 10]);
    let mut next = 0;
    for _ in 0..60 {
        let wide: Vec<Record> = (0..20)
            .map(|_| Record::Committed(padding.clone()))
            .collect();
        storage.append(wide, Flushed::Nobody).await.unwrap();
        let mut some = records(1, next..next + 20);
        next += 20;
        let log_id = Bytes::from(codec::seal(kind::LOG_ID, &log_id(1, next - 4)).unwrap());
        some.push(Record::Purge {
            index: next - 4,
            log_id,
        });
        some.push(Record::Committed(Bytes::from(
            codec::seal(kind::LOG_ID, &self::log_id(1, next - 1)).unwrap(),
        )));
        storage.append_durably(some).await.unwrap();
    }
    // The snapshot that the log goes on from.
    let meta = crate::group::SnapshotMeta {
        last_log_id: Some(log_id(1, next - 4)),
        ..Default::default()
    };
    machine
        .install_snapshot(&meta, Catalog::default().encode().unwrap().into())
        .await
        .unwrap();
    storage.stop().await;
    disk.crash();
    let (mut log, _, _) = open(&disk).await;
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(indexes(&mut log).await, [next - 3, next - 2, next - 1]);
    assert_eq!(
        log.read_committed().await.unwrap(),
        Some(log_id(1, next - 1))
    );
}

#[tokio::test]
async fn a_purged_log_without_its_snapshot_is_refused() {
    let disk = formatted(4);
    let (mut log, _, storage) = open(&disk).await;
    storage.append_durably(records(1, 0..10)).await.unwrap();
    log.purge(log_id(1, 4)).await.unwrap();
    storage.stop().await;
    let refused = start(disk.clone()).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("snapshot"), "{refused}");
}

#[tokio::test]
async fn a_torn_snapshot_leaves_the_one_before() {
    let disk = formatted(5);
    let (_, mut machine, storage) = open(&disk).await;
    for index in [3, 4] {
        let meta = crate::group::SnapshotMeta {
            last_log_id: Some(log_id(1, index)),
            ..Default::default()
        };
        machine
            .install_snapshot(&meta, Catalog::default().encode().unwrap().into())
            .await
            .unwrap();
    }
    storage.stop().await;
    let (_, mut machine, storage) = open(&disk).await;
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1, 4)));
    storage.stop().await;
    disk.damage("raft/snapshot-0");
    let (_, mut machine, _) = open(&disk).await;
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1, 3)));
}

#[tokio::test]
async fn a_failing_disk_fails_what_waits_for_it() {
    let disk = formatted(6);
    let (mut log, _, _) = open(&disk).await;
    disk.fail_writes("raft/journal/segment-0000");
    assert!(
        log.save_vote(&openraft::Vote::new(1, MemberId::from(1)))
            .await
            .is_err()
    );
    assert_eq!(log.read_vote().await.unwrap(), None);
}

#[tokio::test]
async fn a_store_that_was_not_formatted_is_refused() {
    let refused = start(SharedDisk::new(7)).await.map(drop);
    assert!(
        refused.is_err(),
        "a member that forgot its votes must not start under its name"
    );
    let disk = formatted(8);
    assert!(
        crate::format(&mut disk.clone(), "raft", 1).is_err(),
        "formatting twice would forget votes"
    );
}

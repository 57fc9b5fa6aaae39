//! The store with which a forced generation begins: what one survivor holds of the catalog, changed, and this survivor as the only member.

use futures_util::FutureExt;
use isthmus_catalog::{Answer, Catalog, Lineage, codec};
use isthmus_engine::{Incarnation, NodeId, VolumeId};
use isthmus_journal::Disk;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::{EmptyNode, EntryPayload};
use std::collections::{BTreeMap, BTreeSet};

use super::blocking::Blocking;
use super::snapshots::StoredSnapshot;
use super::writer::{Flushed, Recovered, Work, Writer};
use super::{Record, format};
use crate::error::KvdbError;
use crate::group::{LogId, MemberId, Membership, SnapshotMeta, Vote, kind};
use crate::runtime::{self, Tokio};

/// Makes the store in `to` from the one in `from`, which stays as it is: its catalog is what `change` makes of all that the survivor holds
/// in its log, also of what it does not know to be committed. For that may be: a commit that this member has not heard of counts, and of
/// one that was none, a leader could have made one. What others had committed and this member does not hold is lost, which is why
/// `change` has to make a new generation of it. The lineage of what `change` returns names the new group. `identity` is as for
/// [`super::format()`].
///
/// To be called while nobody runs on either store. What is in `to` is removed first.
///
/// # Errors
/// `Store`, when the old store can't be read, or the new one can't be written; what `change` says.
pub fn force<D: Disk>(
    disk: D,
    from: &str,
    to: &str,
    node: NodeId,
    incarnation: Incarnation,
    identity: u64,
    change: impl FnOnce(Catalog) -> Result<Catalog, KvdbError>,
) -> Result<Lineage, KvdbError> {
    let store = |error: &dyn std::fmt::Display| KvdbError::Store(error.to_string());
    let mut disk = Blocking::new(disk);
    let (_, recovered) = Writer::<Tokio>::open(&mut disk, from)?;
    let catalog = change(all_that_is_held(recovered)?)?;
    let lineage = catalog.lineage.clone();
    let member = MemberId::of(node, incarnation, &lineage);

    disk.remove(to).map_err(|error| store(&error))?;
    format(&mut disk, to, identity)?;
    let leader = LeaderId {
        term: 1,
        node_id: member,
    };
    let last = LogId::new(leader, 1);
    let voters = vec![BTreeSet::from([member])];
    let nodes = BTreeMap::from([(member, EmptyNode::new())]);
    let membership = openraft::Membership::new(voters, nodes).map_err(|error| store(&error))?;
    let snapshot = StoredSnapshot {
        meta: SnapshotMeta {
            last_log_id: Some(last),
            last_membership: Membership::new(Some(last), membership),
        },
        catalog: catalog.encode().map_err(|error| store(&error))?.into(),
    };
    let seal = |error: codec::CodecError| store(&error);
    let vote = Vote {
        leader_id: leader,
        committed: false,
    };
    let records = vec![
        Record::Vote(codec::seal(kind::VOTE, &vote).map_err(seal)?.into()),
        Record::Purge {
            index: last.index,
            log_id: codec::seal(kind::LOG_ID, &last).map_err(seal)?.into(),
        },
    ];
    // The log says that it was purged only once the snapshot is there.
    let (done, written) = runtime::oneshot::<Tokio, _>();
    let (flushed, durable) = runtime::oneshot::<Tokio, _>();
    let (mut writer, _) = Writer::<Tokio>::open(&mut disk, to)?;
    writer.push(Work::Snapshot { snapshot, done });
    writer.push(Work::Records {
        records,
        flushed: Flushed::Waiting(flushed),
    });
    writer.step(&mut disk);
    assert!(writer.is_idle(), "a disk that blocks leaves nothing open");
    for told in [written, durable] {
        let result = told.now_or_never().and_then(Result::ok);
        let result = result.ok_or_else(|| store(&"nobody wrote the new store"))?;
        result.map_err(|error| store(&error))?;
    }
    Ok(lineage)
}

/// The catalog with every entry of the log applied.
fn all_that_is_held(recovered: Recovered) -> Result<Catalog, KvdbError> {
    let (mut catalog, applied) = match &recovered.snapshot {
        Some(snapshot) => {
            let catalog = Catalog::decode(&snapshot.catalog)
                .map_err(|error| KvdbError::Store(error.to_string()))?;
            (catalog, snapshot.meta.last_log_id.map(|last| last.index))
        }
        None => (Catalog::default(), None),
    };
    let mut heard: BTreeSet<VolumeId> = catalog.volumes.keys().copied().collect();
    for (entry, _) in recovered.entries {
        if applied.is_some_and(|applied| entry.log_id.index <= applied) {
            continue;
        }
        if let EntryPayload::Normal(proposal) = entry.payload
            && let Answer::Volume(made) = catalog.apply(&proposal.0)
        {
            heard.insert(made);
        }
    }
    // A deletion that is only in the log may never have been agreed on: others may have served the volume since. Their replicas are kept.
    let gone = heard.iter().filter(|id| !catalog.volumes.contains_key(id));
    catalog.unheard.extend(gone.map(|id| (id.0, id.0 + 1)));
    Ok(catalog)
}

//! Generations of the cluster: going on without quorum, and following a node that did.
//!
//! A process belongs to one generation from its start to its end. So it changes to another one by stopping in order and starting anew
//! (the same program, in the same process): that also ends every right to serve that it had, and makes it wait until those that it gave
//! are over, as after any start (I3).
//!
//! Each generation has a folder of its own for kvdb's part of the store. It is made whole first; what changes the generation is one
//! write of the page that names it.

use crate::store::{self, Store};
use crate::{random, run};
use anyhow::Context;
use isthmus_catalog::{Answer, Catalog, Cause, Command, Lineage, Refusal, Request, RequestId};
use isthmus_engine::NodeId;
use isthmus_kvdb::KvdbError;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// How this node goes on in another generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It goes on alone, by the operator's word.
    Force {
        /// Its lineage.
        lineage: Lineage,
        /// For the audit trail.
        cause: Cause,
        /// What to begin with instead of what this node holds: a catalog that was saved.
        catalog: Option<Arc<Catalog>>,
    },
    /// It follows a node that did.
    Follow(Lineage),
}

/// The generation of this process, others that it has met, and how it is told to change. Clones are the same.
#[derive(Clone, Debug)]
pub struct Generation {
    lineage: Lineage,
    met: Arc<Mutex<BTreeMap<NodeId, Lineage>>>,
    change: watch::Sender<Option<Change>>,
}

impl Generation {
    /// A process of this generation.
    pub fn new(lineage: Lineage) -> Generation {
        Generation {
            lineage,
            met: Arc::default(),
            change: watch::Sender::new(None),
        }
    }

    /// This process's.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Nodes that were reached, and belong neither to this generation nor to one that will become it by itself: with what they belong to.
    pub fn strangers(&self) -> Vec<(NodeId, Lineage)> {
        let met = self.met.lock();
        let strangers = met.iter().filter(|(_, theirs)| {
            **theirs != self.lineage
                && !theirs.descends_from(&self.lineage)
                && !self.lineage.descends_from(theirs)
        });
        strangers
            .map(|(node, theirs)| (*node, theirs.clone()))
            .collect()
    }

    /// A node of another generation was reached.
    pub fn met(&self, peer: NodeId, ids: Vec<u64>) {
        let is_sound = ids.len() < Lineage::MAX && !ids.contains(&0);
        let theirs = Lineage(ids);
        if theirs == self.lineage {
            return;
        }
        let is_known = self.met.lock().insert(peer, theirs.clone()).as_ref() == Some(&theirs);
        if theirs.descends_from(&self.lineage) && is_sound {
            tracing::warn!(%peer, ours = %self.lineage, %theirs, "a newer generation of the cluster was forced: this node stops and follows it");
            self.begin(Change::Follow(theirs));
        } else if is_known {
        } else if self.lineage.descends_from(&theirs) {
            tracing::info!(%peer, ours = %self.lineage, %theirs, "a node of an earlier generation was told of this one");
        } else {
            tracing::error!(%peer, ours = %self.lineage, %theirs, "STRANGER: this node and the other one belong to generations that were forced apart from each other: decide which one counts, and empty the data directories of the other one's nodes");
        }
    }

    /// A session with the peer is up: it belongs to this generation.
    pub fn is_ours(&self, peer: NodeId) {
        self.met.lock().remove(&peer);
    }

    /// Tells this process to change, unless it was told already.
    pub fn begin(&self, change: Change) -> bool {
        self.change.send_if_modified(|begun| {
            let is_first = begun.is_none();
            if is_first {
                *begun = Some(change);
            }
            is_first
        })
    }

    /// Returns when this process is told to change.
    pub async fn changed(&self) -> Change {
        let mut told = self.change.subscribe();
        loop {
            if let Some(change) = told.borrow_and_update().clone() {
                return change;
            }
            if told.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Changes the store, of which nothing is in use any more. A crash before its end leaves it in the generation that it was.
///
/// # Errors
/// One line for the operator.
pub fn apply(folder: &Path, store: &mut Store, change: Change) -> anyhow::Result<()> {
    match change {
        Change::Follow(lineage) => store.set_lineage(folder, lineage, false),
        Change::Force {
            lineage,
            cause,
            catalog,
        } => {
            let request = Request {
                id: RequestId {
                    client: lineage.id(),
                    number: 0,
                },
                cause,
                command: Command::ForceGeneration { id: lineage.id() },
            };
            let (cluster, before) = (store.cluster, store.lineage.clone());
            let force = |held: Catalog| {
                let refused = |refusal: Refusal| KvdbError::Store(refusal.to_string());
                let mut catalog = match catalog {
                    None => held,
                    Some(saved) => Arc::unwrap_or_clone(saved)
                        .restored_over(&held, cluster, &before)
                        .map_err(refused)?,
                };
                match catalog.apply(&request) {
                    Answer::Refused(refusal) => Err(refused(refusal)),
                    _ => Ok(catalog),
                }
            };
            let made = isthmus_kvdb::force(
                run::open_disk(folder)?,
                &store.kvdb_folder(),
                &store::kvdb_folder(&lineage),
                store.node,
                store.incarnation,
                random::number()?,
                force,
            );
            let made = made.context("no new generation was made")?;
            anyhow::ensure!(
                made == lineage,
                "another generation was made than was asked for"
            );
            store.set_lineage(folder, lineage, true)
        }
    }
}

/// Removes what other generations than this one and the one before it have left of kvdb. To be called only once kvdb holds something in this
/// one: until then they may be all that there is.
///
/// # Errors
/// What the file system said.
pub fn remove_others(folder: &Path, lineage: &Lineage) -> anyhow::Result<()> {
    let before = lineage
        .0
        .split_last()
        .map(|(_, before)| Lineage(before.to_vec()));
    let kept = [Some(lineage), before.as_ref()].map(|kept| kept.map(store::kvdb_folder));
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_one = name == "raft" || name.starts_with("raft-");
        if is_one && !kept.iter().flatten().any(|kept| kept == name) {
            std::fs::remove_dir_all(entry.path())
                .with_context(|| format!("can't remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Starts this program anew in this process, as it was started. Returns only where that fails.
pub fn start_anew() -> anyhow::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let error = std::process::Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .exec();
    anyhow::Error::new(error).context("can't start anew: start the node again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(generation: &Generation) -> Option<Change> {
        generation.change.borrow().clone()
    }

    #[test]
    fn only_a_descendant_is_followed() {
        let ours = Lineage(vec![7]);
        for others in [vec![], vec![7], vec![8], vec![8, 9]] {
            let generation = Generation::new(ours.clone());
            generation.met(NodeId(2), others.clone());
            assert_eq!(told(&generation), None, "{others:?}");
            let is_stranger = others.first() == Some(&8);
            assert_eq!(
                generation.strangers().len(),
                usize::from(is_stranger),
                "{others:?}"
            );
        }
        let generation = Generation::new(ours);
        generation.met(NodeId(2), vec![7, 9]);
        assert_eq!(told(&generation), Some(Change::Follow(Lineage(vec![7, 9]))));
    }

    #[test]
    fn a_process_is_told_once() {
        let generation = Generation::new(Lineage::default());
        assert!(generation.begin(Change::Follow(Lineage(vec![1]))));
        assert!(!generation.begin(Change::Follow(Lineage(vec![2]))));
        assert_eq!(told(&generation), Some(Change::Follow(Lineage(vec![1]))));
    }

    #[test]
    fn what_is_left_of_a_generation_long_ago_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let lineage = Lineage(vec![1, 2]);
        let (first, second) = (Lineage::default(), Lineage(vec![1]));
        for name in [&first, &second, &lineage].map(store::kvdb_folder) {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::create_dir(folder.path().join("volumes")).unwrap();
        remove_others(folder.path(), &lineage).unwrap();
        let left =
            [&second, &lineage].map(|lineage| folder.path().join(store::kvdb_folder(lineage)));
        assert!(left.iter().all(|folder| folder.exists()));
        assert!(!folder.path().join("raft").exists() && folder.path().join("volumes").exists());
    }
}

//! Who a data directory belongs to, and how often it was started (I12).
//!
//! The file `<data>/store` has two pages of 4096 bytes, written in turn: a start writes the page that is not current, so a
//! crash in the middle of it leaves the other one whole. The page with the higher start count is current.
//!
//! A page, little-endian: magic `ISTHSTOR`, version u32, crc32 u32 of all that follows, incarnation u64, starts u64,
//! cluster u64, node u32, formatted u32 (0 or 1), generations that were forced u32, zero u32, the id of each u64, zeroes to the end.

pub mod space;

use crate::random;
use anyhow::{Context, bail};
use isthmus_catalog::{Lineage, starts_counted};
use isthmus_engine::{Incarnation, NodeId};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: [u8; 8] = *b"ISTHSTOR";
const VERSION: u32 = 1;
const PAGE_BYTES: usize = 4096;
/// Where what the checksum covers begins.
const CHECKED_FROM: usize = 16;

/// Where the count of forced generations lies.
const LINEAGE_AT: usize = 48;

/// The identity of a data directory's store, this start counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Random, made when the directory was first used.
    pub incarnation: Incarnation,
    /// How often it was started, this time included, in the lower half; a random number of this start in the upper one: a store
    /// that was rolled back counts to the same number again, but never becomes the same start (I12).
    pub starts: u64,
    /// The cluster's id.
    pub cluster: u64,
    /// The node's id.
    pub node: NodeId,
    /// Whether what lies beside it (kvdb's log and vote first of all) was made. Until then this incarnation has told
    /// nobody anything, and what is there may be thrown away; afterwards a missing vote is a damaged store.
    pub formatted: bool,
    /// The cluster's generation to which kvdb's part of the store belongs.
    pub lineage: Lineage,
}

impl Store {
    /// The folder of kvdb's log and vote. Each generation has its own: so noting the generation is what changes from one to the other.
    #[must_use]
    pub fn kvdb_folder(&self) -> String {
        kvdb_folder(&self.lineage)
    }

    /// Notes durably that kvdb's part belongs to another generation from now on; `formatted` says whether its folder was made already. What
    /// the store holds of volumes stays as it is.
    ///
    /// # Errors
    /// What the file system said: then nothing has changed.
    pub fn set_lineage(
        &mut self,
        folder: &Path,
        lineage: Lineage,
        formatted: bool,
    ) -> anyhow::Result<()> {
        // In the other place, as a start is: a crash in the middle of it leaves what was.
        let store = Store {
            lineage,
            formatted,
            starts: next_start(self.starts)?,
            ..self.clone()
        };
        self.replace(folder, store)
    }

    /// Notes durably that all that belongs to the store was made. A crash in the middle leaves it unformatted.
    ///
    /// # Errors
    /// What the file system said.
    pub fn set_formatted(&mut self, folder: &Path) -> anyhow::Result<()> {
        let store = Store {
            formatted: true,
            ..self.clone()
        };
        self.replace(folder, store)
    }

    fn replace(&mut self, folder: &Path, store: Store) -> anyhow::Result<()> {
        let path = folder.join("store");
        let write = || -> io::Result<()> {
            let file = File::options().write(true).open(&path)?;
            file.write_all_at(&encode(&store), store.place())?;
            file.sync_data()
        };
        write().with_context(|| format!("can't write {}", path.display()))?;
        *self = store;
        Ok(())
    }

    /// Where its page lies in the file.
    fn place(&self) -> u64 {
        (self.starts % 2) * PAGE_BYTES as u64
    }
}

/// The folder of kvdb's log and vote in a generation.
#[must_use]
pub fn kvdb_folder(lineage: &Lineage) -> String {
    match lineage.number() {
        0 => "raft".to_owned(),
        _ => format!("raft-{lineage}"),
    }
}

/// Opens the store in `folder`, makes it when the folder is new, and counts this start durably.
///
/// # Errors
/// One line for the operator: the store of another cluster or node, a damaged one, data without a store, or what the file
/// system said. Nothing has changed then.
pub fn start(folder: &Path, cluster: u64, node: NodeId) -> anyhow::Result<Store> {
    let path = folder.join("store");
    let file = match File::options().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return create(folder, cluster, node);
        }
        Err(error) => return Err(error).context(format!("can't open {}", path.display())),
    };
    let mut bytes = vec![0; 2 * PAGE_BYTES];
    let copies = match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => bytes.chunks_exact(PAGE_BYTES).filter_map(decode).collect(),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Vec::new(),
        Err(error) => return Err(error).context(format!("can't read {}", path.display())),
    };
    let Some(current) = copies
        .into_iter()
        .max_by_key(|store: &Store| starts_counted(store.starts))
    else {
        bail!(
            "{} is damaged: both copies fail their checksums; keep the data directory for inspection, and start with an empty \
             one: the node comes back as a new replica",
            path.display()
        );
    };
    if current.cluster != cluster {
        bail!(
            "{} belongs to another cluster (id {:016x}, this configuration has {cluster:016x}): choose another data_dir",
            folder.display(),
            current.cluster
        );
    }
    if current.node != node {
        bail!(
            "{} belongs to node {} of this cluster, not to {node}: choose another data_dir",
            folder.display(),
            current.node
        );
    }
    let store = Store {
        starts: next_start(current.starts)?,
        ..current
    };
    file.write_all_at(&encode(&store), store.place())
        .and_then(|()| file.sync_data())
        .with_context(|| format!("can't count this start in {}", path.display()))?;
    Ok(store)
}

/// The start after that one.
fn next_start(starts: u64) -> anyhow::Result<u64> {
    let random = random::number().context("no random numbers")?;
    Ok((starts_counted(starts) + 1) | random << 32)
}

fn create(folder: &Path, cluster: u64, node: NodeId) -> anyhow::Result<Store> {
    for name in ["journal", "raft", "volumes"] {
        if folder.join(name).exists() {
            bail!(
                "{} has data ({name}) but no file 'store': it is not (or no more) a node's data directory; choose another one",
                folder.display()
            );
        }
    }
    let incarnation = Incarnation(random::number().context("no random numbers")?);
    let store = Store {
        incarnation,
        starts: next_start(0)?,
        cluster,
        node,
        formatted: false,
        lineage: Lineage::default(),
    };
    let mut bytes = encode(&Store {
        starts: 0,
        ..store.clone()
    });
    bytes.extend(encode(&store));
    let (new, path) = (folder.join("store.new"), folder.join("store"));
    let write = || -> io::Result<()> {
        let file = File::create(&new)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("can't make {}", path.display()))?;
    Ok(store)
}

fn encode(store: &Store) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE_BYTES);
    page.extend(MAGIC);
    page.extend(VERSION.to_le_bytes());
    page.extend([0; 4]);
    page.extend(store.incarnation.0.to_le_bytes());
    page.extend(store.starts.to_le_bytes());
    page.extend(store.cluster.to_le_bytes());
    page.extend(store.node.0.to_le_bytes());
    page.extend(u32::from(store.formatted).to_le_bytes());
    page.extend(u64::from(store.lineage.number()).to_le_bytes());
    for id in &store.lineage.0 {
        page.extend(id.to_le_bytes());
    }
    page.resize(PAGE_BYTES, 0);
    let checksum = crc32fast::hash(&page[CHECKED_FROM..]);
    page[12..16].copy_from_slice(&checksum.to_le_bytes());
    page
}

fn decode(page: &[u8]) -> Option<Store> {
    assert_eq!(page.len(), PAGE_BYTES, "a copy is one page");
    let number = |at: usize| Some(u64::from_le_bytes(page.get(at..at + 8)?.try_into().ok()?));
    let short = |at: usize| Some(u32::from_le_bytes(page.get(at..at + 4)?.try_into().ok()?));
    if page[..8] != MAGIC
        || short(8)? != VERSION
        || short(12)? != crc32fast::hash(&page[CHECKED_FROM..])
    {
        return None;
    }
    let generations = number(LINEAGE_AT)?;
    if generations > Lineage::MAX as u64 {
        return None;
    }
    let ids = (1..=generations as usize).map(|place| number(LINEAGE_AT + place * 8));
    Some(Store {
        lineage: Lineage(ids.collect::<Option<Vec<u64>>>()?),
        incarnation: Incarnation(number(16)?),
        starts: number(24)?,
        cluster: number(32)?,
        node: NodeId(short(40)?),
        formatted: short(44)? == 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_is_counted_and_the_incarnation_stays() {
        let folder = tempfile::tempdir().unwrap();
        let first = start(folder.path(), 7, NodeId(1)).unwrap();
        assert_eq!(starts_counted(first.starts), 1);
        for count in 2..6 {
            let store = start(folder.path(), 7, NodeId(1)).unwrap();
            let starts = store.starts;
            assert_eq!(starts_counted(starts), count);
            let first = first.clone();
            assert_eq!(store, Store { starts, ..first });
        }
    }

    #[test]
    fn a_start_after_a_rollback_counts_the_same_and_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        start(folder.path(), 7, NodeId(1)).unwrap();
        let path = folder.path().join("store");
        let before = std::fs::read(&path).unwrap();
        let one = start(folder.path(), 7, NodeId(1)).unwrap().starts;
        std::fs::write(&path, before).unwrap();
        let other = start(folder.path(), 7, NodeId(1)).unwrap().starts;
        assert_eq!(starts_counted(one), starts_counted(other));
        assert_ne!(one, other);
    }

    #[test]
    fn that_it_was_formatted_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = start(folder.path(), 7, NodeId(1)).unwrap();
        assert!(!store.formatted);
        store.set_formatted(folder.path()).unwrap();
        let next = start(folder.path(), 7, NodeId(1)).unwrap();
        assert_eq!(starts_counted(next.starts), 2);
        let starts = next.starts;
        assert_eq!(next, Store { starts, ..store });
        assert!(next.formatted);
    }

    #[test]
    fn a_store_changes_its_generation_at_once_and_keeps_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = start(folder.path(), 7, NodeId(1)).unwrap();
        store.set_formatted(folder.path()).unwrap();
        assert_eq!(store.kvdb_folder(), "raft");
        let lineage = Lineage(vec![0xab]);
        store
            .set_lineage(folder.path(), lineage.clone(), false)
            .unwrap();
        let next = start(folder.path(), 7, NodeId(1)).unwrap();
        assert_eq!((&next.lineage, next.formatted), (&lineage, false));
        assert_eq!(next.incarnation, store.incarnation);
        assert_eq!(next.kvdb_folder(), "raft-1-00000000000000ab");
    }

    #[test]
    fn another_cluster_or_node_is_refused_and_nothing_changes() {
        let folder = tempfile::tempdir().unwrap();
        start(folder.path(), 7, NodeId(1)).unwrap();
        let before = std::fs::read(folder.path().join("store")).unwrap();
        let error = start(folder.path(), 8, NodeId(1)).unwrap_err().to_string();
        assert!(error.contains("another cluster"), "{error}");
        let error = start(folder.path(), 7, NodeId(2)).unwrap_err().to_string();
        assert!(error.contains("belongs to node n1"), "{error}");
        assert_eq!(std::fs::read(folder.path().join("store")).unwrap(), before);
    }

    #[test]
    fn one_torn_copy_is_survived_two_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = start(folder.path(), 7, NodeId(1)).unwrap();
        start(folder.path(), 7, NodeId(1)).unwrap();
        let file = File::options()
            .write(true)
            .open(folder.path().join("store"))
            .unwrap();
        file.write_all_at(b"torn", 20).unwrap(); // Starts = 2 lies in the first page.
        let next = start(folder.path(), 7, NodeId(1)).unwrap();
        assert_eq!(starts_counted(next.starts), 2);
        assert_eq!(next.incarnation, first.incarnation);
        file.write_all_at(b"torn", 20).unwrap();
        file.write_all_at(b"torn", PAGE_BYTES as u64 + 20).unwrap();
        let error = start(folder.path(), 7, NodeId(1)).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }

    #[test]
    fn one_wrong_bit_anywhere_in_a_copy_is_noticed() {
        let store = Store {
            incarnation: Incarnation(0x0123_4567_89ab_cdef),
            starts: 3,
            cluster: 7,
            node: NodeId(1),
            formatted: true,
            lineage: Lineage(vec![0xfedc, 1, u64::MAX]),
        };
        let mut page = encode(&store);
        assert_eq!(decode(&page), Some(store));
        for bit in 0..PAGE_BYTES * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&page), None, "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn data_without_a_store_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("raft")).unwrap();
        let error = start(folder.path(), 7, NodeId(1)).unwrap_err().to_string();
        assert!(error.contains("no file 'store'"), "{error}");
    }
}

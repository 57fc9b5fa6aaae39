//! The replicas in a data directory, from their folders to the end of the journal; and what becomes of them when the journal can't be
//! trusted.

use super::{HostError, JOURNAL_FOLDER, JOURNAL_TAG, folder};
use crate::lives::{Lives, owner_of, stream_of};
use crate::mirror::{MirrorError, Recovering, mark_of};
use isthmus_engine::{ReplicaId, Settings, VolumeId};
use isthmus_journal::{Disk, Journal, JournalError, StreamId};
use isthmus_volume::StoreError;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// The replicas in the data directory, between opening their extents and the end of the journal.
pub(super) struct Folders<R> {
    pub recovering: BTreeMap<u64, Recovering<R>>,
    pub closed: BTreeMap<VolumeId, String>,
    pub damaged: BTreeSet<VolumeId>,
    pub tags: BTreeMap<u16, VolumeId>,
    pub next_tag: u16,
    pub lives: Lives,
}

impl<R> Folders<R> {
    pub fn open<D: Disk>(
        disk: &mut D,
        me: ReplicaId,
        settings: Settings,
        next_tag: u16,
    ) -> Result<Folders<R>, HostError> {
        let mut folders = Folders {
            recovering: BTreeMap::new(),
            closed: BTreeMap::new(),
            damaged: BTreeSet::new(),
            tags: BTreeMap::new(),
            next_tag,
            lives: Lives::default(),
        };
        for number in volumes(disk)? {
            let (volume, tag) = (VolumeId(number), folders.next_tag);
            match Recovering::open(disk, &folder(volume), tag, me, settings) {
                Ok(mirror) => {
                    folders.lives.note(volume, mirror.life());
                    folders.tags.insert(tag, volume);
                    folders.recovering.insert(number, mirror);
                }
                // Formatting did not finish: nothing was ever in it.
                Err(MirrorError::Store(StoreError::NotFormatted)) => {}
                Err(error) => {
                    if matches!(error, MirrorError::Store(StoreError::Damaged(_))) {
                        folders.damaged.insert(volume);
                    }
                    folders.closed.insert(volume, error.to_string());
                }
            }
            folders.next_tag += 1;
        }
        Ok(folders)
    }

    /// Opens the journal, which gives the replicas their records.
    pub fn replay<D: Disk>(&mut self, disk: &mut D) -> Result<Journal, JournalError> {
        let mut unknown = BTreeSet::new();
        let recovering = &mut self.recovering;
        let mut journal = Journal::open(
            disk,
            JOURNAL_FOLDER,
            JOURNAL_TAG,
            &mut |lsn, stream, record| {
                let (volume, life) = owner_of(stream);
                match recovering.get_mut(&volume.0) {
                    Some(mirror) if mirror.life() == life => mirror.replay(lsn, &record),
                    Some(_) | None => {
                        unknown.insert(stream);
                    }
                }
            },
        )?;
        for stream in &unknown {
            let (volume, life) = owner_of(*stream);
            self.lives.note(volume, life);
        }
        // Records of deleted volumes, of replicas that were removed, and those that count no more.
        let kept = |stream: &StreamId| self.closed.contains_key(&owner_of(*stream).0);
        let lost = self
            .recovering
            .iter()
            .filter(|(_, mirror)| mirror.is_lost());
        let lost = lost.map(|(number, mirror)| stream_of(VolumeId(*number), mirror.life()));
        for stream in unknown
            .into_iter()
            .filter(|stream| !kept(stream))
            .chain(lost)
        {
            journal.release(stream, journal.next());
        }
        Ok(journal)
    }
}

fn volumes<D: Disk>(disk: &mut D) -> io::Result<Vec<u64>> {
    let names = disk.list("volumes")?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The journal can't be trusted: what it held is lost for every replica of this node. That is noted durably, replica by replica,
/// before the journal goes, so that no crash lets any of them come back as if nothing was missing.
pub(super) fn give_journal_up<D: Disk>(
    disk: &mut D,
    error: &JournalError,
    announced: &mut Vec<(VolumeId, String)>,
) -> io::Result<()> {
    tracing::error!("JOURNAL LOST: {error}");
    for number in volumes(disk)? {
        let volume = VolumeId(number);
        match disk.create(&mark_of(&folder(volume)), 0, false) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made?;
            }
        }
        announced.push((volume, format!("JOURNAL LOST: {error}")));
    }
    disk.remove(JOURNAL_FOLDER)
}

//! Snapshot files: two, written in turn, so that one whole snapshot is always there.
//!
//! A file is the length of the first envelope (u32, little-endian), an envelope of number and Raft's description, and the
//! catalog's envelope. A file whose envelopes are not whole was being written in a crash, and the other one counts.

use bytes::Bytes;
use isthmus_catalog::Catalog;
use isthmus_catalog::codec::{self, CodecError, ENVELOPE_BYTES, PAYLOAD_BYTES_MAX};
use isthmus_journal::{Disk, DiskOp};
use std::io;

use crate::group::{SnapshotMeta, kind};

const LENGTH_BYTES: usize = 4;
/// Bytes of Raft's description at most: 1024 members would fit.
const META_BYTES_MAX: usize = 1 << 20;
const FILE_BYTES_MAX: u64 =
    (LENGTH_BYTES + META_BYTES_MAX + ENVELOPE_BYTES + PAYLOAD_BYTES_MAX) as u64;

/// A durable snapshot.
#[derive(Clone, Debug)]
pub(crate) struct StoredSnapshot {
    pub meta: SnapshotMeta,
    /// The catalog in its envelope.
    pub catalog: Bytes,
}

/// Which file comes next.
#[derive(Debug, Default)]
pub(super) struct SnapshotFiles {
    folder: String,
    number: u64,
}

fn path(folder: &str, number: u64) -> String {
    format!("{folder}/snapshot-{}", number % 2)
}

pub(super) fn remove_all<D: Disk>(disk: &mut D, folder: &str) -> io::Result<()> {
    disk.remove(&path(folder, 0))?;
    disk.remove(&path(folder, 1))
}

impl SnapshotFiles {
    /// The newest whole snapshot, if any.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn open<D: Disk>(
        disk: &mut D,
        folder: &str,
    ) -> io::Result<(SnapshotFiles, Option<StoredSnapshot>)> {
        let mut newest: Option<(u64, StoredSnapshot)> = None;
        for number in 0..2 {
            if let Some((number, snapshot)) = read(disk, &path(folder, number))?
                && newest.as_ref().is_none_or(|(newest, _)| *newest < number)
            {
                newest = Some((number, snapshot));
            }
        }
        let number = newest.as_ref().map_or(0, |(number, _)| *number);
        Ok((
            SnapshotFiles {
                folder: folder.to_owned(),
                number,
            },
            newest.map(|(_, snapshot)| snapshot),
        ))
    }

    /// Makes the file of the next snapshot, and returns what is to be written there. Until that is durable, the snapshot before
    /// it is the newest.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn begin<D: Disk>(
        &self,
        disk: &mut D,
        snapshot: &StoredSnapshot,
    ) -> io::Result<DiskOp> {
        let number = self.number + 1;
        let bytes = bytes(number, snapshot).map_err(io::Error::other)?;
        let path = path(&self.folder, number);
        disk.remove(&path)?;
        let file = disk.create(&path, bytes.len() as u64, false)?;
        Ok(DiskOp::Write {
            file,
            offset: 0,
            parts: vec![bytes.into()],
            durable: true,
        })
    }

    /// The write has ended: if well, the next snapshot goes to the other file.
    pub(super) fn was_written(&mut self, well: bool) {
        self.number += u64::from(well);
    }
}

fn read<D: Disk>(disk: &mut D, path: &str) -> io::Result<Option<(u64, StoredSnapshot)>> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = disk.length(file)?;
    if length > FILE_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    disk.read_now(file, 0, &mut bytes)?;
    Ok(parse(&bytes))
}

/// A snapshot file's content.
pub(crate) fn bytes(number: u64, snapshot: &StoredSnapshot) -> Result<Vec<u8>, CodecError> {
    let meta = codec::seal(kind::SNAPSHOT, &(number, &snapshot.meta))?;
    let length = u32::try_from(meta.len()).map_err(|_| CodecError::Length(meta.len()))?;
    Ok([length.to_le_bytes().as_slice(), &meta, &snapshot.catalog].concat())
}

/// The number and the snapshot that a file's content holds, if it is whole.
pub(crate) fn parse(bytes: &[u8]) -> Option<(u64, StoredSnapshot)> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let (meta, catalog) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let (number, meta): (u64, SnapshotMeta) = codec::unseal(kind::SNAPSHOT, meta).ok()?;
    Catalog::decode(catalog).ok()?;
    Some((
        number,
        StoredSnapshot {
            meta,
            catalog: Bytes::copy_from_slice(catalog),
        },
    ))
}

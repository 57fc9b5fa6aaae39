//! How many segments of which size, and the file that describes the journal.
//!
//! `<folder>/description` holds the same page twice: magic, version, identity, shape, CRC-32. It is written once, last
//! of all, by formatting, so that a journal with a description is whole. The *identity* is a random number that clients
//! can't know; it is part of every group header, so that no payload that a client writes can pass for a group.

use crate::disk::Disk;
use crate::error::JournalError;
use crate::layout::{GROUP_BYTES_MAX, PAGE_BYTES};
use std::io;

/// The version of everything that a journal writes.
pub const FORMAT_VERSION: u32 = 1;
/// The smallest segment.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// The largest segment.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The fewest segments: one being written, one kept for reserved records, one needed, one to spare.
pub const SEGMENTS_MIN: u32 = 4;
/// The most segments.
pub const SEGMENTS_MAX: u32 = 1024;

const MAGIC: [u8; 4] = *b"IJDe";
const DESCRIPTION_BYTES: usize = 36;
const _: () = assert!(
    GROUP_BYTES_MAX.is_multiple_of(PAGE_BYTES),
    "groups are whole pages"
);

/// How large a journal is: all its space is allocated when it is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes in a segment: a multiple of 4096, from 64 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// How many segments: from 4 to 1024.
    pub segments: u32,
}

impl Default for Shape {
    /// 16 segments of 16 MiB.
    fn default() -> Shape {
        Shape {
            segment_bytes: 16 << 20,
            segments: 16,
        }
    }
}

impl Shape {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`JournalError::BadShape`] that names the bound.
    pub fn check(self) -> Result<(), JournalError> {
        let refuse = |reason: String| Err(JournalError::BadShape { reason });
        if !self.segment_bytes.is_multiple_of(PAGE_BYTES) {
            return refuse(format!(
                "segment_bytes is {}, and must be a multiple of {PAGE_BYTES}",
                self.segment_bytes
            ));
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return refuse(format!(
                "segment_bytes is {}, and must be from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}",
                self.segment_bytes
            ));
        }
        if !(SEGMENTS_MIN..=SEGMENTS_MAX).contains(&self.segments) {
            return refuse(format!(
                "segments is {}, and must be from {SEGMENTS_MIN} to {SEGMENTS_MAX}",
                self.segments
            ));
        }
        Ok(())
    }

    /// The number of the segment file that holds use `sequence`: segments are used in turn.
    pub(crate) fn file_of(self, sequence: u64) -> u32 {
        (sequence % u64::from(self.segments)) as u32
    }
}

/// The path of a segment file.
pub(crate) fn segment_path(folder: &str, segment: u32) -> String {
    format!("{folder}/segment-{segment:04}")
}

/// The path of the description.
pub(crate) fn description_path(folder: &str) -> String {
    format!("{folder}/description")
}

/// What the description says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub identity: u64,
    pub shape: Shape,
}

impl Description {
    fn encode(self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_BYTES as usize);
        page.extend_from_slice(&MAGIC);
        page.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        page.extend_from_slice(&self.identity.to_le_bytes());
        page.extend_from_slice(&self.shape.segment_bytes.to_le_bytes());
        page.extend_from_slice(&self.shape.segments.to_le_bytes());
        page.extend_from_slice(&[0; 4]);
        page.extend_from_slice(&crc32fast::hash(&page).to_le_bytes());
        assert_eq!(
            page.len(),
            DESCRIPTION_BYTES,
            "the description's layout is fixed"
        );
        page.resize(PAGE_BYTES as usize, 0);
        page
    }

    /// The version and, if this code knows it, the description; `None` where the page is damaged.
    fn decode(page: &[u8]) -> Option<(u32, Option<Description>)> {
        let page = page.get(..DESCRIPTION_BYTES)?;
        let word =
            |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if page[..4] != MAGIC || crc32fast::hash(&page[..32]) != word(32) {
            return None;
        }
        let shape = Shape {
            segment_bytes: long(16),
            segments: word(24),
        };
        let known = word(4) == FORMAT_VERSION && shape.check().is_ok();
        Some((
            word(4),
            known.then_some(Description {
                identity: long(8),
                shape,
            }),
        ))
    }

    /// Reads the description of the journal in `folder`.
    pub fn read<D: Disk>(disk: &mut D, folder: &str) -> Result<Description, JournalError> {
        let path = description_path(folder);
        let absent = || JournalError::NotFormatted {
            folder: folder.to_owned(),
        };
        let failed = |action| {
            let path = path.clone();
            move |source| JournalError::Io {
                action,
                path,
                source,
            }
        };
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
            Err(error) => return Err(failed("open")(error)),
        };
        let mut pages = vec![0; 2 * PAGE_BYTES as usize];
        disk.read_now(file, 0, &mut pages).map_err(failed("read"))?;
        if pages.iter().all(|byte| *byte == 0) {
            return Err(absent());
        }
        let copies = pages
            .chunks(PAGE_BYTES as usize)
            .find_map(Description::decode);
        match copies {
            Some((_, Some(description))) => Ok(description),
            Some((found, None)) => Err(JournalError::UnknownVersion {
                path,
                found,
                known: FORMAT_VERSION,
            }),
            None => Err(JournalError::BadDescription { path }),
        }
    }

    /// Makes an empty journal in `folder`. A format that was interrupted is started again from nothing.
    pub fn format<D: Disk>(self, disk: &mut D, folder: &str) -> Result<(), JournalError> {
        self.shape.check()?;
        match Description::read(disk, folder) {
            Err(JournalError::NotFormatted { .. }) => {}
            Err(error @ JournalError::Io { .. }) => return Err(error),
            Ok(_) | Err(_) => {
                return Err(JournalError::AlreadyFormatted {
                    folder: folder.to_owned(),
                });
            }
        }
        let failed = |action, path: &str| {
            let path = path.to_owned();
            move |source| JournalError::Io {
                action,
                path,
                source,
            }
        };
        disk.remove(folder).map_err(failed("remove", folder))?;
        for segment in 0..self.shape.segments {
            let path = segment_path(folder, segment);
            disk.create(&path, self.shape.segment_bytes, true)
                .map_err(failed("create", &path))?;
        }
        let path = description_path(folder);
        let page = self.encode();
        let file = disk
            .create(&path, 2 * PAGE_BYTES, true)
            .map_err(failed("create", &path))?;
        disk.write_now(file, 0, &[page.as_slice(), page.as_slice()].concat())
            .map_err(failed("write", &path))
    }
}

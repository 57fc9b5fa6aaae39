//! Failures to come: operations that fail, writes that get lost or go astray, a file system that turns read-only.

use crate::file::Change;
use std::io;

/// A kind of operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads.
    Read,
    /// Writes, punches, and changes of a file's length or space.
    Write,
    /// Syncs.
    Sync,
}

/// What is to go wrong yet. Paths are beginnings of paths.
#[derive(Debug, Default)]
pub struct Failures {
    /// Operations that fail, and how often still.
    pub next: Vec<(Operation, String, u32)>,
    /// Writes that find no space, and how often still.
    pub no_space: Vec<(String, u32)>,
    /// Writes that are lost.
    pub lost: Vec<String>,
    /// Writes that land elsewhere, and how far off.
    pub misdirected: Vec<(String, u64)>,
    /// Whether nothing can be changed.
    pub read_only: bool,
}

impl Failures {
    /// Whether an operation may go on.
    ///
    /// # Errors
    /// What the disk says.
    pub fn check(&mut self, kind: Operation, path: &str) -> io::Result<()> {
        if kind != Operation::Read {
            self.check_read_only()?;
        }
        let full = |(begin, _): &(String, u32)| path.starts_with(begin);
        if kind == Operation::Write
            && let Some(at) = self.no_space.iter().position(full)
        {
            self.no_space[at].1 -= 1;
            if self.no_space[at].1 == 0 {
                self.no_space.remove(at);
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        let hit = self
            .next
            .iter()
            .position(|(other, begin, _)| *other == kind && path.starts_with(begin));
        let Some(at) = hit else { return Ok(()) };
        self.next[at].2 -= 1;
        if self.next[at].2 == 0 {
            self.next.remove(at);
        }
        Err(io::Error::other(format!("simulated {kind:?} error")))
    }

    /// Whether anything may be changed.
    ///
    /// # Errors
    /// What the disk says.
    pub fn check_read_only(&self) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }

    /// What becomes of a change: nothing, itself, or itself elsewhere.
    pub fn led_astray(&mut self, path: &str, change: Change, length: u64) -> Option<Change> {
        let Change::Write { offset, parts } = change else {
            return Some(change);
        };
        if let Some(at) = self.lost.iter().position(|begin| path.starts_with(begin)) {
            self.lost.remove(at);
            return None;
        }
        let hit = self
            .misdirected
            .iter()
            .position(|(begin, _)| path.starts_with(begin));
        let Some(at) = hit else {
            return Some(Change::Write { offset, parts });
        };
        let (_, distance) = self.misdirected.remove(at);
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let ahead = offset
            .checked_add(distance)
            .filter(|ahead| ahead + bytes <= length);
        let offset = ahead.or_else(|| offset.checked_sub(distance))?;
        Some(Change::Write { offset, parts })
    }
}

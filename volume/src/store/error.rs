//! Why a volume's folder can't be formatted or opened.

use super::format::PageFault;
use std::io;
use thiserror::Error;

/// Why a volume's folder can't be formatted or opened.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on which file.
        what: String,
        /// The disk's word.
        source: io::Error,
    },
    /// There is no (completely formatted) volume in the folder.
    #[error("the folder holds no formatted volume")]
    NotFormatted,
    /// There is a volume in the folder already.
    #[error("the folder holds a formatted volume already")]
    AlreadyFormatted,
    /// A volume can't have so many blocks.
    #[error("a volume of {0} blocks; 1 to {max} are possible", max = super::BLOCKS_MAX)]
    Size(u64),
    /// Metadata is damaged: this replica has to be formatted anew and copied from another.
    #[error(
        "the volume's {0} is damaged; the replica has to be formatted anew and copied from another one"
    )]
    Damaged(&'static str),
    /// The format is newer than this version.
    #[error("the volume's {what} has format {version}, which this version doesn't know")]
    Version {
        /// Which page.
        what: &'static str,
        /// Its format.
        version: u16,
    },
}

impl StoreError {
    pub(super) fn of_page(what: &'static str, fault: PageFault) -> StoreError {
        match fault {
            PageFault::Damaged | PageFault::Foreign => StoreError::Damaged(what),
            PageFault::Version(version) => StoreError::Version { what, version },
        }
    }

    /// A folder could not be listed.
    pub fn listing(folder: &str) -> impl FnOnce(io::Error) -> StoreError + use<> {
        StoreError::io(format!("list {folder}"))
    }

    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> StoreError {
        let what = what.into();
        move |source| StoreError::Io { what, source }
    }
}

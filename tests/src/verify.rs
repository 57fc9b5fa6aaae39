//! Reads a volume and compares: with a history, or with another replica of it.

use crate::history::History;
use crate::nbd::endpoint::Endpoint;
use crate::nbd::{OpenError, RequestError, Session};
use crate::patience;
use crate::stamp::{self, SECTOR_BYTES};
use std::ops::Range;
use std::time::Duration;

const CHUNK_SECTORS: u64 = 2048;
/// Wrong sectors that a failed test shows.
const SHOWN_MAX: usize = 10;

/// Opens a volume, again and again while the node says that it can't yet.
///
/// # Panics
/// When it can't be opened within `limit`.
#[track_caller]
pub fn open(endpoint: &Endpoint, export: &str, limit: Duration) -> Session {
    let mut last: Option<OpenError> = None;
    let session = patience::within(limit, || {
        Session::open(endpoint, export)
            .map_err(|error| last = Some(error))
            .ok()
    });
    session.unwrap_or_else(|| {
        let why = last.map(|error| error.to_string()).unwrap_or_default();
        panic!("{export} can't be opened at {endpoint:?} within {limit:?}: {why}")
    })
}

/// Reads these sectors with nothing else under way, checks each against the history, and settles it.
///
/// # Panics
/// When one is wrong or can't be read.
#[track_caller]
pub fn check(session: &mut Session, history: &mut History, region: Range<u64>) {
    let mut wrong = Vec::new();
    let mut wrong_count = 0;
    each_chunk(session, region, |first, data| {
        for (sector, bytes) in (first..).zip(data.chunks_exact(SECTOR_BYTES)) {
            let seen = stamp::look(bytes, history.id(), sector);
            if let Err(error) = history.check(sector, seen) {
                wrong_count += 1;
                if wrong.len() < SHOWN_MAX {
                    wrong.push(error);
                }
            }
            history.settle(sector, seen);
        }
    })
    .expect("the volume can be read");
    assert!(
        wrong.is_empty(),
        "{wrong_count} sectors are wrong after {} writes ({} acknowledged), first:\n{}",
        history.begun(),
        history.acknowledged(),
        wrong.join("\n")
    );
}

/// A hash of each MiB of these sectors.
///
/// # Errors
/// They can't be read.
pub fn hashes(session: &mut Session, region: Range<u64>) -> Result<Vec<String>, RequestError> {
    let mut hashes = Vec::new();
    each_chunk(session, region, |_, data| {
        hashes.push(blake3::hash(data).to_hex().to_string())
    })?;
    Ok(hashes)
}

fn each_chunk(
    session: &mut Session,
    region: Range<u64>,
    mut act: impl FnMut(u64, &[u8]),
) -> Result<(), RequestError> {
    let mut data = vec![0; CHUNK_SECTORS as usize * SECTOR_BYTES];
    let mut first = region.start;
    while first < region.end {
        let count = CHUNK_SECTORS.min(region.end - first);
        let data = &mut data[..count as usize * SECTOR_BYTES];
        session.read(first * SECTOR_BYTES as u64, data)?;
        act(first, data);
        first += count;
    }
    Ok(())
}

//! Both sites show the same bytes: at the end, when everything is in sync and nothing is under way, each volume is read whole at one
//! site and then at the other.
//!
//! Why it must hold: replicas in the in-sync set hold every acknowledged write (I1), and the same one outcome of every write that was
//! never acknowledged (I5). The register checker says that each of the two reads is right; this one also compares what both saw, also
//! where either outcome would have been right.

use isthmus_engine::VolumeId;
use std::collections::BTreeMap;

/// What each site showed: the write that each sector holds.
#[derive(Debug, Default)]
pub struct Replicas {
    seen: BTreeMap<(VolumeId, u64), (u64, usize)>,
    different: Option<String>,
}

impl Replicas {
    /// A site's inspection saw these sectors.
    pub fn saw(&mut self, volume: VolumeId, node: usize, first: u64, writes: &[u64]) {
        for (write, sector) in writes.iter().zip(first..) {
            let before = self.seen.insert((volume, sector), (*write, node));
            if let Some((other, site)) = before
                && site != node
                && other != *write
            {
                self.different.get_or_insert_with(|| {
                    format!(
                        "sector {sector} of {volume} holds write {other} at n{}, and write {write} at n{}",
                        site + 1,
                        node + 1
                    )
                });
            }
        }
    }

    /// # Errors
    /// The first difference.
    pub fn check(&self) -> Result<(), String> {
        self.different.clone().map_or(Ok(()), Err)
    }
}

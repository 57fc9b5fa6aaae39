//! The volumes in figures, some at a time: whoever wants many asks again, so that clients wait for none of it for long.

use super::Host;
use crate::figures::VolumeFigures;
use isthmus_engine::{Time, VolumeId};
use isthmus_journal::Disk;
use std::ops::Bound;

impl<D: Disk, R> Host<D, R> {
    /// The figures of up to `count` volumes behind `after`, in the order of their ids.
    #[must_use]
    pub fn figures(&self, now: Time, after: Option<VolumeId>, count: usize) -> Vec<VolumeFigures> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mirrors = self.mirrors.range((from, Bound::Unbounded)).take(count);
        mirrors.map(|(_, mirror)| mirror.figures(now)).collect()
    }
}

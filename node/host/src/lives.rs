//! The streams of the journal that belong to a volume: one for each life of its replica on this node.
//!
//! A replica that is removed, or made anew, leaves records behind that a crash may bring back until their segment is used again. They
//! tell of another replica: one that is made in its place has a stream of its own, which its files name from their first moment on.

use isthmus_engine::VolumeId;
use isthmus_journal::StreamId;
use std::collections::{BTreeMap, BTreeSet};

/// Above the volume's number. Numbers are counted up from 1, so they stay far below it.
const LIFE_SHIFT: u32 = 48;

/// The stream of a life of a volume's replica. The first life's is the volume's number, as it was before there were others.
pub(crate) fn stream_of(volume: VolumeId, life: u16) -> StreamId {
    StreamId(volume.0 & ((1 << LIFE_SHIFT) - 1) | u64::from(life) << LIFE_SHIFT)
}

/// Whose stream it is.
pub(crate) fn owner_of(stream: StreamId) -> (VolumeId, u16) {
    let number = stream.0 & ((1 << LIFE_SHIFT) - 1);
    let life = u16::try_from(stream.0 >> LIFE_SHIFT).unwrap_or(u16::MAX);
    (VolumeId(number), life)
}

/// The lives of which the journal may hold records.
#[derive(Debug, Default)]
pub(crate) struct Lives(BTreeMap<VolumeId, BTreeSet<u16>>);

impl Lives {
    /// There is one.
    pub(crate) fn note(&mut self, volume: VolumeId, life: u16) {
        self.0.entry(volume).or_default().insert(life);
    }

    /// One that there is no record of.
    pub(crate) fn fresh(&mut self, volume: VolumeId) -> u16 {
        let known = self.0.entry(volume).or_default();
        let life = (0..u16::MAX).find(|life| !known.contains(life));
        let life = life.expect("a node makes fewer than 65,000 replicas in one run");
        known.insert(life);
        life
    }

    /// All streams of the volume.
    pub(crate) fn streams(&self, volume: VolumeId) -> impl Iterator<Item = StreamId> {
        let lives = self.0.get(&volume).into_iter().flatten();
        lives.map(move |life| stream_of(volume, *life))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_life_has_a_stream_of_its_own_and_the_first_one_is_the_volumes_number() {
        let volume = VolumeId(77);
        assert_eq!(stream_of(volume, 0), StreamId(77));
        for life in [0, 1, u16::MAX] {
            assert_eq!(owner_of(stream_of(volume, life)), (volume, life));
        }
        let mut lives = Lives::default();
        lives.note(volume, 1);
        assert_eq!([0, 2, 3].map(|_| lives.fresh(volume)), [0, 2, 3]);
        assert_eq!(lives.fresh(VolumeId(1)), 0);
        assert_eq!(lives.streams(volume).count(), 4);
    }
}

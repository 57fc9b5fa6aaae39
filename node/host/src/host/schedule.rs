//! Which volumes have something to do, and when the others will: a volume that is idle costs nothing.

use isthmus_engine::{Time, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Who is to be looked at.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Something was handed to these, or they wait for what nobody announces (room in the journal, a disk that takes more).
    awake: BTreeSet<VolumeId>,
    /// When time matters to whom.
    pub(super) ticks: Alarms,
    /// When an extent of whom may be read to find bad blocks.
    pub(super) scrubs: Alarms,
}

impl Schedule {
    /// This volume is to be looked at in the next round.
    pub(super) fn wake(&mut self, volume: VolumeId) {
        self.awake.insert(volume);
    }

    /// These are to be looked at in the next round.
    pub(super) fn wake_all(&mut self, volumes: impl Iterator<Item = VolumeId>) {
        self.awake.extend(volumes);
    }

    /// Those whose time has come are to be looked at.
    pub(super) fn wake_due(&mut self, now: Time) {
        let due = self.ticks.by_time.iter();
        let due = due.take_while(|(at, _)| *at <= now);
        self.awake.extend(due.map(|(_, volume)| *volume));
    }

    /// The first that is awake after `last`.
    pub(super) fn next_awake(&self, last: Option<VolumeId>) -> Option<VolumeId> {
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.awake.range((after, Bound::Unbounded)).next().copied()
    }

    /// All that are awake.
    pub(super) fn awake(&self) -> impl Iterator<Item = VolumeId> + '_ {
        self.awake.iter().copied()
    }

    /// Takes all that are awake: each is to be put back or given its alarms.
    pub(super) fn take_awake(&mut self) -> BTreeSet<VolumeId> {
        std::mem::take(&mut self.awake)
    }

    /// The volume is gone.
    pub(super) fn forget(&mut self, volume: VolumeId) {
        self.awake.remove(&volume);
        self.ticks.set(volume, None);
        self.scrubs.set(volume, None);
    }
}

/// One time for each volume, at most.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    by_volume: BTreeMap<VolumeId, Time>,
    by_time: BTreeSet<(Time, VolumeId)>,
}

impl Alarms {
    /// Sets a volume's time, or that it has none.
    pub(super) fn set(&mut self, volume: VolumeId, at: Option<Time>) {
        let before = match at {
            Some(at) => self.by_volume.insert(volume, at),
            None => self.by_volume.remove(&volume),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, volume));
        }
        if let Some(at) = at {
            self.by_time.insert((at, volume));
        }
    }

    /// The earliest.
    pub(super) fn first(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Those whose time has come.
    pub(super) fn due(&self, now: Time) -> impl Iterator<Item = VolumeId> + '_ {
        let due = self.by_time.iter().take_while(move |(at, _)| *at <= now);
        due.map(|(_, volume)| *volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_that_is_awake_comes_once_whatever_its_number() {
        let mut schedule = Schedule::default();
        schedule.wake_all([u64::MAX, 0, 7].map(VolumeId).into_iter());
        let (mut seen, mut last) = (Vec::new(), None);
        while let Some(volume) = schedule.next_awake(last) {
            seen.push(volume.0);
            last = Some(volume);
        }
        assert_eq!(seen, [0, 7, u64::MAX]);
    }

    #[test]
    fn a_volume_has_one_time_at_most_and_none_when_it_is_gone() {
        let mut schedule = Schedule::default();
        schedule.ticks.set(VolumeId(1), Some(Time(5)));
        schedule.ticks.set(VolumeId(2), Some(Time(3)));
        schedule.ticks.set(VolumeId(1), Some(Time(9)));
        assert_eq!(schedule.ticks.first(), Some(Time(3)));
        schedule.wake_due(Time(5));
        assert_eq!(schedule.take_awake(), BTreeSet::from([VolumeId(2)]));
        schedule.forget(VolumeId(2));
        assert_eq!(schedule.ticks.first(), Some(Time(9)));
        schedule.ticks.set(VolumeId(1), None);
        assert_eq!(schedule.ticks.first(), None);
    }
}

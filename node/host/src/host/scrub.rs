//! The scrub: which volume's blocks are read next to find bad ones, and how fast.

use super::Host;
use crate::mirror::Mirror;
use isthmus_engine::{Time, VolumeId};
use isthmus_journal::Disk;
use std::time::Duration;

/// How fast, and how often, all blocks are read to find bad ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPace {
    /// Bytes per second, over all volumes of the node; 0: never.
    pub bytes_per_second: u64,
    /// From the end of a volume's pass to the next.
    pub pause: Duration,
}

impl Default for ScrubPace {
    fn default() -> ScrubPace {
        ScrubPace {
            bytes_per_second: 4 << 20,
            pause: Duration::from_secs(168 * 3600),
        }
    }
}

impl<D: Disk, R> Host<D, R> {
    /// Sets how fast and how often blocks are read to find bad ones.
    pub fn set_scrub(&mut self, pace: ScrubPace) {
        self.scrub = pace;
    }

    /// Begins a pass of the scrub over all volumes now.
    pub fn scrub_now(&mut self, now: Time) {
        self.mirrors.values_mut().for_each(Mirror::scrub_now);
        self.wake_all();
        self.next_scrub = now;
    }

    /// Reads one extent to find bad blocks, of the volume whose turn it is.
    pub(super) fn scrub(&mut self, now: Time) {
        if now < self.next_scrub || self.scrub.bytes_per_second == 0 {
            return;
        }
        let wants = |volume: &VolumeId| {
            let due = self.mirrors.get(volume).and_then(Mirror::next_scrub);
            due.is_some_and(|due| due <= now)
        };
        let due = self.schedule.scrubs.due(now).filter(wants);
        let next = due.min_by_key(|volume| (*volume <= self.scrubbed, *volume));
        let Some(volume) = next else { return };
        self.scrubbed = volume;
        self.schedule.wake(volume);
        if let Some(mirror) = self.mirrors.get_mut(&volume) {
            let bytes = mirror.scrub_on(now, self.scrub.pause);
            let takes = u128::from(bytes) * 1_000_000_000 / u128::from(self.scrub.bytes_per_second);
            self.next_scrub = now + Duration::from_nanos(u64::try_from(takes).unwrap_or(u64::MAX));
        }
    }
}

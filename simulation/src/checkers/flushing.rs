//! Volumes whose writes are answered when they are held (durability `flush`): only the loss of power at every member of the set may take
//! an answered write back, and none that was flushed.
//!
//! Why it must hold: it is what the policy promises (design, section 4). As long as one member of the committed set has kept what it
//! held, it leads, and nothing answered is missing. Once all have lost power, the volume begins anew with a state in which
//! everything is that was flushed, and of the rest whatever the new primary finds: the same from then on for everybody.
//!
//! How it is checked: each such loss ends an *era* of the volume. The reads of each era are checked by themselves, against all changes
//! so far, of which those that were answered in an era before and not made durable in it count only if they are seen. What makes
//! durable: a flush that began after the answer and was answered itself; being written so (FUA); and a new primary that opened, because
//! all members' logs are durable then.

use super::{Kind, NEVER, Operation, Stamp};
use isthmus_engine::VolumeId;
use std::collections::BTreeMap;

/// What happened to which volume, and when.
#[derive(Debug, Default)]
pub struct Flushing {
    losses: BTreeMap<VolumeId, Vec<Stamp>>,
    opened: BTreeMap<VolumeId, Vec<Stamp>>,
}

/// The operations by which the reads of one era are to be explained.
pub struct Era {
    /// For people.
    pub name: String,
    /// In no order.
    pub operations: Vec<Operation>,
}

impl Flushing {
    /// All members of the volume's set have lost power.
    pub fn all_kernels_lost(&mut self, now: Stamp, volume: VolumeId) {
        self.losses.entry(volume).or_default().push(now);
    }

    /// A new primary serves the volume.
    pub fn opened(&mut self, now: Stamp, volume: VolumeId) {
        self.opened.entry(volume).or_default().push(now);
    }

    /// Whether every answered change of the volume has to be there at the end.
    pub fn loses_nothing(&self, volume: VolumeId) -> bool {
        !self.losses.contains_key(&volume)
    }

    /// The volume's eras.
    pub fn eras(&self, volume: VolumeId, operations: &[Operation]) -> Vec<Era> {
        let losses = self.losses.get(&volume).map_or(&[][..], Vec::as_slice);
        let opened = self.opened.get(&volume).map_or(&[][..], Vec::as_slice);
        // By when what was answered before which moment is durable.
        let mut points: Vec<(Stamp, Stamp)> = opened.iter().map(|at| (*at, *at)).collect();
        let flushes = operations
            .iter()
            .filter(|operation| operation.kind == Kind::Flush);
        points.extend(
            flushes
                .filter(|flush| flush.done != NEVER)
                .map(|flush| (flush.begun, flush.done)),
        );
        let is_kept = |operation: &Operation, loss: Stamp| {
            operation.durably
                || points
                    .iter()
                    .any(|(before, by)| operation.done < *before && *by < loss)
        };
        let starts = std::iter::once(0).chain(losses.iter().copied());
        let ends = losses.iter().copied().chain([NEVER]);
        let eras = starts.zip(ends).enumerate().map(|(number, (start, end))| {
            let of_era = operations.iter().filter(|operation| {
                operation.begun < end && (operation.kind != Kind::Read || operation.begun >= start)
            });
            let operations = of_era.cloned().map(|mut operation| {
                let lost_by = losses
                    .iter()
                    .find(|loss| operation.done < **loss && **loss <= start);
                operation.maybe_lost = lost_by.is_some_and(|loss| !is_kept(&operation, *loss));
                operation
            });
            Era {
                name: format!("after {number} losses of power at all members"),
                operations: operations.collect(),
            }
        });
        eras.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sectors::Sectors;
    use super::*;

    const VOLUME: VolumeId = VolumeId(1);

    fn operation(kind: Kind, number: u64, begun: Stamp, saw: u64) -> Operation {
        let mut operation = Operation::new(number, VOLUME, kind, 0, 8);
        (operation.begun, operation.done) = (begun, begun + 1);
        operation.saw = vec![saw; 8];
        operation
    }

    fn check(loss: Stamp, operations: &[Operation]) -> bool {
        let mut flushing = Flushing::default();
        flushing.all_kernels_lost(loss, VOLUME);
        let eras = flushing.eras(VOLUME, operations);
        eras.iter()
            .all(|era| Sectors::new(8, era.operations.iter()).check().is_ok())
    }

    #[test]
    fn what_was_flushed_is_there_and_what_was_not_is_there_or_not() {
        let write = |number, begun| operation(Kind::Write, number, begun, 0);
        let read = |begun, saw| operation(Kind::Read, 99 + begun, begun, saw);
        let flush = operation(Kind::Flush, 50, 20, 0);
        let before = [write(1, 10), flush, write(2, 30), read(40, 2)];
        for (saw, is_right) in [(2, true), (1, true), (0, false)] {
            let after = [&before[..], &[read(110, saw)]].concat();
            assert_eq!(check(100, &after), is_right, "saw {saw}");
        }
        // One or the other, not both.
        let both = [&before[..], &[read(110, 1), read(120, 2)]].concat();
        assert!(!check(100, &both));
        // Before the loss, everything counts.
        let stale = [&before[..], &[read(50, 1)]].concat();
        assert!(!check(100, &stale));
    }

    #[test]
    fn what_was_written_durably_is_there() {
        let mut write = operation(Kind::Write, 1, 10, 0);
        write.durably = true;
        let lost = [write, operation(Kind::Read, 2, 110, 0)];
        assert!(!check(100, &lost));
    }
}

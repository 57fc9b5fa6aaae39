//! Each sector is a linearizable register: what all clients saw can be explained by one order of the operations, in which each read
//! sees the write before it, and which contradicts no two operations of which one ended before the other began.
//!
//! Why it must hold: it is promises 1 and 3 in one (nothing acknowledged is lost; no read is stale or sees what vanishes later). A
//! change that failed or was never answered may have happened or not, at any time until the next primary was opened: I5 and I9 let
//! either outcome be, but only one, and never later.
//!
//! The method is that of Gibbons and Korach ("Testing Shared Memories", 1997, section 4): every write brings a value of its own; the
//! write and the reads of a value are its *cluster*; with `first_end` the first end and `last_begin` the last begin in a cluster, a
//! cluster whose first end comes before its last begin holds the register in between (a forward zone), others can be put anywhere in
//! `last_begin..first_end` (a backward zone). An order exists exactly if no two forward zones overlap and no backward zone lies
//! inside a forward one. Zeroes alone don't name who brought them: a read of zeroes is right if it fits to one of the zeroings.

use super::{Kind, NEVER, Operation, Stamp};
use crate::content::ZEROES;
use std::collections::BTreeMap;

/// One volume's sectors, with the operations on each.
#[derive(Debug)]
pub struct Sectors<'a> {
    sectors: Vec<Vec<&'a Operation>>,
}

/// When the first operation of a cluster ended, and the last one began.
#[derive(Clone, Copy, Debug)]
struct Zone {
    first_end: Stamp,
    last_begin: Stamp,
}

impl Zone {
    fn of(operation: &Operation) -> Zone {
        Zone {
            first_end: operation.done.min(operation.void),
            last_begin: operation.begun,
        }
    }

    fn with(self, operation: &Operation) -> Zone {
        Zone {
            first_end: self.first_end.min(operation.done),
            last_begin: self.last_begin.max(operation.begun),
        }
    }

    fn is_forward(self) -> bool {
        self.first_end < self.last_begin
    }

    /// Whether the two can't be put in one order.
    fn contradicts(self, other: Zone) -> bool {
        match (self.is_forward(), other.is_forward()) {
            (true, true) => self.first_end < other.last_begin && other.first_end < self.last_begin,
            (true, false) => self.first_end < other.last_begin && other.first_end < self.last_begin,
            (false, true) => other.contradicts(self),
            (false, false) => false,
        }
    }
}

impl<'a> Sectors<'a> {
    /// The sectors of a volume of `count` sectors.
    #[must_use]
    pub fn new(count: u64, operations: impl Iterator<Item = &'a Operation>) -> Sectors<'a> {
        let mut sectors = vec![Vec::new(); count as usize];
        for operation in operations {
            if operation.kind == Kind::Read && operation.done == NEVER {
                continue;
            }
            for sector in operation.first..operation.first + operation.count {
                sectors[sector as usize].push(operation);
            }
        }
        Sectors { sectors }
    }

    /// Checks them all.
    ///
    /// # Errors
    /// What can't be explained, with the operations that contradict each other.
    pub fn check(&self) -> Result<(), String> {
        for (operations, sector) in self.sectors.iter().zip(0..) {
            check_one(sector, operations)?;
        }
        Ok(())
    }
}

/// Whether a change has happened, and is there.
fn is_sure(operation: &Operation) -> bool {
    operation.done != NEVER && !operation.maybe_lost
}

fn saw(read: &Operation, sector: u64) -> u64 {
    read.saw[(sector - read.first) as usize]
}

fn check_one(sector: u64, operations: &[&Operation]) -> Result<(), String> {
    let mut clusters: BTreeMap<u64, (Zone, &Operation, bool)> = BTreeMap::new();
    let mut zeroings: Vec<&Operation> = Vec::new();
    for operation in operations {
        match operation.kind {
            Kind::Write => {
                clusters.insert(
                    operation.number,
                    (Zone::of(operation), operation, is_sure(operation)),
                );
            }
            Kind::Zero | Kind::Trim => zeroings.push(operation),
            Kind::Read | Kind::Flush => {}
        }
    }
    let reads = || {
        operations
            .iter()
            .filter(|operation| operation.kind == Kind::Read)
    };
    for read in reads() {
        let value = saw(read, sector);
        if value == ZEROES {
            continue;
        }
        let Some((zone, write, counts)) = clusters.get_mut(&value) else {
            return Err(format!(
                "sector {sector}: read {} saw write {value}, which was not about this sector",
                read.number
            ));
        };
        if write.begun > read.done {
            return Err(format!(
                "sector {sector}: read {} saw write {value} before it was asked for",
                read.number
            ));
        }
        *zone = zone.with(read);
        *counts = true;
    }
    let mut zones: Vec<(Zone, u64)> = clusters
        .into_iter()
        .filter(|(_, (_, _, counts))| *counts)
        .map(|(number, (zone, _, _))| (zone, number))
        .collect();
    let written = zones.len();
    zones.extend(
        zeroings
            .iter()
            .filter(|zeroing| is_sure(zeroing))
            .map(|zeroing| (Zone::of(zeroing), zeroing.number)),
    );
    check_zones(sector, &zones, written, operations)?;
    for read in reads().filter(|read| saw(read, sector) == ZEROES) {
        let never = Zone {
            first_end: 0,
            last_begin: 0,
        };
        let begins = std::iter::once((never.with(read), 0));
        let candidates = zeroings
            .iter()
            .filter(|zeroing| zeroing.begun < read.done)
            .map(|zeroing| (Zone::of(zeroing).with(read), zeroing.number));
        let fits = begins.chain(candidates).any(|(zone, number)| {
            zones
                .iter()
                .all(|(other, whose)| *whose == number || !zone.contradicts(*other))
        });
        if !fits {
            return Err(explain(
                sector,
                &format!("read {} saw zeroes, which no zeroing explains", read.number),
                operations,
            ));
        }
    }
    Ok(())
}

/// The clusters against each other: forward zones in order of their beginning must not overlap, so each has only its neighbours to fear.
fn check_zones(
    sector: u64,
    zones: &[(Zone, u64)],
    written: usize,
    operations: &[&Operation],
) -> Result<(), String> {
    let mut forward: Vec<(Zone, u64)> = zones[..written]
        .iter()
        .copied()
        .filter(|(zone, _)| zone.is_forward())
        .collect();
    forward.sort_by_key(|(zone, _)| zone.first_end);
    for pair in forward.windows(2) {
        if pair[0].0.contradicts(pair[1].0) {
            return Err(explain(
                sector,
                &format!(
                    "the values of {} and {} can't both have been there when they were seen",
                    pair[0].1, pair[1].1
                ),
                operations,
            ));
        }
    }
    for (zone, number) in zones.iter().filter(|(zone, _)| !zone.is_forward()) {
        let before = forward.partition_point(|(other, _)| other.first_end < zone.last_begin);
        if let Some((other, whose)) = before.checked_sub(1).map(|at| forward[at])
            && other.contradicts(*zone)
        {
            return Err(explain(
                sector,
                &format!("{number} was done while the value of {whose} was seen before and after"),
                operations,
            ));
        }
    }
    Ok(())
}

fn explain(sector: u64, what: &str, operations: &[&Operation]) -> String {
    let mut text = format!("sector {sector}: {what}; what was done there, in order of beginning:");
    for operation in operations {
        let end = match (operation.done, operation.void) {
            (NEVER, NEVER) => "in doubt".to_owned(),
            (NEVER, void) => format!("in doubt until {void}"),
            (done, _) => format!("done at {done}"),
        };
        let value = match operation.kind {
            Kind::Read => format!(" saw {}", saw(operation, sector)),
            _ => String::new(),
        };
        text.push_str(&format!(
            "\n  {:>6} {:?} {}{value}, {end}",
            operation.begun, operation.kind, operation.number
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_engine::VolumeId;

    fn operation(kind: Kind, number: u64, begun: Stamp, done: Stamp, saw: u64) -> Operation {
        let mut operation = Operation::new(number, VolumeId(1), kind, 0, 8);
        (operation.begun, operation.done) = (begun, done);
        operation.saw = vec![saw; 8];
        operation
    }

    fn write(number: u64, begun: Stamp, done: Stamp) -> Operation {
        operation(Kind::Write, number, begun, done, 0)
    }

    fn read(number: u64, begun: Stamp, done: Stamp, saw: u64) -> Operation {
        operation(Kind::Read, number, begun, done, saw)
    }

    fn check(operations: &[Operation]) -> Result<(), String> {
        Sectors::new(8, operations.iter()).check()
    }

    #[test]
    fn a_read_sees_the_write_before_it_or_one_beside_it() {
        assert_eq!(check(&[write(1, 1, 2), read(2, 3, 4, 1)]), Ok(()));
        assert_eq!(
            check(&[
                write(1, 1, 2),
                write(2, 3, 6),
                read(3, 4, 5, 1),
                read(4, 7, 8, 2)
            ]),
            Ok(())
        );
        assert_eq!(
            check(&[write(1, 1, 2), write(2, 3, 6), read(3, 4, 5, 2)]),
            Ok(())
        );
    }

    #[test]
    fn a_lost_write_is_found() {
        assert!(check(&[write(1, 1, 2), read(2, 3, 4, 0)]).is_err());
        assert!(check(&[write(1, 1, 2), write(2, 3, 4), read(3, 5, 6, 1)]).is_err());
    }

    #[test]
    fn going_back_is_found() {
        let writes = [write(1, 1, 2), write(2, 3, 20)];
        let back = [read(3, 4, 5, 2), read(4, 6, 7, 1)];
        assert!(check(&[&writes[..], &back[..]].concat()).is_err());
    }

    #[test]
    fn a_write_in_doubt_happened_or_not_but_only_until_it_is_void() {
        let doubtful = write(2, 3, NEVER);
        let before = [write(1, 1, 2), doubtful.clone()];
        assert_eq!(check(&[&before[..], &[read(3, 5, 6, 1)]].concat()), Ok(()));
        assert_eq!(
            check(&[&before[..], &[read(3, 5, 6, 1), read(4, 7, 8, 2)]].concat()),
            Ok(())
        );
        let void = Operation {
            void: 4,
            ..doubtful
        };
        let after = [write(1, 1, 2), void, read(3, 5, 6, 1), read(4, 7, 8, 2)];
        assert!(check(&after).is_err());
    }

    #[test]
    fn zeroes_come_from_the_beginning_or_from_a_zeroing() {
        let zero = operation(Kind::Zero, 2, 3, 4, 0);
        assert_eq!(check(&[read(1, 1, 2, 0)]), Ok(()));
        assert_eq!(
            check(&[write(1, 1, 2), zero.clone(), read(3, 5, 6, 0)]),
            Ok(())
        );
        assert!(check(&[write(1, 1, 2), zero.clone(), read(3, 5, 6, 1)]).is_err());
        assert!(check(&[write(1, 1, 2), zero, write(4, 7, 8), read(3, 9, 10, 0)]).is_err());
    }
}

//! Which segments are still needed, and by whom.

use crate::layout::{Lsn, StreamId};
use std::collections::{BTreeMap, VecDeque};

/// One use of a segment.
#[derive(Debug)]
struct Segment {
    sequence: u64,
    /// The position of its first record (or of the next record, while it has none).
    first: Lsn,
    /// For each stream with records here, the first and the last of them.
    streams: BTreeMap<StreamId, (Lsn, Lsn)>,
}

/// The occupied segments, oldest (the *head*) to newest. Never empty: the newest is the one to append to.
/// Memory: one entry for each stream and segment that holds something of it.
#[derive(Debug)]
pub(crate) struct Segments {
    occupied: VecDeque<Segment>,
    /// For streams that have records in an occupied segment: they need nothing below this.
    released: BTreeMap<StreamId, Lsn>,
}

impl Segments {
    /// One empty segment.
    pub fn new(sequence: u64, first: Lsn) -> Segments {
        let segment = Segment {
            sequence,
            first,
            streams: BTreeMap::new(),
        };
        Segments {
            occupied: VecDeque::from([segment]),
            released: BTreeMap::new(),
        }
    }

    fn oldest(&self) -> &Segment {
        self.occupied
            .front()
            .expect("there is always the segment to append to")
    }

    fn newest(&mut self) -> &mut Segment {
        self.occupied
            .back_mut()
            .expect("there is always the segment to append to")
    }

    /// Sequence and first record of the oldest occupied segment.
    pub fn head(&self) -> (u64, Lsn) {
        (self.oldest().sequence, self.oldest().first)
    }

    /// Starts the next segment, whose first record will be `first`.
    pub fn begin(&mut self, sequence: u64, first: Lsn) {
        assert_eq!(
            sequence,
            self.newest().sequence + 1,
            "segments are used in order"
        );
        self.occupied.push_back(Segment {
            sequence,
            first,
            streams: BTreeMap::new(),
        });
    }

    /// Notes a record in the newest segment.
    pub fn note(&mut self, stream: StreamId, lsn: Lsn) {
        let places = self.newest().streams.entry(stream).or_insert((lsn, lsn));
        assert!(
            places.1 <= lsn,
            "records come in order: {lsn} after {}",
            places.1
        );
        places.1 = lsn;
    }

    /// Notes that the stream needs nothing below `before`.
    pub fn release(&mut self, stream: StreamId, before: Lsn) {
        if self
            .occupied
            .iter()
            .any(|segment| segment.streams.contains_key(&stream))
        {
            let released = self.released.entry(stream).or_default();
            *released = before.max(*released);
        }
    }

    /// The stream that needs the oldest record of the head segment, and that record's position or a little below.
    pub fn pinned_by(&self) -> Option<(StreamId, Lsn)> {
        let needed = self
            .oldest()
            .streams
            .iter()
            .filter_map(|(&stream, &(first, last))| {
                let released = self.released.get(&stream).copied().unwrap_or_default();
                (last >= released).then_some((stream, first.max(released)))
            });
        needed.min_by_key(|&(_, lsn)| lsn)
    }

    /// Gives up segments from the head that no stream needs and whose records are all durable. The segment to append
    /// to is kept.
    pub fn free(&mut self, durable: Lsn) {
        let before = self.occupied.len();
        while self
            .occupied
            .get(1)
            .is_some_and(|second| second.first <= durable.next())
            && self.pinned_by().is_none()
        {
            self.occupied.pop_front();
        }
        if self.occupied.len() != before {
            let occupied = &self.occupied;
            self.released.retain(|stream, _| {
                occupied
                    .iter()
                    .any(|segment| segment.streams.contains_key(stream))
            });
        }
    }
}

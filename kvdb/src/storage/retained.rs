//! What all records so far come to: what a recovery gives back, and what a rewrite repeats.

use bytes::Bytes;
use std::collections::BTreeMap;

use super::records::Record;

/// Vote and log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Retained {
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    pub purged: Option<(u64, Bytes)>,
    /// Without gaps.
    pub entries: BTreeMap<u64, Bytes>,
}

impl Retained {
    fn apply(&mut self, record: Record) {
        match record {
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Committed(log_id) => self.committed = Some(log_id),
            Record::Entry { index, entry } => self.append(index, entry),
            Record::TruncateFrom(index) => {
                self.entries.split_off(&index);
            }
            Record::Purge { index, log_id } => {
                self.entries = index
                    .checked_add(1)
                    .map_or_else(BTreeMap::new, |next| self.entries.split_off(&next));
                self.purged = Some((index, log_id));
            }
            Record::RewriteBegin | Record::RewriteEnd => {}
        }
    }

    fn append(&mut self, index: u64, entry: Bytes) {
        self.entries.split_off(&index);
        // Where a recovery begins in the middle of what was given up, entries may be missing: what comes before the gap is
        // not part of the log, and a rewrite follows.
        let follows = self
            .entries
            .last_key_value()
            .is_none_or(|(last, _)| last.checked_add(1) == Some(index));
        if !follows {
            self.entries.clear();
        }
        self.entries.insert(index, entry);
    }

    /// The records that come to this.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records = Vec::with_capacity(self.entries.len() + 3);
        records.extend(self.vote.clone().map(Record::Vote));
        records.extend(
            self.purged
                .clone()
                .map(|(index, log_id)| Record::Purge { index, log_id }),
        );
        records.extend(self.entries.iter().map(|(index, entry)| Record::Entry {
            index: *index,
            entry: entry.clone(),
        }));
        records.extend(self.committed.clone().map(Record::Committed));
        records
    }

    /// Bytes of the payloads.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.len() as u64).sum()
    }

    /// Whether the log begins where it was purged: if not, records are missing.
    pub(super) fn is_whole(&self) -> bool {
        let begin = self
            .purged
            .as_ref()
            .map_or(Some(0), |(index, _)| index.checked_add(1));
        self.entries
            .first_key_value()
            .is_none_or(|(first, _)| Some(*first) == begin)
    }
}

/// Takes records in the journal's order. A rewrite counts only when its end was reached: until then everything from before
/// it is still needed.
#[derive(Debug, Default)]
pub(super) struct Replay {
    current: Retained,
    rewriting: Option<Retained>,
}

impl Replay {
    pub(super) fn apply(&mut self, record: Record, is_rewritten: bool) {
        match (record, self.rewriting.take()) {
            (Record::RewriteBegin, _) => self.rewriting = Some(Retained::default()),
            (Record::RewriteEnd, Some(whole)) => self.current = whole,
            (Record::RewriteEnd, None) => {}
            (record, Some(mut part)) if is_rewritten => {
                part.apply(record);
                self.rewriting = Some(part);
            }
            // A rewritten record whose begin was given up: its end has not been reached either, or a later one was.
            (_, None) if is_rewritten => {}
            // The crash came in the middle of a rewrite, which is over.
            (record, _) => self.current.apply(record),
        }
    }

    pub(super) fn current(&self) -> &Retained {
        &self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> Record {
        Record::Entry {
            index,
            entry: Bytes::from(vec![index as u8]),
        }
    }

    fn replay(records: &[(Record, bool)]) -> Retained {
        let mut replay = Replay::default();
        for (record, is_rewritten) in records {
            let [header, payload] = record.encode(*is_rewritten);
            let (record, is_rewritten) = Record::decode(&[header, payload].concat()).unwrap();
            replay.apply(record, is_rewritten);
        }
        replay.current().clone()
    }

    fn indexes(retained: &Retained) -> Vec<u64> {
        retained.entries.keys().copied().collect()
    }

    #[test]
    fn a_rewrite_that_was_interrupted_counts_for_nothing() {
        let begun = [
            (entry(0), false),
            (entry(1), false),
            (Record::RewriteBegin, false),
            (entry(0), true),
        ];
        assert_eq!(indexes(&replay(&begun)), [0, 1]);
        let went_on = [begun.as_slice(), &[(entry(2), false)]].concat();
        assert_eq!(indexes(&replay(&went_on)), [0, 1, 2]);
        let ended = [begun.as_slice(), &[(Record::RewriteEnd, false)]].concat();
        assert_eq!(indexes(&replay(&ended)), [0]);
    }

    #[test]
    fn what_was_given_up_and_comes_back_in_part_is_replaced_by_the_rewrite() {
        let vote = |number: u8| Record::Vote(Bytes::from(vec![number]));
        let records = [
            (entry(7), false),
            (entry(9), false),
            (vote(1), false),
            (Record::RewriteBegin, false),
            (vote(2), true),
            (
                Record::Purge {
                    index: 4,
                    log_id: Bytes::new(),
                },
                true,
            ),
            (entry(5), true),
            (Record::RewriteEnd, false),
            (entry(6), false),
        ];
        let retained = replay(&records);
        assert_eq!(indexes(&retained), [5, 6]);
        assert_eq!(retained.vote, Some(Bytes::from_static(&[2])));
        assert!(retained.is_whole());
    }

    #[test]
    fn a_log_that_does_not_begin_where_it_was_purged_is_not_whole() {
        assert!(!replay(&[(entry(3), false)]).is_whole());
        assert!(
            replay(&[
                (
                    Record::Purge {
                        index: 2,
                        log_id: Bytes::new()
                    },
                    false
                ),
                (entry(3), false)
            ])
            .is_whole()
        );
    }

    #[test]
    fn records_come_to_what_they_came_from() {
        let records = [
            (Record::Vote(Bytes::from_static(b"v")), false),
            (entry(0), false),
            (entry(1), false),
            (entry(2), false),
            (Record::TruncateFrom(2), false),
            (
                Record::Purge {
                    index: 0,
                    log_id: Bytes::from_static(b"p"),
                },
                false,
            ),
            (Record::Committed(Bytes::from_static(b"c")), false),
        ];
        let retained = replay(&records);
        assert_eq!(indexes(&retained), [1]);
        let again: Vec<_> = retained
            .records()
            .into_iter()
            .map(|record| (record, false))
            .collect();
        assert_eq!(replay(&again), retained);
    }

    #[test]
    fn unknown_bytes_are_no_record() {
        for bytes in [
            &[][..],
            &[9; 16],
            &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0; 15],
        ] {
            assert_eq!(Record::decode(bytes), None);
        }
    }
}

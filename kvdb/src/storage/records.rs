//! A record of kvdb's journal.
//!
//! ```text
//! kind u8 | rewritten u8 | zero [u8; 6] | index u64 | payload
//! ```
//!
//! Little-endian; the journal adds length and checksum. *Rewritten* records repeat what is still needed between
//! `RewriteBegin` and `RewriteEnd`, so that everything before them can be given up.

use bytes::Bytes;

const HEADER_BYTES: usize = 16;

/// A record. Payloads are envelopes of the codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// The vote that this member has given.
    Vote(Bytes),
    /// A log entry.
    Entry { index: u64, entry: Bytes },
    /// The log ends before this index.
    TruncateFrom(u64),
    /// The log begins after this index; the payload is its log id.
    Purge { index: u64, log_id: Bytes },
    /// The log id up to which the log is known to be committed.
    Committed(Bytes),
    /// What is still needed follows.
    RewriteBegin,
    /// What is still needed was all between the begin and here.
    RewriteEnd,
}

impl Record {
    /// The record's parts.
    pub(crate) fn encode(&self, is_rewritten: bool) -> [Bytes; 2] {
        let (kind, index, payload) = match self {
            Record::Vote(vote) => (1, 0, vote.clone()),
            Record::Entry { index, entry } => (2, *index, entry.clone()),
            Record::TruncateFrom(index) => (3, *index, Bytes::new()),
            Record::Purge { index, log_id } => (4, *index, log_id.clone()),
            Record::Committed(log_id) => (5, 0, log_id.clone()),
            Record::RewriteBegin => (6, 0, Bytes::new()),
            Record::RewriteEnd => (7, 0, Bytes::new()),
        };
        let mut header = vec![0; HEADER_BYTES];
        header[0] = kind;
        header[1] = u8::from(is_rewritten);
        header[8..].copy_from_slice(&u64::to_le_bytes(index));
        [header.into(), payload]
    }

    /// The record, and whether it is a rewritten one; none of unknown bytes. The payload is copied.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Record, bool)> {
        let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let [kind, is_rewritten @ (0 | 1), 0, 0, 0, 0, 0, 0, index @ ..] = *header else {
            return None;
        };
        let index = u64::from_le_bytes(index);
        let payload = Bytes::copy_from_slice(payload);
        let record = match kind {
            1 => Record::Vote(payload),
            2 => Record::Entry {
                index,
                entry: payload,
            },
            3 => Record::TruncateFrom(index),
            4 => Record::Purge {
                index,
                log_id: payload,
            },
            5 => Record::Committed(payload),
            6 => Record::RewriteBegin,
            7 => Record::RewriteEnd,
            _ => return None,
        };
        Some((record, is_rewritten == 1))
    }
}

//! The running journal: a queue of planned groups, the groups in flight, and what is durable.
//!
//! Each record gets its place on disk when it is appended: the last planned group takes it, or a new group is planned
//! behind it, or in the next segment. So [`Full`] is exact, and nothing that was queued can fail to fit later.
//!
//! The last page of each segment is kept for a *mark*: a group without records, which carries only what is durable and
//! what is still needed. It is written when the next segment is free in memory but not yet *durably* known to be free.
//!
//! Records may be *written* (in the kernel's memory, so that the end of this process leaves them) before they are durable: `syncing`.

use crate::disk::{Disk, DiskOp, Done, FileId, OpId, OpIds};
use crate::error::{Full, JournalError};
use crate::layout::{self, Entry, GROUP_BYTES_MAX, GroupHeader, Lsn, PAGE_BYTES, StreamId};
use crate::recovery;
use crate::segments::Segments;
use crate::shape::{Description, Shape};
use crate::syncing::{Syncing, Unsynced};
use bytes::Bytes;
use isthmus_mutation::Mutation;
use std::collections::VecDeque;
use std::io;

/// The longest record; less where segments are small ([`Journal::record_bytes_max`]).
pub const RECORD_BYTES_MAX: u64 = 2 << 20;
/// The most parts of one record.
pub const RECORD_PARTS_MAX: usize = 600;
/// The most parts of one group; with header and padding below the 1024 that Linux takes in one gathered write.
pub const GROUP_PARTS_MAX: usize = 1000;
/// The most groups that may be in flight at once, whatever [`Journal::set_groups_in_flight`] is told. Recovery counts on it.
pub const GROUPS_IN_FLIGHT_MAX: u32 = 8;

static ZEROES: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// A place in the journal's order of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub sequence: u64,
    pub offset: u64,
}

/// A group that waits for its write.
#[derive(Debug)]
pub(crate) struct Group {
    place: Place,
    first: Lsn,
    entries: Vec<Entry>,
    parts: Vec<Bytes>,
    payload_bytes: u64,
    /// Somebody waits for it to be durable.
    pub durable: bool,
}

impl Group {
    fn bytes(&self) -> u64 {
        layout::group_bytes(self.entries.len(), self.payload_bytes)
    }

    fn end(&self) -> Place {
        Place {
            offset: self.place.offset + self.bytes(),
            ..self.place
        }
    }
}

#[derive(Debug)]
pub(crate) struct InFlight {
    id: OpId,
    first: Lsn,
    end: Lsn,
    head_sequence: u64,
    mark: bool,
    done: bool,
    /// Its segment's use.
    pub sequence: u64,
    /// Whether its completion makes it durable; else a sync will.
    pub durable: bool,
}

/// A journal that was opened. Dropping it loses what is queued, like a crash.
#[derive(Debug)]
pub struct Journal {
    identity: u64,
    pub(crate) shape: Shape,
    pub(crate) files: Vec<FileId>,
    pub(crate) ids: OpIds,
    groups_in_flight: u32,
    pub(crate) segments: Segments,
    pub(crate) pending: VecDeque<Group>,
    pub(crate) in_flight: VecDeque<InFlight>,
    /// Where the last planned group ends.
    planned: Place,
    /// Where the last submitted group ends.
    submitted: Place,
    pub(crate) next: Lsn,
    /// Up to here the kernel has every record.
    pub(crate) written: Lsn,
    pub(crate) durable: Lsn,
    pub(crate) syncing: Syncing,
    /// The newest head that a durable group names: only segments before it may be overwritten.
    head_durable: u64,
    pub(crate) failed: bool,
}

/// What recovery hands over.
pub(crate) struct Recovered {
    pub files: Vec<FileId>,
    pub segments: Segments,
    pub tail: Place,
    pub next: Lsn,
    pub head_durable: u64,
}

impl Journal {
    /// Makes an empty journal in `folder`, with all its space allocated. `identity` is a random number that clients can't
    /// know or choose: it keeps what they write from ever passing for a group of records.
    ///
    /// # Errors
    /// A shape out of bounds, a journal that is there already, or what the disk says (a full disk, for one).
    pub fn format<D: Disk>(
        disk: &mut D,
        folder: &str,
        shape: Shape,
        identity: u64,
    ) -> Result<(), JournalError> {
        Description { identity, shape }.format(disk, folder)
    }

    /// Opens the journal in `folder` and recovers it: calls `each` for every surviving record in order. All of these are
    /// durable when this returns. Operations on the disk will carry `tag`. A payload shares the memory of its group
    /// (up to 4 MiB): copy it to keep it for long.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] where records that were durable are gone (then what `each` was given is only a part),
    /// [`JournalError::NotFormatted`], or what the disk says.
    pub fn open<D: Disk>(
        disk: &mut D,
        folder: &str,
        tag: u16,
        each: &mut dyn FnMut(Lsn, StreamId, Bytes),
    ) -> Result<Journal, JournalError> {
        let description = Description::read(disk, folder)?;
        let recovered = recovery::recover(disk, folder, description, each)?;
        Ok(Journal {
            identity: description.identity,
            shape: description.shape,
            files: recovered.files,
            ids: OpIds::new(tag),
            groups_in_flight: 1,
            segments: recovered.segments,
            pending: VecDeque::new(),
            in_flight: VecDeque::new(),
            planned: recovered.tail,
            submitted: recovered.tail,
            next: recovered.next,
            written: Lsn(recovered.next.0 - 1),
            durable: Lsn(recovered.next.0 - 1),
            syncing: Syncing::default(),
            head_durable: recovered.head_durable,
            failed: false,
        })
    }

    /// Lets up to `groups` groups be in flight at once (1 at first, clamped to 1..=8). More than one shortens the wait of
    /// a record that comes just after a write has begun, and makes the groups smaller.
    pub fn set_groups_in_flight(&mut self, groups: u32) {
        self.groups_in_flight = groups.clamp(1, GROUPS_IN_FLIGHT_MAX);
    }

    /// The longest record that this journal takes, in bytes.
    #[must_use]
    pub fn record_bytes_max(&self) -> u64 {
        RECORD_BYTES_MAX.min(self.shape.segment_bytes - 2 * PAGE_BYTES)
    }

    /// Queues a record, given in parts that are not copied. It is durable once [`Journal::durable`] has reached the
    /// returned position. The last free segment is kept for [`Journal::append_reserved`].
    ///
    /// # Errors
    /// [`Full`] where the record doesn't fit, or after a failed write.
    ///
    /// # Panics
    /// When the record is longer than [`Journal::record_bytes_max`] or has more than [`RECORD_PARTS_MAX`] parts.
    pub fn append(&mut self, stream: StreamId, parts: &[Bytes]) -> Result<Lsn, Full> {
        self.append_up_to(1, stream, parts, true)
    }

    /// Like [`Journal::append`], for a record for which it is enough that it is written ([`Journal::written`]): it is durable with the
    /// next record that has to be, or after [`Journal::sync`].
    ///
    /// # Errors
    /// Like [`Journal::append`].
    ///
    /// # Panics
    /// Like [`Journal::append`].
    pub fn append_to_be_held(&mut self, stream: StreamId, parts: &[Bytes]) -> Result<Lsn, Full> {
        self.append_up_to(1, stream, parts, false)
    }

    /// Like [`Journal::append`], for the small records that must go through when the journal is full of others, such as
    /// an epoch or a vote: may use the last free segment as well.
    ///
    /// # Errors
    /// [`Full`] where even that segment is full, or after a failed write.
    ///
    /// # Panics
    /// Like [`Journal::append`].
    pub fn append_reserved(&mut self, stream: StreamId, parts: &[Bytes]) -> Result<Lsn, Full> {
        self.append_up_to(0, stream, parts, true)
    }

    fn append_up_to(
        &mut self,
        segments_kept: u64,
        stream: StreamId,
        parts: &[Bytes],
        durable: bool,
    ) -> Result<Lsn, Full> {
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        assert!(
            bytes <= self.record_bytes_max(),
            "a record of {bytes} bytes is too long"
        );
        assert!(
            parts.len() <= RECORD_PARTS_MAX,
            "a record of {} parts is too scattered",
            parts.len()
        );
        if self.failed {
            return Err(Full);
        }
        let (head_sequence, _) = self.segments.head();
        let newest_allowed = head_sequence + u64::from(self.shape.segments) - 1 - segments_kept;
        if !self.last_planned_takes(bytes, parts.len()) {
            self.plan_group(bytes, newest_allowed)?;
        } else if self.planned.sequence > newest_allowed {
            return Err(Full);
        }
        let group = self
            .pending
            .back_mut()
            .expect("the last planned group takes the record, or one was just planned");
        group.entries.push(Entry::of(stream, parts));
        group
            .parts
            .extend(parts.iter().filter(|part| !part.is_empty()).cloned());
        group.payload_bytes += bytes;
        group.durable |= durable;
        self.planned = group.end();
        let lsn = self.next;
        self.next = lsn.next();
        self.segments.note(stream, lsn);
        Ok(lsn)
    }

    /// Where records of a segment must end: the last page is for a mark.
    fn records_end(&self) -> u64 {
        self.shape.segment_bytes - PAGE_BYTES
    }

    fn last_planned_takes(&self, bytes: u64, parts: usize) -> bool {
        self.pending.back().is_some_and(|group| {
            let grown = layout::group_bytes(group.entries.len() + 1, group.payload_bytes + bytes);
            group.entries.len() < GROUP_PARTS_MAX
                && group.parts.len() + parts <= GROUP_PARTS_MAX
                && grown <= GROUP_BYTES_MAX
                && group.place.offset + grown <= self.records_end()
        })
    }

    fn plan_group(&mut self, bytes: u64, newest_allowed: u64) -> Result<(), Full> {
        let mut place = self.planned;
        if place.offset + layout::group_bytes(1, bytes) > self.records_end() {
            place = Place {
                sequence: place.sequence + 1,
                offset: 0,
            };
        }
        if place.sequence > newest_allowed {
            return Err(Full);
        }
        if place.sequence > self.planned.sequence {
            self.segments.begin(place.sequence, self.next);
            self.segments.free(self.durable);
        }
        let group = Group {
            place,
            first: self.next,
            entries: Vec::new(),
            parts: Vec::new(),
            payload_bytes: 0,
            durable: false,
        };
        self.pending.push_back(group);
        Ok(())
    }

    /// Submits one write for everything queued, if fewer groups than allowed are in flight; bounded by the segment's end and by the
    /// longest group; and the syncs that are due. Call it after appending and after each completion.
    pub fn step<D: Disk>(&mut self, disk: &mut D) {
        while !self.failed && self.in_flight.len() < self.groups_in_flight as usize {
            let Some(group) = self.pending.front() else {
                break;
            };
            let sequence = group.place.sequence;
            let opens_segment = sequence > self.submitted.sequence;
            if opens_segment && !self.may_leave_behind(sequence) {
                break;
            }
            let sent = if opens_segment && !self.is_durably_free(sequence) {
                if self.in_flight.iter().any(|write| write.mark) || self.syncing.holds_mark() {
                    break;
                }
                self.submit_mark(disk)
            } else {
                self.submit_group(disk)
            };
            if !sent {
                break;
            }
        }
        self.start_sync(disk);
    }

    /// Whether it is durably known that the earlier use of this segment's file is over.
    fn is_durably_free(&self, sequence: u64) -> bool {
        sequence < self.head_durable + u64::from(self.shape.segments)
    }

    fn submit_group<D: Disk>(&mut self, disk: &mut D) -> bool {
        let group = self.pending.pop_front().expect("step looked at it");
        let records = (&group.entries[..], &group.parts[..]);
        let sent = self.submit_write(disk, group.place, group.first, records, group.durable);
        if !sent {
            self.pending.push_front(group);
        }
        sent
    }

    fn submit_mark<D: Disk>(&mut self, disk: &mut D) -> bool {
        let first = self.pending.front().expect("step looked at it").first;
        self.submit_write(disk, self.submitted, first, (&[], &[]), true)
    }

    fn submit_write<D: Disk>(
        &mut self,
        disk: &mut D,
        place: Place,
        first: Lsn,
        (entries, payload): (&[Entry], &[Bytes]),
        to_be_durable: bool,
    ) -> bool {
        let (head_sequence, head_first) = self.segments.head();
        let payload_bytes = payload.iter().map(|part| part.len() as u64).sum();
        let bytes = layout::group_bytes(entries.len(), payload_bytes);
        assert!(
            place.offset + bytes <= self.shape.segment_bytes,
            "a group stays in its segment: {place:?}, {bytes} bytes"
        );
        let header = GroupHeader {
            identity: self.identity,
            sequence: place.sequence,
            page: (place.offset / PAGE_BYTES) as u32,
            first,
            durable: self.durable,
            head_sequence,
            head_first,
            records: 0,
            bytes: bytes as u32,
            table_checksum: 0,
        };
        let front = layout::front(header, entries);
        let padding = (bytes - front.len() as u64 - payload_bytes) as usize;
        let mut parts = Vec::with_capacity(payload.len() + 2);
        parts.push(front);
        parts.extend_from_slice(payload);
        if padding > 0 {
            parts.push(Bytes::from_static(&ZEROES[..padding]));
        }
        let id = self.ids.next_id();
        let file = self.files[self.shape.file_of(place.sequence) as usize];
        // Durable at once only where everything before it is, or is on its way to be so by itself: recovery stops at the first group
        // that is missing.
        let durable = to_be_durable
            && (Mutation::SyncOnlyTheLastGroup.is_on()
                || (self.syncing.is_empty() && self.in_flight.iter().all(|write| write.durable)));
        let sent = if durable {
            let durable = !Mutation::JournalDoesNotSync.is_on();
            let (offset, parts) = (place.offset, parts);
            disk.submit(
                id,
                DiskOp::Write {
                    file,
                    offset,
                    parts,
                    durable,
                },
            )
        } else {
            disk.submit_held(id, file, place.offset, parts)
        };
        if sent.is_err() {
            return false;
        }
        self.submitted = Place {
            offset: place.offset + bytes,
            ..place
        };
        let end = Lsn(first.0 + entries.len() as u64);
        let mark = entries.is_empty();
        self.in_flight.push_back(InFlight {
            id,
            first,
            end,
            head_sequence,
            mark,
            done: false,
            sequence: place.sequence,
            durable,
        });
        if to_be_durable && !durable {
            self.syncing.want(Lsn(end.0 - 1));
        }
        true
    }

    /// Takes the completion of an operation of this journal (one with its tag). Groups become durable in order.
    ///
    /// # Errors
    /// [`JournalError::WriteFailed`]: the journal has stopped for good; `durable` stays where it is.
    ///
    /// # Panics
    /// When the operation is not in flight.
    pub fn on_completed(&mut self, id: OpId, result: io::Result<Done>) -> Result<(), JournalError> {
        if self.syncing.is_sync(id) {
            return self.on_synced(id, result);
        }
        let write = self.in_flight.iter_mut().find(|write| write.id == id);
        let write = write.expect(
            "the host hands a completion only to the component that submitted it, and once",
        );
        assert!(!write.done, "an operation completes once");
        write.done = true;
        if let Err(source) = result {
            self.failed = true;
            return Err(JournalError::WriteFailed {
                first: write.first,
                last: Lsn(write.end.0 - 1),
                source,
            });
        }
        if self.failed {
            return Ok(());
        }
        while self.in_flight.front().is_some_and(|write| write.done) {
            let write = self.in_flight.pop_front().expect("it was just looked at");
            self.written = Lsn(write.end.0 - 1);
            if !write.durable {
                self.syncing.note(Unsynced {
                    last: self.written,
                    sequence: write.sequence,
                    head_sequence: write.head_sequence,
                    mark: write.mark,
                });
                continue;
            }
            // Only now, in order: recovery cuts off a group whose predecessor is torn, and with it the head it names.
            self.is_durable(self.written, write.head_sequence);
        }
        assert!(
            self.durable < self.next,
            "durable {}, next {}",
            self.durable,
            self.next
        );
        self.segments.free(self.durable);
        Ok(())
    }

    /// Notes what is durable now, and the head that it names.
    pub(crate) fn is_durable(&mut self, last: Lsn, head_sequence: u64) {
        self.durable = self.durable.max(last);
        self.head_durable = self.head_durable.max(head_sequence);
        self.syncing.reached(self.durable);
    }

    /// The kernel has every record up to this one: they survive the end of this process, though not of power.
    #[must_use]
    pub fn written(&self) -> Lsn {
        self.written
    }

    /// Every record up to this one is durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// The position that the next record will get.
    #[must_use]
    pub fn next(&self) -> Lsn {
        self.next
    }

    /// Says that the stream needs no record below `before` any more. A segment is used again once no stream needs
    /// anything in it or in an older one. After a crash, released records may be given back by recovery all the same.
    pub fn release(&mut self, stream: StreamId, before: Lsn) {
        self.segments.release(stream, before.min(self.next));
        self.segments.free(self.durable);
    }

    /// The stream that needs the oldest record of the oldest occupied segment, and about which record that is; `None`
    /// while nothing in that segment is needed.
    #[must_use]
    pub fn pinned_by(&self) -> Option<(StreamId, Lsn)> {
        self.segments.pinned_by()
    }

    /// Bytes of the journal that are occupied, queued records included.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let (head_sequence, _) = self.segments.head();
        (self.planned.sequence - head_sequence) * self.shape.segment_bytes + self.planned.offset
    }

    /// Bytes of the journal.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        u64::from(self.shape.segments) * self.shape.segment_bytes
    }

    /// Whether nothing is queued or in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_empty() && !self.syncing.is_running()
    }

    /// Whether a write failed, and the journal takes nothing more.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }
}

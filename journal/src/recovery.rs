//! Recovery: what of the journal survived, and whether what is missing may be missing.
//!
//! 1. *Scan*: every group header found anywhere tells facts that were true when it was written: which records were
//!    durable (the greatest such position is `durable` here), and which segment was the oldest needed (the head).
//! 2. What was read may sit only in a cache that the next loss of power takes: segments that may hold such groups are
//!    made durable before anything is given out or overwritten.
//! 3. *Walk* from the head: group after group with the right sequence, place and position, each valid as a whole.
//! 4. Where the walk ends is the tail. If it ends at or below `durable`, that is damage; above, it is what a crash does to
//!    groups in flight.
//! 5. *Cut*: headers beyond the tail are zeroed, so that nothing beyond it can ever join what is appended next.

use crate::disk::{Disk, FileId};
use crate::error::JournalError;
use crate::journal::{GROUPS_IN_FLIGHT_MAX, Place, Recovered};
use crate::layout::{self, GroupHeader, Lsn, PAGE_BYTES, StreamId};
use crate::segments::Segments;
use crate::shape::{Description, Shape, segment_path};
use bytes::Bytes;
use isthmus_mutation::Mutation;

/// Bytes read at once while scanning.
const WINDOW_BYTES: u64 = 1 << 20;

/// Recovers the journal in `folder`; see the module's text.
pub(crate) fn recover<D: Disk>(
    disk: &mut D,
    folder: &str,
    description: Description,
    each: &mut dyn FnMut(Lsn, StreamId, Bytes),
) -> Result<Recovered, JournalError> {
    let mut recovery = Recovery::open(disk, folder, description)?;
    recovery.scan()?;
    recovery.make_durable()?;
    let recovered = recovery.walk(each)?;
    recovery.cut(recovered.tail)?;
    Ok(Recovered {
        files: recovery.files,
        ..recovered
    })
}

struct Recovery<'a, D> {
    disk: &'a mut D,
    folder: &'a str,
    identity: u64,
    shape: Shape,
    files: Vec<FileId>,
    window: Window,
    /// Every record up to this is known to have been durable.
    durable: Lsn,
    /// The newest known head.
    head: (u64, Lsn),
    /// For each file, the greatest end and the greatest sequence of the groups whose headers it holds.
    found: Vec<Option<(Lsn, u64)>>,
}

/// The part of a file that was read last.
struct Window {
    segment: u32,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a, D: Disk> Recovery<'a, D> {
    fn open(
        disk: &'a mut D,
        folder: &'a str,
        description: Description,
    ) -> Result<Recovery<'a, D>, JournalError> {
        let Description { identity, shape } = description;
        let mut files = Vec::new();
        for segment in 0..shape.segments {
            let path = segment_path(folder, segment);
            let failed = |action, path: String| {
                move |source| JournalError::Io {
                    action,
                    path,
                    source,
                }
            };
            let file = disk.open(&path).map_err(failed("open", path.clone()))?;
            let length = disk.length(file).map_err(failed("measure", path))?;
            if length != shape.segment_bytes {
                let reason = format!(
                    "the file is {length} bytes long and should be {}",
                    shape.segment_bytes
                );
                return Err(JournalError::Damaged {
                    segment,
                    offset: length.min(shape.segment_bytes),
                    reason,
                });
            }
            files.push(file);
        }
        Ok(Recovery {
            disk,
            folder,
            identity,
            shape,
            files,
            window: Window {
                segment: 0,
                start: 0,
                bytes: Vec::new(),
            },
            durable: Lsn(0),
            // Before anything was written, the first use of file 0 is the head.
            head: (u64::from(shape.segments), Lsn(1)),
            found: vec![None; shape.segments as usize],
        })
    }

    fn failed(
        &self,
        action: &'static str,
        segment: u32,
    ) -> impl FnOnce(std::io::Error) -> JournalError + use<D> {
        let path = segment_path(self.folder, segment);
        move |source| JournalError::Io {
            action,
            path,
            source,
        }
    }

    /// One page of a segment file.
    fn page(&mut self, segment: u32, offset: u64) -> Result<&[u8], JournalError> {
        assert!(
            offset + PAGE_BYTES <= self.shape.segment_bytes,
            "page at {offset} of a segment"
        );
        let held = self.window.start..self.window.start + self.window.bytes.len() as u64;
        if self.window.segment != segment || !held.contains(&offset) {
            let length = WINDOW_BYTES.min(self.shape.segment_bytes - offset);
            self.window = Window {
                segment,
                start: offset,
                bytes: vec![0; length as usize],
            };
            let file = self.files[segment as usize];
            let read = self.disk.read_now(file, offset, &mut self.window.bytes);
            read.map_err(|error| self.failed("read", segment)(error))?;
        }
        let at = (offset - self.window.start) as usize;
        Ok(&self.window.bytes[at..at + PAGE_BYTES as usize])
    }

    /// The header of a group of this journal at this very place, whichever use of the file it is from.
    fn header(&mut self, segment: u32, offset: u64) -> Result<Option<GroupHeader>, JournalError> {
        let (identity, shape) = (self.identity, self.shape);
        let header = GroupHeader::decode(self.page(segment, offset)?);
        Ok(header.filter(|header| {
            header.identity == identity
                && shape.file_of(header.sequence) == segment
                && u64::from(header.page) * PAGE_BYTES == offset
                && offset + u64::from(header.bytes) <= shape.segment_bytes
        }))
    }

    fn scan(&mut self) -> Result<(), JournalError> {
        for segment in self.files_to_scan()? {
            let mut offset = 0;
            while offset < self.shape.segment_bytes {
                if let Some(header) = self.header(segment, offset)? {
                    self.durable = self.durable.max(header.durable);
                    if header.head_sequence > self.head.0 {
                        self.head = (header.head_sequence, header.head_first);
                    }
                    let (end, sequence) = self.found[segment as usize].unwrap_or_default();
                    self.found[segment as usize] =
                        Some((end.max(header.end()), sequence.max(header.sequence)));
                }
                offset += PAGE_BYTES;
            }
        }
        Ok(())
    }

    /// All files but those that were never written: their first page is zero, and they lie further ahead of the newest use than groups
    /// in flight can reach. A first page that is zero before the newest use was lost: what lies behind it may not have been.
    fn files_to_scan(&mut self) -> Result<Vec<u32>, JournalError> {
        let segments = self.shape.segments;
        let mut empty = vec![false; segments as usize];
        let mut newest = u64::from(segments);
        for segment in 0..segments {
            if let Some(header) = self.header(segment, 0)? {
                newest = newest.max(header.sequence);
            }
            empty[segment as usize] = self.page(segment, 0)?.iter().all(|byte| *byte == 0);
        }
        let oldest = (newest + 1).saturating_sub(u64::from(segments));
        let first = oldest.max(u64::from(segments));
        for sequence in first..=newest + u64::from(GROUPS_IN_FLIGHT_MAX) {
            empty[self.shape.file_of(sequence) as usize] = false;
        }
        Ok((0..segments)
            .filter(|segment| !empty[*segment as usize])
            .collect())
    }

    /// Writes the first page of each segment that may hold something not yet durable again, as it is: that makes the
    /// whole file durable, and can't harm it, because torn or not the bytes are the same.
    fn make_durable(&mut self) -> Result<(), JournalError> {
        for segment in 0..self.shape.segments {
            if self.found[segment as usize].is_some_and(|(end, _)| end > self.durable) {
                let page = self.page(segment, 0)?.to_vec();
                self.write(segment, 0, &page)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, segment: u32, offset: u64, page: &[u8]) -> Result<(), JournalError> {
        self.window.bytes.clear();
        let written = self
            .disk
            .write_now(self.files[segment as usize], offset, page);
        written.map_err(self.failed("write", segment))
    }

    fn walk(
        &mut self,
        each: &mut dyn FnMut(Lsn, StreamId, Bytes),
    ) -> Result<Recovered, JournalError> {
        let (head_sequence, mut next) = self.head;
        let mut segments = Segments::new(head_sequence, next);
        let mut tail = Place {
            sequence: head_sequence,
            offset: 0,
        };
        // Only what the surviving groups say of the head is durable for sure: what is cut off takes its word with it.
        let mut head_durable = 0;
        let wrong = loop {
            let place = match self.group(tail, next)? {
                Ok(group) => Ok((tail, group)),
                Err(wrong) => {
                    let ahead = Place {
                        sequence: tail.sequence + 1,
                        offset: 0,
                    };
                    self.group(ahead, next)?
                        .map(|group| (ahead, group))
                        .map_err(|_| wrong)
                }
            };
            let (place, (header, records)) = match place {
                Ok(found) => found,
                Err(wrong) => break wrong,
            };
            if Mutation::StopRecoveryEarly.is_on() && self.is_last(place, &header)? {
                break "recovery stops early";
            }
            if place.sequence > tail.sequence {
                segments.begin(place.sequence, next);
            }
            for (stream, payload) in records {
                segments.note(stream, next);
                each(next, stream, payload);
                next = next.next();
            }
            head_durable = head_durable.max(header.head_sequence);
            tail = Place {
                offset: place.offset + u64::from(header.bytes),
                ..place
            };
        };
        if next <= self.durable && !Mutation::StopRecoveryEarly.is_on() {
            return Err(self.damaged(tail, next, wrong));
        }
        Ok(Recovered {
            files: Vec::new(),
            segments,
            tail,
            next,
            head_durable,
        })
    }

    /// Whether no valid group follows the one at this place. For [`Mutation::StopRecoveryEarly`].
    fn is_last(&mut self, place: Place, header: &GroupHeader) -> Result<bool, JournalError> {
        let behind = Place {
            offset: place.offset + u64::from(header.bytes),
            ..place
        };
        let ahead = Place {
            sequence: place.sequence + 1,
            offset: 0,
        };
        let next = header.end();
        let follows = self.group(behind, next)?.is_ok() || self.group(ahead, next)?.is_ok();
        Ok(!follows && header.records > 0)
    }

    /// The group at a place, if it is valid and its first record has position `next`; else what is wrong with it.
    fn group(
        &mut self,
        place: Place,
        next: Lsn,
    ) -> Result<Result<(GroupHeader, Records), &'static str>, JournalError> {
        if place.offset >= self.shape.segment_bytes {
            return Ok(Err("the next segment does not begin with it"));
        }
        let segment = self.shape.file_of(place.sequence);
        let Some(header) = self.header(segment, place.offset)? else {
            return Ok(Err("there is no valid group header"));
        };
        if header.sequence != place.sequence {
            return Ok(Err("there is only a group of the segment's earlier use"));
        }
        if header.first != next {
            return Ok(Err("there is a group of other records"));
        }
        let mut bytes = vec![0; header.bytes as usize];
        let read = self
            .disk
            .read_now(self.files[segment as usize], place.offset, &mut bytes);
        read.map_err(self.failed("read", segment))?;
        Ok(layout::records(&header, &Bytes::from(bytes)).map(|records| (header, records)))
    }

    fn damaged(&self, tail: Place, next: Lsn, wrong: &str) -> JournalError {
        JournalError::Damaged {
            segment: self.shape.file_of(tail.sequence),
            offset: tail.offset,
            reason: format!(
                "record {next} should be here and records up to {} were durable, but {wrong}",
                self.durable
            ),
        }
    }

    /// Zeroes every header at or beyond the tail. A torn group whose own header was lost needs none of this: the header
    /// binds all of its content, so what completes it later is the very same group.
    fn cut(&mut self, tail: Place) -> Result<(), JournalError> {
        let zeroes = vec![0; PAGE_BYTES as usize];
        for segment in 0..self.shape.segments {
            let holds_beyond =
                self.found[segment as usize].is_some_and(|(_, sequence)| sequence >= tail.sequence);
            let mut offset = 0;
            while holds_beyond && offset < self.shape.segment_bytes {
                let beyond = self.header(segment, offset)?.is_some_and(|header| {
                    header.sequence > tail.sequence
                        || (header.sequence == tail.sequence && offset >= tail.offset)
                });
                if beyond {
                    self.write(segment, offset, &zeroes)?;
                }
                offset += PAGE_BYTES;
            }
        }
        Ok(())
    }
}

type Records = Vec<(StreamId, Bytes)>;

//! What an operation does within one extent: when it starts, and when the disk has answered.

use super::block_set::BlockSet;
use super::extent_queue::{Part, PartKind};
use super::format::{EXTENT_BLOCKS, Entry, Header, PAGE_BYTES, SLOT_BYTES};
use super::{Job, VolumeStore};
use isthmus_engine::BLOCK_BYTES;
use isthmus_journal::{Disk, DiskOp, Done};
use std::io;

impl VolumeStore {
    /// Starts what may start in an extent.
    pub(super) fn look_at<D: Disk>(&mut self, extent: u32, disk: &mut D) {
        self.active
            .get_mut(&extent)
            .expect("listed extents are active")
            .listed = false;
        loop {
            let queue = self
                .active
                .get_mut(&extent)
                .expect("listed extents are active");
            if queue.loading || !queue.has_waiting() {
                break;
            }
            if let Some(entry) = self.map.get(extent)
                && !self.headers.contains(extent)
                && !self.clears_whole(extent)
            {
                self.load_header(extent, entry);
                break;
            }
            let queue = self
                .active
                .get_mut(&extent)
                .expect("listed extents are active");
            let started = queue.start();
            if started.is_empty() {
                break;
            }
            for part in started {
                self.start(extent, part, disk);
            }
        }
        if self.active[&extent].holds_up_a_read() {
            self.hurried = true;
        }
        if self.active[&extent].is_idle() {
            self.active.remove(&extent);
        }
    }

    /// Whether the next thing to do is to clear the extent whole, for which its header is not needed.
    fn clears_whole(&self, extent: u32) -> bool {
        let size = (self.spec.blocks - u64::from(extent) * EXTENT_BLOCKS).min(EXTENT_BLOCKS);
        let front = self.active[&extent].front_alone();
        front.is_some_and(|part| {
            part.kind == PartKind::Clear && part.first == 0 && part.count == size
        })
    }

    /// Puts the extent on the list of those to look at.
    fn list(&mut self, extent: u32) {
        let queue = self
            .active
            .get_mut(&extent)
            .expect("an extent is active while something runs in it");
        if !queue.listed {
            queue.listed = true;
            self.listed.push_back(extent);
        }
    }

    fn load_header(&mut self, extent: u32, entry: Entry) {
        self.active
            .get_mut(&extent)
            .expect("listed extents are active")
            .loading = true;
        let offset = header_offset(entry.slot, entry.stamp.copy());
        let op = DiskOp::Read {
            file: self.files.headers,
            offset,
            length: PAGE_BYTES,
        };
        self.submit(Job::LoadHeader { extent }, op);
    }

    pub(super) fn on_header_loaded(&mut self, extent: u32, result: io::Result<Done>) {
        self.active
            .get_mut(&extent)
            .expect("an extent is active while it loads")
            .loading = false;
        let entry = self
            .map
            .get(extent)
            .expect("an extent keeps its slot while its header is read");
        match result {
            Ok(Done::Read(page)) => {
                // What a damaged header said is lost; each block is bad until it is written or cleared.
                let header = Header::decode(&page, self.spec.volume, extent, entry);
                self.headers
                    .insert_clean(extent, header.unwrap_or_else(|_| Header::all_lost()));
            }
            Ok(Done::Finished) => panic!("a read completes with what was read"),
            Err(error) => self.give_up_waiting(extent, &error),
        }
        self.list(extent);
    }

    /// Ends all parts that wait for a header that can't be read now; later operations try again.
    fn give_up_waiting(&mut self, extent: u32, error: &io::Error) {
        let queue = self
            .active
            .get_mut(&extent)
            .expect("an extent is active while it loads");
        for part in queue.give_up_waiting() {
            match part.kind {
                PartKind::Read => {
                    let base = u64::from(extent) * EXTENT_BLOCKS + part.first;
                    let reading = self.reading(part.ticket);
                    (base..base + part.count).for_each(|block| reading.add_bad(block));
                    self.finish_part(part.ticket, None);
                }
                PartKind::Status => {
                    self.add_status(part.ticket, extent, BlockSet::ALL);
                    self.finish_part(part.ticket, None);
                }
                PartKind::Write | PartKind::Clear => {
                    self.finish_part(
                        part.ticket,
                        Some(io::Error::new(error.kind(), error.to_string())),
                    );
                }
            }
        }
    }

    fn start<D: Disk>(&mut self, extent: u32, part: Part, disk: &mut D) {
        match part.kind {
            PartKind::Read => self.start_read(extent, part),
            PartKind::Status => {
                let header = self.map.get(extent).map(|_| self.headers.get(extent));
                let allocated =
                    header.map_or(BlockSet::EMPTY, |header| header.present.or(header.lost));
                self.add_status(part.ticket, extent, allocated);
                self.end_part(extent, part.ticket, None);
            }
            PartKind::Write => self.start_write(extent, part, disk),
            PartKind::Clear => {
                self.clear_blocks(extent, &part);
                self.end_part(extent, part.ticket, None);
            }
        }
    }

    fn start_read(&mut self, extent: u32, part: Part) {
        let Some(entry) = self.map.get(extent) else {
            return self.end_part(extent, part.ticket, None);
        };
        let header = self.headers.get(extent).clone();
        let base = u64::from(extent) * EXTENT_BLOCKS;
        let lost = header.lost.and(part.blocks());
        if !lost.is_empty() {
            let reading = self.reading(part.ticket);
            (0..EXTENT_BLOCKS)
                .filter(|at| lost.contains(*at))
                .for_each(|at| reading.add_bad(base + at));
        }
        let Some((first, last)) = header.present.and(part.blocks()).bounds() else {
            return self.end_part(extent, part.ticket, None);
        };
        // One read from the first to the last present block: cheaper than one for each run between holes.
        let count = last - first + 1;
        let offset = u64::from(entry.slot) * SLOT_BYTES + first * BLOCK_BYTES;
        let length = (count * BLOCK_BYTES) as usize;
        let job = Job::Data {
            extent,
            ticket: part.ticket,
            first,
            count,
        };
        self.submit(
            job,
            DiskOp::Read {
                file: self.files.data,
                offset,
                length,
            },
        );
    }

    fn start_write<D: Disk>(&mut self, extent: u32, part: Part, disk: &mut D) {
        let slot = match self.map.get(extent) {
            Some(entry) => entry.slot,
            None => match self.allocate(extent, disk) {
                Ok(slot) => slot,
                Err(error) => return self.end_part(extent, part.ticket, Some(error)),
            },
        };
        let (bytes, _) = self.written(extent, &part);
        let offset = u64::from(slot) * SLOT_BYTES + part.first * BLOCK_BYTES;
        let op = DiskOp::Write {
            file: self.files.data,
            offset,
            parts: vec![bytes],
            durable: false,
        };
        let job = Job::Data {
            extent,
            ticket: part.ticket,
            first: part.first,
            count: part.count,
        };
        self.submit(job, op);
    }

    fn clear_blocks(&mut self, extent: u32, part: &Part) {
        if self.map.get(extent).is_none() {
            return;
        }
        if !self.headers.contains(extent) {
            // Only a clear of the whole extent starts without its header.
            return self.release(extent);
        }
        let blocks = part.blocks();
        let header = self.headers.get(extent);
        if header.present.or(header.lost).intersects(blocks) {
            let header = self.headers.change(extent);
            header.present = header.present.without(blocks);
            header.lost = header.lost.without(blocks);
        }
    }

    pub(super) fn on_data(
        &mut self,
        extent: u32,
        ticket: u64,
        first: u64,
        count: u64,
        result: io::Result<Done>,
    ) {
        let range = BlockSet::range(first, count);
        let base = u64::from(extent) * EXTENT_BLOCKS;
        let mut failure = None;
        match result {
            Ok(Done::Read(bytes)) => {
                let header = self.headers.get(extent).clone();
                let expected: Vec<Option<u32>> = (first..first + count)
                    .map(|at| {
                        header
                            .present
                            .contains(at)
                            .then(|| header.checksums[at as usize])
                    })
                    .collect();
                self.reading(ticket).add(base + first, &bytes, &expected);
            }
            Ok(Done::Finished) => self.on_written(extent, ticket, first, count),
            Err(_) if self.is_read(ticket) => {
                let present = self.headers.get(extent).present.and(range);
                let reading = self.reading(ticket);
                (first..first + count)
                    .filter(|at| present.contains(*at))
                    .for_each(|at| reading.add_bad(base + at));
            }
            Err(error) => {
                // What is there now is anyone's guess.
                let header = self.headers.change(extent);
                header.present = header.present.without(range);
                header.lost = header.lost.or(range);
                failure = Some(error);
            }
        }
        self.end_part(extent, ticket, failure);
        self.list(extent);
    }

    fn on_written(&mut self, extent: u32, ticket: u64, first: u64, count: u64) {
        let part = Part {
            ticket,
            kind: PartKind::Write,
            first,
            count,
        };
        let blocks = part.blocks();
        let (bytes, checksums) = self.written(extent, &part);
        let checksums = checksums.to_vec();
        let header = self.headers.change(extent);
        header.present = header.present.or(blocks);
        header.lost = header.lost.without(blocks);
        header.checksums[first as usize..(first + count) as usize].copy_from_slice(&checksums);
        self.checkpoints.note_written(bytes.len() as u64);
    }

    /// Ends a running part, and gives the extent's slot back when nothing is left in it.
    fn end_part(&mut self, extent: u32, ticket: u64, failure: Option<io::Error>) {
        let queue = self
            .active
            .get_mut(&extent)
            .expect("an extent is active while something runs in it");
        queue.complete(ticket);
        let writing = queue.is_writing();
        if !writing && self.headers.contains(extent) && self.headers.get(extent).is_empty() {
            self.release(extent);
        }
        self.finish_part(ticket, failure);
    }

    fn release(&mut self, extent: u32) {
        let entry = self
            .map
            .get(extent)
            .expect("only an extent with a slot gives one back");
        self.headers.remove(extent);
        self.map.set(extent, None);
        self.give_back(entry);
    }
}

/// Where a copy of a slot's header is.
pub(super) fn header_offset(slot: u32, copy: u32) -> u64 {
    (u64::from(slot) * 2 + u64::from(copy)) * PAGE_BYTES as u64
}

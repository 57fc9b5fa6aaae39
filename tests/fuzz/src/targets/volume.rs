//! A volume's folder: superblock, roots, map pages, extent headers and blocks, opened, read and written.

use bytes::Bytes;
use isthmus_engine::{BLOCK_BYTES, BlockRange, VolumeId, block_checksum};
use isthmus_journal::Disk;
use isthmus_volume::{StoreEvent, StoreOp, VolumeSpec, VolumeStore};

use crate::chunks::{self, Chunk};
use crate::memory_disk::MemoryDisk;
use crate::mutate::mutate_chunks;
use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

const VOLUME: VolumeId = VolumeId(3);
const FOLDER: &str = "v";
const FILES: [&str; 6] = ["superblock", "root.0", "root.1", "map", "headers", "data"];
const DATA: u8 = 5;
/// The place of the piece that holds a file's length.
const LENGTH: u32 = u32::MAX;
const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;
/// Where a page's checksum lies.
const CRC_AT: usize = 60;
/// Files are this long at most; roots less, because they are read as a whole.
const FILE_BYTES_MAX: u64 = 1 << 32;
const ROOT_BYTES_MAX: u64 = 1 << 20;
/// The version of what a case itself writes.
const NEW: u64 = 1 << 40;

fn path(tag: u8) -> String {
    format!("{FOLDER}/{}", FILES[tag as usize % FILES.len()])
}

/// A block's content: its number and a version, over and over. A page in an input holds the pattern once.
fn pattern(block: u64, version: u64) -> Vec<u8> {
    [block.to_le_bytes(), version.to_le_bytes()].concat()
}

fn stamp(block: u64, version: u64) -> Bytes {
    pattern(block, version).repeat(PAGE_BYTES / 16).into()
}

/// Whether a block that was read is one that somebody wrote there, or a hole.
fn is_true(block: u64, bytes: &[u8]) -> bool {
    let version = bytes[8..16].try_into().map_or(0, u64::from_le_bytes);
    bytes.iter().all(|byte| *byte == 0) || bytes == stamp(block, version)
}

/// Lets the store and the disk go on until nothing moves.
pub(super) fn settle(store: &mut VolumeStore, disk: &mut MemoryDisk) -> Vec<StoreEvent> {
    let mut events = Vec::new();
    loop {
        store.step(disk, &mut events);
        let mut completed = Vec::new();
        disk.completed(&mut completed);
        if completed.is_empty() && store.is_idle() {
            return events;
        }
        for (id, result) in completed {
            store.on_completed(id, result);
        }
    }
}

fn write(store: &mut VolumeStore, block: u64, version: u64) {
    let bytes = stamp(block, version);
    let checksum = block_checksum(VOLUME, block, &bytes);
    store.write(StoreOp(1), BlockRange::new(block, 1), bytes, vec![checksum]);
}

/// What is in some blocks all over the volume: a hash, or that it can't be read.
fn look(store: &mut VolumeStore, disk: &mut MemoryDisk) -> Vec<(u64, Option<u32>)> {
    let blocks = store.spec().blocks;
    let starts = (0..6).map(|extent| extent * 256).chain([blocks - 1]);
    for start in starts.filter(|start| *start < blocks) {
        let count = (blocks - start).min(12);
        store.read(StoreOp(start), BlockRange::new(start, count));
        store.status(StoreOp(start), BlockRange::new(start, count));
    }
    let mut seen = Vec::new();
    for event in settle(store, disk) {
        let StoreEvent::Read { op, data, bad, .. } = event else {
            continue;
        };
        for (bytes, block) in data.chunks_exact(BLOCK_BYTES as usize).zip(op.0..) {
            assert!(is_true(block, bytes), "block {block} is a lie");
            let is_bad = bad.contains(&block);
            seen.push((block, (!is_bad).then(|| crc32fast::hash(bytes))));
        }
    }
    seen.sort_unstable();
    seen
}

/// [`VolumeStore::open`] on what may be left of a volume's files, and its use.
pub struct Stores;

impl Target for Stores {
    fn name(&self) -> &'static str {
        "volume-store"
    }

    fn share(&self) -> u64 {
        4
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let mut disk = MemoryDisk::default();
        let blocks_max = if random.once_in(4) { 1 << 30 } else { 2000 };
        let blocks = 1 + random.below(blocks_max);
        let spec = VolumeSpec {
            volume: VOLUME,
            blocks,
        };
        VolumeStore::format(&mut disk, FOLDER, spec).expect("the size is possible");
        let (mut store, _, _) = VolumeStore::open(&mut disk, FOLDER, 1).expect("it is new");
        for version in 0..random.below(4) {
            for _ in 0..random.below(5) {
                let near = random.below(6) * 256 + random.below(12);
                let block = near.min(blocks - 1);
                if random.once_in(5) {
                    store.clear(
                        StoreOp(2),
                        BlockRange::new(block, (blocks - block).min(256)),
                    );
                } else {
                    write(&mut store, block, version);
                }
                settle(&mut store, &mut disk);
            }
            let length = random.index(40);
            store.checkpoint(StoreOp(3), random.bytes(length));
            settle(&mut store, &mut disk);
        }
        drop(store);
        let mut chunks = Vec::new();
        for tag in 0..FILES.len() as u8 {
            let length = disk.length_of(&path(tag)).expect("the file was made");
            chunks.push(Chunk {
                tag,
                place: LENGTH,
                bytes: length.to_le_bytes().to_vec(),
            });
            for (number, mut page) in disk.pages(&path(tag)) {
                let used = page
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |last| last + 1);
                page.truncate(if tag == DATA { 16 } else { used });
                chunks.push(Chunk {
                    tag,
                    place: number as u32,
                    bytes: page,
                });
            }
        }
        chunks::join(&chunks)
    }

    fn mutate(&self, bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) -> bool {
        let by_pieces = !random.once_in(8);
        if by_pieces {
            mutate_chunks(bytes, other, |_| true, random);
        }
        by_pieces
    }

    fn reseal(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let mut chunks = chunks::split(bytes);
        let roots: Vec<Option<(u64, u32)>> = [1, 2]
            .into_iter()
            .map(|tag| reseal_root(&mut chunks, tag))
            .collect();
        let spread = random.once_in(2);
        for chunk in chunks.iter_mut().filter(|chunk| chunk.place != LENGTH) {
            match chunk.tag {
                0 => reseal_superblock(&mut chunk.bytes, &roots, spread),
                3 | 4 => {
                    chunk.bytes.resize(PAGE_BYTES, 0);
                    seal(&mut chunk.bytes);
                }
                _ => {}
            }
        }
        *bytes = chunks::join(&chunks);
    }

    fn input_bytes_max(&self) -> usize {
        48 << 10
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        // The disk and reads of extents, twice, and a root that may be 1 MiB here.
        (16 << 20) + 1024 * input_bytes
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let mut disk = MemoryDisk::default();
        fill(&mut disk, input);
        let Ok((mut store, state, spec)) = VolumeStore::open(&mut disk, FOLDER, 1) else {
            return Verdict::Refused;
        };
        assert!(spec.blocks > 0 && state.len() <= ROOT_BYTES_MAX as usize);
        if spec.volume != VOLUME {
            // Its checksums are of another volume: the owner refuses it.
            return Verdict::Accepted;
        }
        let before = look(&mut store, &mut disk);
        // What was opened can be written, and the next start finds it.
        let block = before.last().map_or(0, |(block, _)| *block);
        write(&mut store, block, NEW);
        let state = b"the next state".to_vec();
        store.checkpoint(StoreOp(4), state.clone());
        let events = settle(&mut store, &mut disk);
        let failed = events
            .iter()
            .any(|event| matches!(event, StoreEvent::Failed { .. }));
        assert!(!failed, "{events:?}");
        drop(store);
        let (mut store, found, _) =
            VolumeStore::open(&mut disk, FOLDER, 1).expect("what was checkpointed opens");
        assert_eq!(found, state);
        let mut expected = before;
        let written = Some(crc32fast::hash(&stamp(block, NEW)));
        expected
            .iter_mut()
            .filter(|(seen, _)| *seen == block)
            .for_each(|(_, hash)| *hash = written);
        assert_eq!(look(&mut store, &mut disk), expected);
        Verdict::Accepted
    }
}

fn fill(disk: &mut MemoryDisk, input: &[u8]) {
    let chunks = chunks::split(input);
    for chunk in chunks.iter().filter(|chunk| chunk.place == LENGTH) {
        if let Some(length) = chunk.bytes.first_chunk() {
            let tag = chunk.tag as usize % FILES.len();
            let max = if tag == 1 || tag == 2 {
                ROOT_BYTES_MAX
            } else {
                FILE_BYTES_MAX
            };
            disk.put(&path(chunk.tag), u64::from_le_bytes(*length).min(max));
        }
    }
    for chunk in chunks.iter().filter(|chunk| chunk.place != LENGTH) {
        let offset = u64::from(chunk.place) * PAGE_BYTES as u64;
        let is_data = chunk.tag as usize % FILES.len() == usize::from(DATA);
        if is_data && !chunk.bytes.is_empty() {
            let mut page = chunk.bytes.repeat(PAGE_BYTES.div_ceil(chunk.bytes.len()));
            page.truncate(PAGE_BYTES);
            disk.write(&path(chunk.tag), offset, &page);
        } else {
            disk.write(&path(chunk.tag), offset, &chunk.bytes);
        }
    }
}

/// Sets a page's checksum.
fn seal(page: &mut [u8]) {
    if page.len() < CRC_AT + 4 {
        return;
    }
    page[CRC_AT..CRC_AT + 4].fill(0);
    let checksum = crc32fast::hash(page);
    page[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// Seals a root that lies in one piece, and gives its length and checksum for the superblock.
fn reseal_root(chunks: &mut [Chunk], tag: u8) -> Option<(u64, u32)> {
    let root = chunks
        .iter_mut()
        .find(|chunk| chunk.tag == tag && chunk.place == 0)?;
    let word = |at: usize| {
        let bytes = root.bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    // Head, map pages, state: as long as it says it is, where that is possible.
    let length = 64 + u64::from(word(28)?) * 16 + u64::from(word(32)?);
    if length <= PAGE_BYTES as u64 {
        root.bytes.resize(length as usize, 0);
    }
    seal(&mut root.bytes);
    Some((root.bytes.len() as u64, crc32fast::hash(&root.bytes)))
}

fn reseal_superblock(page: &mut Vec<u8>, roots: &[Option<(u64, u32)>], spread: bool) {
    page.resize(PAGE_BYTES, 0);
    for sector in page.chunks_mut(SECTOR_BYTES) {
        // The generation's lowest bit says which root.
        if let Some((length, checksum)) = roots[usize::from(sector[16] & 1)] {
            sector[40..48].copy_from_slice(&length.to_le_bytes());
            sector[48..52].copy_from_slice(&checksum.to_le_bytes());
        }
        seal(sector);
    }
    if spread {
        let first = page[..SECTOR_BYTES].to_vec();
        *page = first.repeat(PAGE_BYTES / SECTOR_BYTES);
    }
}

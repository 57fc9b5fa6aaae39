//! Formatting and opening a volume's folder. Opening reads the superblock, the root and the map pages that were ever
//! written: no headers, and no data.

use super::checkpoint::{
    Checkpoints, LIVE_MAP, ROOT_GROWTH_BYTES, map_offset, root_index, superblock_offset,
};
use super::extent_map::ExtentMap;
use super::format::{
    EXTENT_BLOCKS, Entry, MapPageName, PAGE_BYTES, PAGE_ENTRIES, PageFault, Root, SLOT_BYTES,
    Superblock, decode_map_page,
};
use super::growth::{headers_bytes, map_bytes};
use super::header_cache::HeaderCache;
use super::slots::Slots;
use super::{BLOCKS_MAX, CLEAN_HEADERS_MAX, Files, StoreError, VolumeSpec, VolumeStore};
use isthmus_journal::{Disk, FileId, OpIds};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

const SUPERBLOCK_BYTES: u64 = 2 * PAGE_BYTES as u64;

impl VolumeStore {
    /// Makes an empty volume with an empty state in `folder`. What an interrupted formatting left there is removed.
    ///
    /// # Errors
    /// [`StoreError::AlreadyFormatted`], [`StoreError::Size`], or the disk's error; then the folder may hold a part of the files,
    /// which [`VolumeStore::open`] calls not formatted.
    pub fn format<D: Disk>(disk: &mut D, folder: &str, spec: VolumeSpec) -> Result<(), StoreError> {
        VolumeStore::format_with(disk, folder, spec, Vec::new())
    }

    /// The same with a state, of at most some KiB: it is there as soon as the volume is.
    ///
    /// # Errors
    /// Those of [`VolumeStore::format`].
    pub fn format_with<D: Disk>(
        disk: &mut D,
        folder: &str,
        spec: VolumeSpec,
        state: Vec<u8>,
    ) -> Result<(), StoreError> {
        if spec.blocks == 0 || spec.blocks > BLOCKS_MAX {
            return Err(StoreError::Size(spec.blocks));
        }
        match read_superblock(disk, folder) {
            Err(StoreError::NotFormatted) => {}
            Ok(_) | Err(StoreError::Damaged(_) | StoreError::Version { .. }) => {
                return Err(StoreError::AlreadyFormatted);
            }
            Err(error) => return Err(error),
        }
        disk.remove(folder)
            .map_err(StoreError::io(format!("remove the unfinished {folder}")))?;
        let root = Root {
            pages: Vec::new(),
            state,
        }
        .encode(spec.volume, 0, LIVE_MAP);
        let superblock = Superblock {
            volume: spec.volume,
            generation: 0,
            blocks: spec.blocks,
            live_map: LIVE_MAP,
            root_bytes: root.len() as u64,
            root_crc: crc32fast::hash(&root),
        };
        for name in ["data", "headers", "map"] {
            create(disk, folder, name, 0)?;
        }
        let first = create(disk, folder, "root.0", ROOT_GROWTH_BYTES)?;
        create(disk, folder, "root.1", ROOT_GROWTH_BYTES)?;
        disk.write_now(first, 0, &root)
            .map_err(StoreError::io(format!("write {folder}/root.0")))?;
        // Last, since its content is what makes the folder a volume.
        let file = create(disk, folder, "superblock", SUPERBLOCK_BYTES)?;
        let pages = superblock.encode().repeat(2);
        disk.write_now(file, 0, &pages)
            .map_err(StoreError::io(format!("write {folder}/superblock")))
    }

    /// Opens the volume in `folder` as its last durable checkpoint left it, and returns that checkpoint's state with it. The
    /// owner redoes what came after. `tag` marks the ids of the store's disk operations; no other user of the
    /// disk, nor an earlier store with operations in flight, may have the same.
    ///
    /// # Errors
    /// [`StoreError::NotFormatted`]; [`StoreError::Damaged`] when metadata other than a block's or an extent's is damaged;
    /// [`StoreError::Version`] when it is newer; or the disk's error.
    pub fn open<D: Disk>(
        disk: &mut D,
        folder: &str,
        tag: u16,
    ) -> Result<(VolumeStore, Vec<u8>, VolumeSpec), StoreError> {
        let (file, superblock) = read_superblock(disk, folder)?;
        let files = Files {
            superblock: file,
            roots: [open(disk, folder, "root.0")?, open(disk, folder, "root.1")?],
            map: open(disk, folder, "map")?,
            headers: open(disk, folder, "headers")?,
            data: open(disk, folder, "data")?,
        };
        let mut length = |file: FileId| {
            disk.length(file)
                .map_err(StoreError::io(format!("length of a file of {folder}")))
        };
        let root_room = [length(files.roots[0])?, length(files.roots[1])?];
        let map_pairs = count_of(length(files.map)?, map_bytes(1));
        let by_headers = count_of(length(files.headers)?, headers_bytes(1));
        let capacity = by_headers.min(count_of(length(files.data)?, SLOT_BYTES));
        let root = read_root(disk, &files, &superblock, root_room)?;
        let mut slots = Slots::default();
        slots.grow(capacity);
        let map = read_map(disk, &files, &superblock, &root, map_pairs, &mut slots)?;
        // What was read may be in the page cache only (the last process was killed, or its last write failed). The next
        // checkpoint overwrites what the one before refers to, so this one has to hold first.
        let offset = superblock_offset(superblock.generation);
        disk.write_now(file, offset, &superblock.encode())
            .map_err(StoreError::io(format!("write {folder}/superblock")))?;
        let spec = VolumeSpec {
            volume: superblock.volume,
            blocks: superblock.blocks,
        };
        let store = VolumeStore {
            spec,
            files,
            ids: OpIds::new(tag),
            map,
            slots,
            map_pairs,
            headers: HeaderCache::new(CLEAN_HEADERS_MAX),
            active: BTreeMap::new(),
            listed: VecDeque::new(),
            tickets: 0,
            requests: BTreeMap::new(),
            changes: BTreeSet::new(),
            checkpoints: Checkpoints::new(superblock.generation, root_room),
            jobs: BTreeMap::new(),
            hurried: false,
            outbox: VecDeque::new(),
            events: Vec::new(),
        };
        Ok((store, root.state, spec))
    }

    /// Removes the volume in `folder`, whatever its state. Absent is fine.
    ///
    /// # Errors
    /// The disk's error.
    pub fn remove<D: Disk>(disk: &mut D, folder: &str) -> Result<(), StoreError> {
        disk.remove(folder)
            .map_err(StoreError::io(format!("remove {folder}")))
    }
}

fn create<D: Disk>(
    disk: &mut D,
    folder: &str,
    name: &str,
    bytes: u64,
) -> Result<FileId, StoreError> {
    let path = format!("{folder}/{name}");
    disk.create(&path, bytes, bytes > 0)
        .map_err(StoreError::io(format!("create {path}")))
}

fn open<D: Disk>(disk: &mut D, folder: &str, name: &str) -> Result<FileId, StoreError> {
    let path = format!("{folder}/{name}");
    disk.open(&path)
        .map_err(StoreError::io(format!("open {path}")))
}

fn count_of(bytes: u64, unit: u64) -> u32 {
    u32::try_from(bytes / unit).unwrap_or(u32::MAX)
}

fn read<D: Disk>(
    disk: &mut D,
    file: FileId,
    offset: u64,
    bytes: usize,
    what: &str,
) -> Result<Vec<u8>, StoreError> {
    let mut buffer = vec![0; bytes];
    disk.read_now(file, offset, &mut buffer)
        .map_err(StoreError::io(format!("read the volume's {what}")))?;
    Ok(buffer)
}

/// The newest superblock. A crash can tear one of the two pages but never spoils all of its sectors, so a page without any
/// sound sector is damage that may hide the newest checkpoint.
fn read_superblock<D: Disk>(
    disk: &mut D,
    folder: &str,
) -> Result<(FileId, Superblock), StoreError> {
    let path = format!("{folder}/superblock");
    let file = match disk.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::NotFormatted);
        }
        other => other.map_err(StoreError::io(format!("open {path}")))?,
    };
    let bytes = read(disk, file, 0, SUPERBLOCK_BYTES as usize, "superblock")?;
    let (first, second) = bytes.split_at(superblock_offset(1) as usize);
    let blank = |page: &[u8]| page.iter().all(|byte| *byte == 0);
    match (Superblock::decode(first), Superblock::decode(second)) {
        (Ok(first), Ok(second)) => Ok((
            file,
            if first.generation > second.generation {
                first
            } else {
                second
            },
        )),
        // Formatting was interrupted: it writes both pages before it is done.
        (Err(PageFault::Damaged), _) if blank(first) => Err(StoreError::NotFormatted),
        (_, Err(PageFault::Damaged)) if blank(second) => Err(StoreError::NotFormatted),
        (Err(fault), _) | (_, Err(fault)) => Err(StoreError::of_page("superblock", fault)),
    }
}

fn read_root<D: Disk>(
    disk: &mut D,
    files: &Files,
    superblock: &Superblock,
    root_room: [u64; 2],
) -> Result<Root, StoreError> {
    let index = root_index(superblock.generation);
    let blocks = superblock.blocks;
    if superblock.root_bytes > root_room[index] || blocks == 0 || blocks > BLOCKS_MAX {
        return Err(StoreError::Damaged("root"));
    }
    let bytes = read(
        disk,
        files.roots[index],
        0,
        superblock.root_bytes as usize,
        "root",
    )?;
    Root::decode(&bytes, superblock)
}

fn read_map<D: Disk>(
    disk: &mut D,
    files: &Files,
    superblock: &Superblock,
    root: &Root,
    map_pairs: u32,
    slots: &mut Slots,
) -> Result<ExtentMap, StoreError> {
    let damaged = || StoreError::Damaged("map");
    let extents = superblock.blocks.div_ceil(EXTENT_BLOCKS);
    let mut map = ExtentMap::new();
    let mut next = 0u64;
    for stored in &root.pages {
        if u64::from(stored.index) < next || stored.location >= map_pairs {
            return Err(damaged());
        }
        next = u64::from(stored.index) + 1;
        let page = read(disk, files.map, map_offset(stored), PAGE_BYTES, "map")?;
        let name = MapPageName {
            volume: superblock.volume,
            map: superblock.live_map,
            index: stored.index,
        };
        let entries = decode_map_page(&page, name, stored.generation)
            .map_err(|fault| StoreError::of_page("map", fault))?;
        for (at, entry) in entries.iter().enumerate() {
            let Some(Entry { slot, .. }) = Entry::unpack(*entry) else {
                continue;
            };
            let extent = u64::from(stored.index) * u64::from(PAGE_ENTRIES) + at as u64;
            if extent >= extents || !slots.take_exactly(slot) {
                return Err(damaged());
            }
        }
        map.add_stored(*stored, &entries);
    }
    Ok(map)
}

//! The pages of a volume's folder as bytes: superblock, extent header, map page, root. See `docs/decisions/0003-extents-format.md`.
//!
//! Each page begins alike: `magic u32 · version u16 · 0 u16 · volume u64 · generation u64 · two u32 of its own · …`, with the
//! page's CRC-32 (over the page with this field zero) at byte 60. All integers little-endian. Every decoder is total.

use super::block_set::BlockSet;
use super::error::StoreError;
use bytes::Bytes;
use isthmus_engine::VolumeId;

/// Blocks in an extent, and in a slot.
pub(super) const EXTENT_BLOCKS: u64 = 256;
/// Bytes of data in a slot.
pub(super) const SLOT_BYTES: u64 = EXTENT_BLOCKS * isthmus_engine::BLOCK_BYTES;
/// Bytes of a metadata page.
pub(super) const PAGE_BYTES: usize = 4096;
/// Entries in a map page.
pub(super) const PAGE_ENTRIES: u32 = 504;
/// Bytes that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

const VERSION: u16 = 1;
const MAGIC_SUPERBLOCK: u32 = u32::from_le_bytes(*b"IsSB");
const MAGIC_HEADER: u32 = u32::from_le_bytes(*b"IsEH");
const MAGIC_MAP: u32 = u32::from_le_bytes(*b"IsMP");
const MAGIC_ROOT: u32 = u32::from_le_bytes(*b"IsRT");
const HEAD_BYTES: usize = 64;
const CRC_AT: usize = 60;

const _: () = assert!(
    HEAD_BYTES + PAGE_ENTRIES as usize * 8 == PAGE_BYTES,
    "a map page is full"
);

/// Why bytes are not the page that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageFault {
    /// Damaged, or not such a page at all.
    Damaged,
    /// Sound, but of another place, volume or time: a write was lost or went astray.
    Foreign,
    /// Sound, but of a format that this version doesn't know.
    Version(u16),
}

fn put<const N: usize>(page: &mut [u8], at: usize, value: [u8; N]) {
    page[at..at + N].copy_from_slice(&value);
}

fn get<const N: usize>(page: &[u8], at: usize) -> [u8; N] {
    *page[at..]
        .first_chunk()
        .expect("pages have their full length")
}

fn crc(page: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&page[..CRC_AT]);
    hasher.update(&[0; 4]);
    hasher.update(&page[CRC_AT + 4..]);
    hasher.finalize()
}

/// What each page begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    magic: u32,
    volume: VolumeId,
    generation: u64,
    own: [u32; 2],
}

impl Head {
    /// Writes the head and the page's checksum; the rest of the page is in place.
    fn seal(self, page: &mut [u8]) {
        put(page, 0, self.magic.to_le_bytes());
        put(page, 4, VERSION.to_le_bytes());
        put(page, 8, self.volume.0.to_le_bytes());
        put(page, 16, self.generation.to_le_bytes());
        put(page, 24, self.own[0].to_le_bytes());
        put(page, 28, self.own[1].to_le_bytes());
        let crc = crc(page);
        put(page, CRC_AT, crc.to_le_bytes());
    }

    /// The head of a page that is undamaged and has this magic.
    fn check(page: &[u8], magic: u32) -> Result<Head, PageFault> {
        let found = u32::from_le_bytes(get(page, 0));
        if found != magic || u32::from_le_bytes(get(page, CRC_AT)) != crc(page) {
            return Err(PageFault::Damaged);
        }
        let version = u16::from_le_bytes(get(page, 4));
        if version != VERSION {
            return Err(PageFault::Version(version));
        }
        Ok(Head {
            magic,
            volume: VolumeId(u64::from_le_bytes(get(page, 8))),
            generation: u64::from_le_bytes(get(page, 16)),
            own: [
                u32::from_le_bytes(get(page, 24)),
                u32::from_le_bytes(get(page, 28)),
            ],
        })
    }
}

/// Which of a page's two copies a checkpoint made current, and which checkpoint it was (31 bits of it, enough to
/// tell a lost write).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u32);

impl Stamp {
    /// Of a page that no checkpoint has written yet.
    pub(super) const NEVER: Stamp = Stamp(1);

    pub(super) fn new(copy: u32, generation: u64) -> Stamp {
        assert!(copy < 2, "copy {copy}");
        Stamp((generation % 0x7fff_ffff + 1) as u32 * 2 + copy)
    }

    pub(super) fn copy(self) -> u32 {
        self.0 & 1
    }

    /// The stamp of the other copy, written by checkpoint `generation`.
    pub(super) fn next(self, generation: u64) -> Stamp {
        Stamp::new(1 - self.copy(), generation)
    }
}

/// Where a mapped extent's blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The slot.
    pub(super) slot: u32,
    /// The current copy of the slot's header.
    pub(super) stamp: Stamp,
}

impl Entry {
    /// As in a map page; 0 is "no slot".
    pub(super) fn pack(entry: Option<Entry>) -> u64 {
        entry.map_or(0, |entry| {
            (u64::from(entry.slot) + 1) | u64::from(entry.stamp.0) << 32
        })
    }

    pub(super) fn unpack(packed: u64) -> Option<Entry> {
        let slot = (packed as u32).checked_sub(1)?;
        Some(Entry {
            slot,
            stamp: Stamp((packed >> 32) as u32),
        })
    }
}

/// The entries of a map page, packed.
pub(super) type Entries = [u64; PAGE_ENTRIES as usize];

/// What an extent's header page says of its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Blocks that were written.
    pub(super) present: BlockSet,
    /// Blocks whose content was lost to a disk error: neither present nor zero.
    pub(super) lost: BlockSet,
    /// Checksums of the present blocks.
    pub(super) checksums: [u32; EXTENT_BLOCKS as usize],
}

impl Header {
    pub(super) fn empty() -> Header {
        Header {
            present: BlockSet::EMPTY,
            lost: BlockSet::EMPTY,
            checksums: [0; EXTENT_BLOCKS as usize],
        }
    }

    /// What stands in for a header that is damaged: nothing is known of any block.
    pub(super) fn all_lost() -> Header {
        Header {
            lost: BlockSet::ALL,
            ..Header::empty()
        }
    }

    /// Whether no block has content, known or lost.
    pub(super) fn is_empty(&self) -> bool {
        self.present.is_empty() && self.lost.is_empty()
    }

    pub(super) fn encode(
        &self,
        volume: VolumeId,
        extent: u32,
        slot: u32,
        generation: u64,
    ) -> Bytes {
        let mut page = vec![0; PAGE_BYTES];
        put(&mut page, 64, self.present.to_bytes());
        put(&mut page, 96, self.lost.to_bytes());
        for (to, checksum) in page[128..]
            .as_chunks_mut::<4>()
            .0
            .iter_mut()
            .zip(self.checksums)
        {
            *to = checksum.to_le_bytes();
        }
        Head {
            magic: MAGIC_HEADER,
            volume,
            generation,
            own: [extent, slot],
        }
        .seal(&mut page);
        Bytes::from(page)
    }

    pub(super) fn decode(
        page: &[u8],
        volume: VolumeId,
        extent: u32,
        entry: Entry,
    ) -> Result<Header, PageFault> {
        if page.len() != PAGE_BYTES {
            return Err(PageFault::Damaged);
        }
        let head = Head::check(page, MAGIC_HEADER)?;
        let stamp = Stamp::new(entry.stamp.copy(), head.generation);
        if head.volume != volume || head.own != [extent, entry.slot] || stamp != entry.stamp {
            return Err(PageFault::Foreign);
        }
        let (checksums, _) = page[128..].as_chunks::<4>();
        Ok(Header {
            present: BlockSet::from_bytes(&get(page, 64)),
            lost: BlockSet::from_bytes(&get(page, 96)),
            checksums: std::array::from_fn(|index| u32::from_le_bytes(checksums[index])),
        })
    }
}

/// Whose map page it is: the volume, the map (0 is the live one; others will be snapshots), and the page's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapPageName {
    pub(super) volume: VolumeId,
    pub(super) map: u32,
    pub(super) index: u32,
}

pub(super) fn encode_map_page(name: MapPageName, generation: u64, entries: &Entries) -> Bytes {
    let mut page = vec![0; PAGE_BYTES];
    for (to, entry) in page[HEAD_BYTES..]
        .as_chunks_mut::<8>()
        .0
        .iter_mut()
        .zip(entries)
    {
        *to = entry.to_le_bytes();
    }
    Head {
        magic: MAGIC_MAP,
        volume: name.volume,
        generation,
        own: [name.index, name.map],
    }
    .seal(&mut page);
    Bytes::from(page)
}

pub(super) fn decode_map_page(
    page: &[u8],
    name: MapPageName,
    generation: u64,
) -> Result<Entries, PageFault> {
    if page.len() != PAGE_BYTES {
        return Err(PageFault::Damaged);
    }
    let head = Head::check(page, MAGIC_MAP)?;
    if head
        != (Head {
            magic: MAGIC_MAP,
            volume: name.volume,
            generation,
            own: [name.index, name.map],
        })
    {
        return Err(PageFault::Foreign);
    }
    let (entries, _) = page[HEAD_BYTES..].as_chunks::<8>();
    Ok(std::array::from_fn(|index| {
        u64::from_le_bytes(entries[index])
    }))
}

/// What makes a checkpoint current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) volume: VolumeId,
    pub(super) generation: u64,
    /// Blocks of the volume.
    pub(super) blocks: u64,
    /// The map that clients write to.
    pub(super) live_map: u32,
    /// Length of the root in its file (`root.0` or `root.1`, by the generation's lowest bit).
    pub(super) root_bytes: u64,
    /// CRC-32 of the root.
    pub(super) root_crc: u32,
}

impl Superblock {
    /// A page of eight equal sectors: any of them that survives says all, since it is written last.
    pub(super) fn encode(&self) -> Bytes {
        let mut sector = [0; SECTOR_BYTES];
        put(&mut sector, 32, self.blocks.to_le_bytes());
        put(&mut sector, 40, self.root_bytes.to_le_bytes());
        put(&mut sector, 48, self.root_crc.to_le_bytes());
        let own = [EXTENT_BLOCKS as u32, self.live_map];
        Head {
            magic: MAGIC_SUPERBLOCK,
            volume: self.volume,
            generation: self.generation,
            own,
        }
        .seal(&mut sector);
        Bytes::from(sector.repeat(PAGE_BYTES / SECTOR_BYTES))
    }

    /// The newest of the page's sound sectors.
    pub(super) fn decode(page: &[u8]) -> Result<Superblock, PageFault> {
        let mut best: Result<Superblock, PageFault> = Err(PageFault::Damaged);
        for sector in page.as_chunks::<SECTOR_BYTES>().0 {
            match (Superblock::decode_sector(sector), &best) {
                (Ok(found), Ok(known)) if found.generation <= known.generation => {}
                (Ok(found), _) => best = Ok(found),
                // A newer version's sector rules out every older one: it must not be overlooked.
                (Err(fault @ PageFault::Version(_)), _) => return Err(fault),
                (Err(_), _) => {}
            }
        }
        best
    }

    fn decode_sector(sector: &[u8; SECTOR_BYTES]) -> Result<Superblock, PageFault> {
        let head = Head::check(sector, MAGIC_SUPERBLOCK)?;
        if head.own[0] != EXTENT_BLOCKS as u32 {
            return Err(PageFault::Foreign);
        }
        Ok(Superblock {
            volume: head.volume,
            generation: head.generation,
            blocks: u64::from_le_bytes(get(sector, 32)),
            live_map: head.own[1],
            root_bytes: u64::from_le_bytes(get(sector, 40)),
            root_crc: u32::from_le_bytes(get(sector, 48)),
        })
    }
}

/// A map page that has been written: where, which copy, and by which checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredPage {
    /// The page's index in the map.
    pub(super) index: u32,
    /// The pair of pages in the map file that it has.
    pub(super) location: u32,
    /// The current copy.
    pub(super) copy: u32,
    /// The checkpoint that wrote it.
    pub(super) generation: u64,
}

/// The root of a checkpoint: where its map pages are, and its owner's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) pages: Vec<StoredPage>,
    pub(super) state: Vec<u8>,
}

const ROOT_PAGE_BYTES: usize = 16;

impl Root {
    pub(super) fn encode(&self, volume: VolumeId, generation: u64, map: u32) -> Bytes {
        let mut out = vec![0; HEAD_BYTES];
        put(&mut out, 32, (self.state.len() as u64).to_le_bytes());
        out.reserve_exact(self.pages.len() * ROOT_PAGE_BYTES + self.state.len());
        for page in &self.pages {
            out.extend(page.index.to_le_bytes());
            out.extend(page.location.to_le_bytes());
            out.extend((page.generation << 1 | u64::from(page.copy)).to_le_bytes());
        }
        out.extend(&self.state);
        // One map is known so far; more would follow the first, each with its number and its count.
        let pages = u32::try_from(self.pages.len()).expect("pages are numbered by 32 bits");
        Head {
            magic: MAGIC_ROOT,
            volume,
            generation,
            own: [map, pages],
        }
        .seal(&mut out);
        Bytes::from(out)
    }

    pub(super) fn decode(bytes: &[u8], superblock: &Superblock) -> Result<Root, StoreError> {
        let damaged = || StoreError::Damaged("root");
        if bytes.len() < HEAD_BYTES || crc32fast::hash(bytes) != superblock.root_crc {
            return Err(damaged());
        }
        let head =
            Head::check(bytes, MAGIC_ROOT).map_err(|fault| StoreError::of_page("root", fault))?;
        let [map, pages] = head.own;
        let state_bytes = u64::from_le_bytes(get(bytes, 32));
        let pages_bytes = u64::from(pages) * ROOT_PAGE_BYTES as u64;
        let fits = (bytes.len() - HEAD_BYTES) as u64 == pages_bytes.saturating_add(state_bytes);
        let ours = head.volume == superblock.volume && head.generation == superblock.generation;
        if !fits || !ours || map != superblock.live_map {
            return Err(damaged());
        }
        let (pages, state) = bytes[HEAD_BYTES..].split_at(pages_bytes as usize);
        let pages = pages.as_chunks::<ROOT_PAGE_BYTES>().0.iter().map(|page| {
            let stamp = u64::from_le_bytes(get(page, 8));
            StoredPage {
                index: u32::from_le_bytes(get(page, 0)),
                location: u32::from_le_bytes(get(page, 4)),
                copy: (stamp & 1) as u32,
                generation: stamp >> 1,
            }
        });
        Ok(Root {
            pages: pages.collect(),
            state: state.to_vec(),
        })
    }
}

use super::rig::{FOLDER, Rig};
use crate::store::{StoreError, VolumeStore};
use isthmus_engine::BlockRange;
use std::io::ErrorKind;

#[test]
fn a_bit_flip_in_a_block_is_found_and_mended_by_a_write() {
    let mut rig = Rig::new(1, 600);
    rig.write(BlockRange::new(0, 600));
    rig.restart();
    for _ in 0..20 {
        let block = rig.random.below(600);
        let (offset, bit) = (
            block * 4096 + rig.random.below(4096),
            rig.random.below(8) as u8,
        );
        rig.disk.flip_bit(&format!("{FOLDER}/data"), offset, bit);
        rig.read(BlockRange::new(0, 600));
        rig.read(BlockRange::new(block, 1));
        rig.settle();
        assert_eq!(std::mem::take(&mut rig.bad), [block, block]);
        rig.write(BlockRange::new(block, 1));
        rig.check_all();
    }
}

#[test]
fn a_damaged_header_makes_its_blocks_bad_until_they_are_written_or_cleared() {
    for bit in 0..200 {
        let mut rig = Rig::new(bit, 512);
        rig.write(BlockRange::new(0, 100));
        rig.write(BlockRange::new(256, 256));
        rig.restart();
        let at = rig.random.below(4096);
        rig.disk
            .flip_bit(&format!("{FOLDER}/headers"), at, (bit % 8) as u8);
        rig.read(BlockRange::new(0, 512));
        rig.settle();
        assert_eq!(std::mem::take(&mut rig.bad), (0..256).collect::<Vec<u64>>());
        rig.write(BlockRange::new(10, 5));
        rig.clear(BlockRange::new(20, 5));
        // The damage is remembered by the next checkpoint.
        rig.restart();
        rig.read(BlockRange::new(0, 30));
        rig.settle();
        let bad: Vec<u64> = (0..30)
            .filter(|block| !(10..15).contains(block) && !(20..25).contains(block))
            .collect();
        assert_eq!(std::mem::take(&mut rig.bad), bad);
        rig.write(BlockRange::new(0, 256));
        rig.check_all();
    }
}

#[test]
fn a_header_whose_last_write_was_lost_is_not_believed() {
    use isthmus_journal::Disk;
    let mut rig = Rig::new(1, 256);
    rig.write(BlockRange::new(0, 1));
    rig.restart();
    let before = rig.disk.dump(&format!("{FOLDER}/headers")).unwrap();
    for round in 0..2 {
        rig.write(BlockRange::new(round, 1));
        rig.restart();
    }
    // The third checkpoint wrote the first copy again: put back what was there.
    let headers = rig.disk.open(&format!("{FOLDER}/headers")).unwrap();
    rig.disk.write_now(headers, 0, &before[..4096]).unwrap();
    rig.read(BlockRange::new(0, 2));
    rig.settle();
    assert_eq!(rig.bad, [0, 1]);
}

#[test]
fn damaged_metadata_is_refused_when_it_is_opened() {
    for seed in 0..300 {
        let mut rig = Rig::new(seed, 700);
        rig.write(BlockRange::new(0, 700));
        rig.restart();
        rig.write(BlockRange::new(3, 7));
        rig.restart();
        rig.disk.reopen();
        let name = ["superblock", "root.0", "root.1", "map"][seed as usize % 4];
        let at = rig
            .random
            .below(if name == "superblock" { 512 } else { 4096 });
        rig.disk
            .flip_bit(&format!("{FOLDER}/{name}"), at, (seed % 8) as u8);
        match VolumeStore::open(&mut rig.disk, FOLDER, 9) {
            // Not the current copy, or one of eight sectors.
            Ok((store, ..)) => {
                rig.store = store;
                rig.check_all();
            }
            Err(StoreError::Damaged(_)) => assert_ne!(name, "superblock"),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_superblock_page_without_a_sound_sector_is_refused() {
    let mut rig = Rig::new(1, 700);
    for page in 0..2 {
        for sector in 0..8 {
            rig.disk.flip_bit(
                &format!("{FOLDER}/superblock"),
                page * 4096 + sector * 512 + 20,
                1,
            );
        }
        assert!(matches!(
            VolumeStore::open(&mut rig.disk, FOLDER, 9),
            Err(StoreError::Damaged("superblock"))
        ));
        for sector in 0..8 {
            rig.disk.flip_bit(
                &format!("{FOLDER}/superblock"),
                page * 4096 + sector * 512 + 20,
                1,
            );
        }
    }
}

#[test]
fn a_full_disk_fails_what_needs_space_and_nothing_else() {
    let mut rig = Rig::new(5, 256 * 64);
    rig.write(BlockRange::new(0, 256 * 16));
    rig.settle();
    rig.checkpoint();
    rig.settle();
    rig.disk
        .set_capacity_bytes(Some(rig.disk.allocated_bytes() + (3 << 20)));
    let before = rig.model.clone();
    for extent in 16..24 {
        rig.write(BlockRange::new(extent * 256, 256));
    }
    rig.settle();
    assert_eq!(rig.failed.len(), 6, "{:?}", rig.failed);
    assert!(
        rig.failed
            .iter()
            .all(|failed| failed.1 == ErrorKind::StorageFull)
    );
    rig.failed.clear();
    rig.model[18 * 256..].copy_from_slice(&before[18 * 256..]);
    rig.write(BlockRange::new(17, 100));
    rig.checkpoint();
    rig.check_all();
    // Space that was given back is used again, after the next checkpoint.
    rig.clear(BlockRange::new(0, 512));
    rig.settle();
    assert!(!rig.store.wants_checkpoint());
    let before = rig.model.clone();
    rig.write(BlockRange::new(20 * 256, 512));
    rig.settle();
    assert_eq!(std::mem::take(&mut rig.failed).len(), 1);
    rig.model = before;
    assert!(
        rig.store.wants_checkpoint(),
        "it gives the space that the write missed"
    );
    rig.checkpoint();
    rig.settle();
    assert!(!rig.store.wants_checkpoint());
    rig.write(BlockRange::new(20 * 256, 512));
    rig.check_all();
    rig.disk.set_capacity_bytes(None);
    rig.write(BlockRange::new(30 * 256, 512));
    rig.check_all();
    assert!(rig.failed.is_empty());
}

#[test]
fn a_failed_read_makes_blocks_bad_and_a_failed_write_fails_its_operation() {
    let mut rig = Rig::new(6, 1024);
    rig.write(BlockRange::new(0, 512));
    rig.restart();
    rig.disk.fail_reads(&format!("{FOLDER}/data"), 0..4096);
    rig.read(BlockRange::new(0, 4));
    rig.read(BlockRange::new(300, 4));
    rig.settle();
    assert_eq!(std::mem::take(&mut rig.bad), [0, 1, 2, 3]);
    rig.disk.heal();
    rig.check_all();

    rig.restart();
    rig.disk.fail_reads(&format!("{FOLDER}/headers"), 0..8192);
    rig.read(BlockRange::new(7, 2));
    rig.write(BlockRange::new(9, 1));
    rig.settle();
    assert_eq!(
        (std::mem::take(&mut rig.bad), rig.failed.len()),
        (vec![7, 8], 1)
    );
    rig.disk.heal();
    rig.write(BlockRange::new(9, 1));
    rig.check_all();

    rig.failed.clear();
    rig.disk.fail_writes(&format!("{FOLDER}/data"));
    rig.write(BlockRange::new(20, 2));
    rig.settle();
    assert_eq!(rig.failed.len(), 1);
    rig.disk.heal();
    rig.read(BlockRange::new(19, 4));
    rig.settle();
    assert_eq!(
        std::mem::take(&mut rig.bad),
        [20, 21],
        "nobody knows what is there"
    );
    rig.write(BlockRange::new(20, 2));
    rig.check_all();
}

#[test]
fn after_a_failed_sync_no_checkpoint_is_trusted() {
    let mut rig = Rig::new(7, 1024);
    rig.write(BlockRange::new(0, 512));
    rig.settle();
    rig.disk.fail_writes(&format!("{FOLDER}/data"));
    rig.checkpoint();
    rig.settle();
    rig.disk.heal();
    rig.checkpoint();
    rig.settle();
    assert_eq!((rig.failed.len(), rig.durable), (2, 0));
    rig.check_all();
}

#[test]
fn a_checkpoint_after_a_failed_change_fails_and_one_before_it_does_not() {
    use crate::store::{StoreEvent, StoreOp};
    use isthmus_simulated_disk::Operation;
    let mut rig = Rig::new(3, 512);
    rig.write(BlockRange::new(0, 512));
    rig.settle();
    let data = bytes::Bytes::from(vec![1; 4096]);
    let checksum = isthmus_engine::block_checksum(rig.store.spec().volume, 3, &data);
    rig.store.checkpoint(StoreOp(901), Vec::new());
    rig.disk
        .fail_next(Operation::Write, &format!("{FOLDER}/data"), 1);
    rig.store
        .write(StoreOp(902), BlockRange::new(3, 1), data, vec![checksum]);
    rig.store.checkpoint(StoreOp(903), Vec::new());
    let mut ended = Vec::new();
    while ended.len() < 3 {
        let mut events = Vec::new();
        rig.store.step(&mut rig.disk, &mut events);
        ended.extend(events.into_iter().map(|event| match event {
            StoreEvent::Checkpointed { op } => (op.0, true),
            StoreEvent::Failed { op, .. } => (op.0, false),
            other => panic!("{other:?}"),
        }));
        if let Some(at) = rig.disk.next_event() {
            rig.disk.advance(at);
        }
        let mut completions = Vec::new();
        isthmus_journal::Disk::completed(&mut rig.disk, &mut completions);
        for (id, result) in completions {
            rig.store.on_completed(id, result);
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [(901, true), (902, false), (903, false)]);
}

#[test]
fn what_is_reserved_is_there_whatever_becomes_of_the_disk() {
    let mut rig = Rig::new(4, 256 * 64);
    rig.write(BlockRange::new(0, 256 * 8));
    rig.settle();
    rig.checkpoint();
    rig.settle();
    rig.clear(BlockRange::new(0, 256 * 8));
    rig.checkpoint();
    rig.settle();
    // The punched slots' space is anyone's.
    let before = rig.store.slots_ready();
    let allocated = rig.disk.allocated_bytes();
    rig.store.reserve(before + 8, &mut rig.disk).unwrap();
    assert_eq!(rig.disk.allocated_bytes(), allocated + (8 << 20));
    rig.disk.set_capacity_bytes(Some(0));
    let ready = rig.store.slots_ready();
    assert!(rig.store.reserve(ready + 1, &mut rig.disk).is_err());
    for extent in 0..u64::from(ready) {
        rig.write(BlockRange::new((20 + extent) * 256, 1));
    }
    rig.check_all();
    assert_eq!(rig.store.slots_ready(), 0);
}

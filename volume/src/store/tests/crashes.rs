use super::rig::{Change, Rig};
use isthmus_engine::BlockRange;

/// Blocks that changes since position `from` of the log touched.
fn touched(rig: &Rig, from: usize) -> Vec<bool> {
    let mut touched = vec![false; rig.blocks as usize];
    for change in &rig.log[from..] {
        touched[change.range().start as usize..change.range().end() as usize].fill(true);
    }
    touched
}

/// Opens after a crash, checks which checkpoint was found and what it left alone, and redoes the rest.
fn recover(rig: &mut Rig) {
    let submitted = rig.expected.values().filter_map(|expected| match expected {
        super::rig::Expected::Checkpointed(at) => Some(*at),
        _ => None,
    });
    let possible: Vec<usize> = submitted.chain([rig.durable]).collect();
    let state = rig.open();
    let at = state
        .first_chunk()
        .map_or(0, |at| u64::from_le_bytes(*at) as usize);
    assert!(
        possible.contains(&at),
        "the state of {at}, not of one of {possible:?}"
    );
    assert!(state.iter().skip(8).all(|byte| *byte == 0xa5));
    rig.durable = at;
    rig.expected.clear();
    // The redo of later changes must not be needed for what they did not touch.
    let touched = touched(rig, at);
    let mut block = 0;
    while block < rig.blocks {
        let mut end = block;
        while end < rig.blocks && !touched[end as usize] && end - block < 200 {
            end += 1;
        }
        if end > block {
            rig.read(BlockRange::new(block, end - block));
        }
        block = end.max(block + 1);
    }
    rig.settle();
    assert_eq!(rig.bad, [], "untouched blocks are good");
    let redo: Vec<Change> = rig.log[at..].to_vec();
    for change in redo {
        rig.submit(change);
    }
}

fn work(rig: &mut Rig, steps: u64) {
    for _ in 0..steps {
        let count_max = if rig.random.chance(1, 8) { 600 } else { 20 };
        let range = rig.range(count_max);
        match rig.random.below(16) {
            0..=6 => rig.write(range),
            7 | 8 => rig.clear(range),
            9 => rig.clear(BlockRange::new(
                range.start / 256 * 256,
                (rig.blocks - range.start / 256 * 256).min(256),
            )),
            10 if rig.random.chance(1, 3) => rig.checkpoint(),
            _ => rig.read(range),
        }
        rig.step();
        while rig.expected.len() > 30 || rig.random.chance(1, 2) {
            if !rig.tick() {
                break;
            }
        }
    }
}

#[test]
fn after_a_crash_at_any_moment_the_checkpoint_and_the_redone_changes_give_all_back() {
    for seed in 0..30 {
        let mut rig = Rig::new(seed, 256 * 5 + 40);
        for _ in 0..12 {
            let steps = 1 + rig.random.below(60);
            work(&mut rig, steps);
            // A crash shortly after a checkpoint began is the interesting one.
            if rig.random.chance(2, 3) {
                rig.checkpoint();
                rig.step();
                for _ in 0..rig.random.below(40) {
                    rig.tick();
                }
            }
            if rig.random.chance(1, 3) {
                rig.disk.reopen();
            } else {
                rig.disk.crash();
            }
            recover(&mut rig);
            if rig.random.chance(1, 2) {
                rig.check_all();
            }
        }
        rig.settle();
        rig.check_all();
        assert!(rig.failed.is_empty(), "{:?}", rig.failed);
    }
}

#[test]
fn failed_checkpoints_leave_the_one_before_in_force() {
    for seed in 0..25 {
        let mut rig = Rig::new(seed + 1000, 256 * 5 + 40);
        for round in 0..10 {
            work(&mut rig, 25);
            let name =
                ["map", "headers", "root.0", "root.1", "superblock"][(seed as usize + round) % 5];
            rig.disk
                .fail_writes(&format!("{}/{name}", super::rig::FOLDER));
            work(&mut rig, 10);
            rig.checkpoint();
            for _ in 0..rig.random.below(60) {
                rig.tick();
            }
            rig.disk.heal();
            work(&mut rig, 20);
            if rig.random.chance(1, 2) {
                rig.checkpoint();
                for _ in 0..rig.random.below(60) {
                    rig.tick();
                }
            }
            // What failed may be durable after all, or not.
            rig.disk.crash();
            let undecided: Vec<usize> = (rig.durable..=rig.log.len()).collect();
            let pending = undecided
                .into_iter()
                .map(|at| (u64::MAX - at as u64, super::rig::Expected::Checkpointed(at)));
            rig.expected.extend(pending);
            recover(&mut rig);
        }
        rig.settle();
        rig.check_all();
        rig.restart();
        rig.check_all();
    }
}

#[test]
fn an_interrupted_formatting_is_no_volume_and_is_formatted_again() {
    use crate::store::{StoreError, VolumeSpec, VolumeStore};
    use isthmus_journal::Disk;
    let mut disk = isthmus_simulated_disk::SimulatedDisk::new(1);
    disk.create("v/data", 0, false).unwrap();
    disk.create("v/superblock", 8192, true).unwrap();
    let spec = VolumeSpec {
        volume: super::rig::VOLUME,
        blocks: 1,
    };
    assert!(matches!(
        VolumeStore::open(&mut disk, "v", 1),
        Err(StoreError::NotFormatted)
    ));
    VolumeStore::format(&mut disk, "v", spec).unwrap();
    assert!(matches!(
        VolumeStore::format(&mut disk, "v", spec),
        Err(StoreError::AlreadyFormatted)
    ));
    disk.crash();
    assert_eq!(VolumeStore::open(&mut disk, "v", 1).unwrap().2, spec);
}

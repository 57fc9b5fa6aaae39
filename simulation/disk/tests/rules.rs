//! What the simulated disk promises and what it takes away.

#![allow(clippy::unwrap_used)] // all of this is a test, but clippy sees no test function around the helpers

use bytes::Bytes;
use isthmus_journal::{Disk, DiskBusy, DiskOp, Done, FileId, OpId};
use isthmus_simulated_disk::{Operation, SimulatedDisk};
use std::io::ErrorKind;

fn write(file: FileId, offset: u64, data: &[u8], durable: bool) -> DiskOp {
    DiskOp::Write {
        file,
        offset,
        parts: vec![Bytes::copy_from_slice(data)],
        durable,
    }
}

/// Submits the operations together, waits for all, and gives back the results by number.
fn run(disk: &mut SimulatedDisk, ops: Vec<DiskOp>) -> Vec<std::io::Result<Done>> {
    for (op, id) in ops.into_iter().zip(0..) {
        disk.submit(OpId(id), op).unwrap();
    }
    while let Some(at) = disk.next_event() {
        disk.advance(at);
    }
    let mut completed = Vec::new();
    disk.completed(&mut completed);
    completed.sort_by_key(|(id, _)| *id);
    completed.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn a_synced_or_durable_write_survives_every_crash() {
    for seed in 0..200 {
        let mut disk = SimulatedDisk::new(seed);
        let file = disk.create("a/b", 1 << 20, false).unwrap();
        run(&mut disk, vec![write(file, 100, &[1; 3_000], false)]);
        run(&mut disk, vec![DiskOp::Sync { file }]);
        run(&mut disk, vec![write(file, 9_000, &[2; 3_000], true)]);
        run(&mut disk, vec![write(file, 50_000, &[3; 3_000], false)]);
        disk.crash();
        assert_eq!(disk.peek("a/b", 100, 3_000).unwrap(), [1; 3_000]);
        assert_eq!(disk.peek("a/b", 9_000, 3_000).unwrap(), [2; 3_000]);
        assert_eq!(disk.peek("a/b", 0, 100).unwrap(), [0; 100]);
    }
}

#[test]
fn an_unsynced_write_may_be_kept_lost_or_torn_at_sectors() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..300 {
        let mut disk = SimulatedDisk::new(seed);
        let file = disk.create("a", 1 << 20, true).unwrap();
        run(&mut disk, vec![write(file, 4096, &[7; 4096], false)]);
        disk.crash();
        let content = disk.peek("a", 4096, 4096).unwrap();
        for sector in content.chunks(512) {
            assert!(
                sector == [7; 512] || sector == [0; 512],
                "a sector is never torn"
            );
        }
        match content.iter().filter(|byte| **byte == 7).count() {
            0 => lost += 1,
            4096 => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(
        kept > 50 && lost > 50 && torn > 50,
        "kept {kept}, lost {lost}, torn {torn}"
    );
}

#[test]
fn a_sync_does_not_cover_a_write_that_completed_after_it_was_submitted() {
    let mut lost = 0;
    for seed in 0..300 {
        let mut disk = SimulatedDisk::new(seed);
        let file = disk.create("a", 4096, true).unwrap();
        run(
            &mut disk,
            vec![write(file, 0, &[7; 512], false), DiskOp::Sync { file }],
        );
        disk.crash();
        lost += u32::from(disk.dump("a").unwrap()[0] == 0);
    }
    assert!(lost > 50, "lost in {lost} of 300 runs");
}

#[test]
fn a_durable_write_is_not_undone_by_an_older_unsynced_one() {
    for seed in 0..300 {
        let mut disk = SimulatedDisk::new(seed);
        let file = disk.create("a", 4096, true).unwrap();
        run(
            &mut disk,
            vec![
                write(file, 0, &[1; 4096], false),
                write(file, 512, &[2; 512], true),
            ],
        );
        let durable_was_last = disk.dump("a").unwrap()[512] == 2;
        disk.crash();
        let content = disk.peek("a", 512, 512).unwrap();
        assert!(content == [2; 512] || (!durable_was_last && content == [1; 512]));
    }
}

#[test]
fn a_killed_process_leaves_the_cache_and_closes_its_files() {
    let mut disk = SimulatedDisk::new(1);
    let file = disk.create("a", 4096, true).unwrap();
    run(&mut disk, vec![write(file, 0, &[1; 4096], false)]);
    disk.submit(OpId(9), write(file, 0, &[2; 4096], true))
        .unwrap();
    disk.reopen();
    assert!(disk.dump("a").unwrap().iter().all(|byte| *byte != 0));
    assert_eq!(disk.next_event(), None);
    assert!(disk.read_now(file, 0, &mut [0]).is_err());
    assert!(disk.open("a").is_ok());
}

#[test]
fn a_sparse_file_of_a_tebibyte_costs_its_pages_only() {
    let mut disk = SimulatedDisk::new(1);
    disk.set_capacity_bytes(Some(16 << 10));
    let file = disk.create("big", 1 << 40, false).unwrap();
    let last = (1 << 40) - 4096;
    let results = run(&mut disk, vec![write(file, last, &[1; 4096], false)]);
    assert!(results[0].is_ok());
    assert_eq!(
        (disk.allocated_bytes(), disk.page_offsets("big")),
        (4096, vec![last])
    );
    run(
        &mut disk,
        vec![DiskOp::Punch {
            file,
            offset: 0,
            length: 1 << 40,
        }],
    );
    assert_eq!(disk.allocated_bytes(), 0);
    disk.crash();
    assert_eq!(disk.peek("big", (1 << 40) + 5, 3).unwrap(), [0; 3]);
}

#[test]
fn a_full_disk_refuses_what_was_not_reserved() {
    let mut disk = SimulatedDisk::new(1);
    disk.set_capacity_bytes(Some(8192));
    assert_eq!(
        disk.create("a", 12_288, true).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    let reserved = disk.create("a", 4096, true).unwrap();
    let sparse = disk.create("b", 1 << 20, false).unwrap();
    let results = run(
        &mut disk,
        vec![
            write(reserved, 0, &[1; 4096], true),
            write(sparse, 0, &[1; 4096], true),
        ],
    );
    assert!(results.iter().all(Result::is_ok));
    let results = run(&mut disk, vec![write(sparse, 8192, &[1; 1], true)]);
    assert_eq!(
        results[0].as_ref().unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    assert_eq!(
        disk.resize(reserved, 8192, true).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    run(
        &mut disk,
        vec![DiskOp::Punch {
            file: sparse,
            offset: 0,
            length: 4096,
        }],
    );
    assert!(run(&mut disk, vec![write(sparse, 8192, &[1; 1], true)])[0].is_ok());
}

#[test]
fn faults_come_and_go() {
    let mut disk = SimulatedDisk::new(1);
    let file = disk.create("a", 8192, true).unwrap();
    disk.write_now(file, 0, &[1; 8192]).unwrap();
    disk.fail_reads("a", 4096..4097);
    disk.fail_writes("a");
    let read = |offset| DiskOp::Read {
        file,
        offset,
        length: 4096,
    };
    let results = run(
        &mut disk,
        vec![
            read(0),
            read(4096),
            write(file, 0, &[2], false),
            DiskOp::Sync { file },
        ],
    );
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, false, false]
    );
    disk.heal();
    disk.flip_bit("a", 5, 7);
    let results = run(&mut disk, vec![read(0)]);
    let Ok(Done::Read(bytes)) = &results[0] else {
        panic!("{results:?}");
    };
    assert_eq!((bytes.len(), bytes[4], bytes[5]), (4096, 1, 129));
    disk.crash();
    assert_eq!(disk.dump("a").unwrap()[5], 129, "decay is for good");
}

#[test]
fn operations_in_flight_are_bounded_and_complete_in_any_order() {
    let mut disk = SimulatedDisk::new(1);
    let file = disk.create("a", 4096, true).unwrap();
    let mut taken = 0;
    while disk.submit(OpId(taken), DiskOp::Sync { file }) != Err(DiskBusy) {
        taken += 1;
    }
    disk.advance(1 << 40);
    let mut completed = Vec::new();
    disk.completed(&mut completed);
    assert_eq!(completed.len() as u64, taken);
    assert!(!completed.is_sorted_by_key(|(id, _)| *id));
}

#[test]
fn folders_list_sort_and_vanish() {
    let mut disk = SimulatedDisk::new(1);
    for path in ["v/2/map", "v/2/data", "v/10/map", "vv/x"] {
        disk.create(path, 10, false).unwrap();
    }
    assert_eq!(disk.list("v").unwrap(), ["10", "2"]);
    assert_eq!(disk.list("").unwrap(), ["v", "vv"]);
    assert_eq!(
        disk.create("vv/x", 1, false).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    disk.remove("v").unwrap();
    disk.remove("never/there").unwrap();
    assert_eq!(disk.list("v").unwrap(), Vec::<String>::new());
    assert_eq!(disk.list("").unwrap(), ["vv"]);
    assert_eq!(
        disk.open("v/2/map").unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn shrinking_a_file_clears_what_was_behind_its_end() {
    let mut disk = SimulatedDisk::new(1);
    let file = disk.create("a", 8192, true).unwrap();
    disk.write_now(file, 0, &[1; 8192]).unwrap();
    disk.resize(file, 1_000, false).unwrap();
    disk.resize(file, 8192, false).unwrap();
    disk.crash();
    let content = disk.dump("a").unwrap();
    assert!(content[..1_000] == [1; 1_000] && content[1_000..].iter().all(|byte| *byte == 0));
}

#[test]
fn failures_come_as_often_as_they_were_asked_for_and_only_where() {
    let mut disk = SimulatedDisk::new(1);
    let file = disk.create("a/b", 1 << 20, true).unwrap();
    let other = disk.create("c", 1 << 20, true).unwrap();
    disk.fail_next(Operation::Write, "a/", 2);
    disk.fail_next(Operation::Sync, "a/b", 1);
    disk.find_no_space("c", 1);
    for expected in [false, false, true] {
        let done = run(&mut disk, vec![write(file, 0, &[1; 512], false)]);
        assert_eq!(done[0].is_ok(), expected);
    }
    for expected in [false, true] {
        let done = run(&mut disk, vec![DiskOp::Sync { file }]);
        assert_eq!(done[0].is_ok(), expected);
    }
    let done = run(&mut disk, vec![write(other, 0, &[1; 512], false)]);
    assert_eq!(done[0].as_ref().unwrap_err().kind(), ErrorKind::StorageFull);
    disk.fail_next(Operation::Read, "", u32::MAX);
    let read = DiskOp::Read {
        file,
        offset: 0,
        length: 512,
    };
    assert!(run(&mut disk, vec![read.clone()])[0].is_err());
    disk.heal();
    assert!(run(&mut disk, vec![read])[0].is_ok());
}

#[test]
fn a_read_only_disk_reads_and_changes_nothing() {
    let mut disk = SimulatedDisk::new(1);
    let file = disk.create("a", 8192, true).unwrap();
    run(&mut disk, vec![write(file, 0, &[1; 512], true)]);
    disk.set_read_only(true);
    assert!(run(&mut disk, vec![write(file, 0, &[2; 512], true)])[0].is_err());
    assert!(disk.create("b", 1, false).is_err() && disk.remove("a").is_err());
    assert!(disk.resize(file, 0, false).is_err() && disk.reserve(file, 0, 1).is_err());
    assert_eq!(disk.peek("a", 0, 512).unwrap(), [1; 512]);
}

#[test]
fn lost_and_misdirected_writes_are_reported_as_done() {
    let mut disk = SimulatedDisk::new(1);
    let file = disk.create("a", 64 << 10, true).unwrap();
    disk.lose_next_write("a");
    assert!(run(&mut disk, vec![write(file, 0, &[1; 4096], true)])[0].is_ok());
    assert_eq!(disk.peek("a", 0, 4096).unwrap(), [0; 4096]);
    for (offset, lands) in [(0, 32 << 10), (60 << 10, 28 << 10)] {
        disk.misdirect_next_write("a", 32 << 10);
        assert!(run(&mut disk, vec![write(file, offset, &[3; 4096], true)])[0].is_ok());
        assert_eq!(disk.peek("a", offset, 4096).unwrap(), [0; 4096]);
        assert_eq!(disk.peek("a", lands, 4096).unwrap(), [3; 4096]);
    }
}

#[test]
fn punched_space_is_anyones_until_it_is_reserved_again() {
    let mut disk = SimulatedDisk::new(1);
    let file = disk.create("a", 1 << 20, true).unwrap();
    disk.set_capacity_bytes(Some(1 << 20));
    let punch = DiskOp::Punch {
        file,
        offset: 0,
        length: 512 << 10,
    };
    run(&mut disk, vec![punch]);
    assert_eq!(disk.allocated_bytes(), 512 << 10);
    disk.create("b", 256 << 10, true).unwrap();
    disk.reserve(file, 0, 256 << 10).unwrap();
    assert!(disk.reserve(file, 256 << 10, 4096).is_err());
    assert!(run(&mut disk, vec![write(file, 100 << 10, &[1; 4096], false)])[0].is_ok());
    assert!(run(&mut disk, vec![write(file, 300 << 10, &[1; 4096], false)])[0].is_err());
}

#[test]
fn a_random_flip_changes_one_bit_of_what_a_file_holds() {
    for seed in 0..50 {
        let mut disk = SimulatedDisk::new(seed);
        let file = disk.create("a", 1 << 20, false).unwrap();
        assert_eq!(disk.flip_random_bit("a"), None, "it holds nothing");
        run(&mut disk, vec![write(file, 8192, &[1; 8192], true)]);
        let before = disk.dump("a").unwrap();
        let (offset, bit) = disk.flip_random_bit("a").unwrap();
        disk.crash();
        let after = disk.dump("a").unwrap();
        let changed: Vec<usize> = (0..before.len())
            .filter(|at| before[*at] != after[*at])
            .collect();
        assert_eq!(changed, [offset as usize]);
        assert_eq!(before[changed[0]] ^ after[changed[0]], 1 << bit);
        assert!((8192..16384).contains(&offset));
    }
}

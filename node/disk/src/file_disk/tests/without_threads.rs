//! Durable writes by the ring, and writes that are kept back.

use super::*;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

struct Bench {
    folder: TempDir,
    disk: FileDisk,
    ring: OwnedFd,
    bell: Arc<OwnedFd>,
    ids: OpIds,
}

impl Bench {
    /// None where the kernel lets nobody have a ring.
    fn new() -> Option<Bench> {
        let folder = tempfile::tempdir().unwrap();
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let rung = Arc::clone(&bell);
        let waker = Arc::new(move || {
            rustix::io::write(&*rung, &1_u64.to_ne_bytes()).unwrap();
        });
        let mut disk = FileDisk::open(folder.path(), waker).unwrap();
        disk.keep_writes_back();
        let ring = disk.do_without_threads().ok()?;
        Some(Bench {
            folder,
            disk,
            ring,
            bell,
            ids: OpIds::new(1),
        })
    }

    fn submit(&mut self, op: DiskOp) -> OpId {
        submit(&mut self.disk, &mut self.ids, op)
    }

    /// Waits until `count` have completed; what is kept back stays so.
    fn collect(&mut self, count: usize) -> Vec<(OpId, io::Result<Done>)> {
        let mut out = Vec::new();
        loop {
            self.disk.start(false);
            self.disk.completed(&mut out);
            if out.len() >= count {
                assert_eq!(out.len(), count, "each operation completes once");
                return out;
            }
            let mut either = [
                PollFd::new(&self.ring, PollFlags::IN),
                PollFd::new(&*self.bell, PollFlags::IN),
            ];
            poll(&mut either, None).unwrap();
            let mut count = [0; 8];
            // Fails when it was not the bell.
            let _ = rustix::io::read(&*self.bell, &mut count);
        }
    }
}

#[test]
fn durable_writes_of_any_form_reach_the_file_without_a_thread_or_by_one() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let file = bench.disk.create("journal/segment", 1 << 20, true).unwrap();
    let mut expected = vec![0; 1 << 20];
    for (round, (offset, length)) in [(0, 4096), (8192, 65536), (512, 512), (300_000, 5000)]
        .into_iter()
        .enumerate()
    {
        // A buffered change first: a durable write covers it.
        let before = pattern(100, round as u8 + 50);
        let id = bench.submit(write(file, 900_000, &before, false));
        bench.disk.hurry();
        assert_eq!(bench.collect(1)[0].0, id);
        let data = pattern(length, round as u8);
        let id = bench.submit(write(file, offset as u64, &data, true));
        let (completed, result) = bench.collect(1).remove(0);
        assert_eq!(completed, id);
        result.unwrap();
        expected[900_000..900_100].copy_from_slice(&before);
        expected[offset..offset + length].copy_from_slice(&data);
        let synced = bench.disk.file(file).unwrap();
        assert!(
            synced.is_synced(synced.changed()),
            "what was before is covered"
        );
    }
    let content = std::fs::read(bench.folder.path().join("journal/segment")).unwrap();
    assert!(content == expected);
}

#[test]
fn many_durable_writes_at_once_complete_once_each() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let file = bench.disk.create("segment", 1 << 20, true).unwrap();
    let ids: Vec<OpId> = (0..100_u64)
        .map(|block| bench.submit(write(file, block * 4096, &pattern(4096, block as u8), true)))
        .collect();
    let mut completed = bench.collect(100);
    assert!(completed.iter().all(|(_, result)| result.is_ok()));
    completed.sort_by_key(|(id, _)| *id);
    assert_eq!(completed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    let content = std::fs::read(bench.folder.path().join("segment")).unwrap();
    assert!((0..100).all(|block| content[block * 4096..][..4096] == pattern(4096, block as u8)));
}

#[test]
fn a_durable_write_that_the_disk_refuses_fails() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let file = bench.disk.create("segment", 1 << 20, true).unwrap();
    // Past what any file system takes.
    bench.submit(write(file, (1 << 62) - 4096, &pattern(4096, 1), true));
    assert!(bench.collect(1).remove(0).1.is_err());
}

#[test]
fn what_is_kept_back_is_written_when_it_is_much_or_somebody_waits() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let file = bench.disk.create("slots", 1 << 20, false).unwrap();
    let path = bench.folder.path().join("slots");
    let written = |block: usize| std::fs::read(&path).unwrap()[block * 4096] != 0;
    let put = |bench: &mut Bench, block: u64| {
        bench.submit(write(file, block * 4096, &[7; 4096], false));
    };
    put(&mut bench, 0);
    let mut out = Vec::new();
    bench.disk.completed(&mut out);
    if !out.is_empty() {
        // This file system writes into its cache without waiting: nothing needs to be kept back.
        assert!(written(0) && !bench.disk.has_kept_back());
        return;
    }
    assert!(bench.disk.has_kept_back() && !written(0));
    bench.disk.hurry();
    bench.collect(1);
    assert!(!bench.disk.has_kept_back() && written(0));
    for block in 1..=KEPT_BACK_MAX as u64 {
        put(&mut bench, block);
    }
    assert!(!bench.disk.has_kept_back(), "that many are not kept back");
    bench.collect(KEPT_BACK_MAX);
    assert!(written(KEPT_BACK_MAX));
    put(&mut bench, 40);
    bench.submit(DiskOp::Sync { file });
    bench.collect(2);
    assert!(written(40), "a sync waits for nothing that is kept back");
}

#[test]
fn short_durable_writes_one_by_one_are_waited_for_and_others_are_not() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let file = bench.disk.create("segment", 1 << 20, true).unwrap();
    if bench.disk.file(file).unwrap().direct_for(0, 4096).is_none() {
        return;
    }
    // However slow this device is.
    bench.disk.lone = Lone::new();
    let mut waited = 0;
    for round in 0..40_u64 {
        let id = bench.submit(write(file, round * 4096, &pattern(4096, round as u8), true));
        bench.disk.start(false);
        let mut out = Vec::new();
        bench.disk.completed(&mut out);
        waited += out.len();
        if out.is_empty() {
            out = bench.collect(1);
        }
        assert_eq!(out[0].0, id);
        assert!(out[0].1.is_ok());
    }
    assert!(waited > 0, "at least the fifth is done when start returns");
    let content = std::fs::read(bench.folder.path().join("segment")).unwrap();
    assert!((0..40).all(|block| content[block * 4096..][..4096] == pattern(4096, block as u8)));
    // With something else to do, or together with another one, or long: begun only.
    bench.disk.lone = Lone::new();
    for (busy, count, length) in [(true, 1, 4096), (false, 2, 4096), (false, 1, 512 << 10)] {
        for round in 0..8_u64 {
            for part in 0..count {
                let offset = (round * 2 + part) * 4096;
                bench.submit(write(file, offset, &pattern(length, 3), true));
            }
            let before = bench.disk.ring.as_ref().map(Ring::is_idle);
            assert_eq!(before, Some(true));
            bench.disk.start(busy);
            assert_eq!(bench.disk.ring.as_ref().map(Ring::is_idle), Some(false));
            bench.collect(count as usize);
        }
    }
}

#[test]
fn a_held_write_is_in_the_file_when_it_completes_and_waits_for_nobody() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let file = bench.disk.create("journal/held", 2 << 20, true).unwrap();
    for (offset, length) in [(0, 8192), (1 << 20, 300 << 10)] {
        let id = bench.ids.next_id();
        let data = Bytes::from(pattern(length, 3));
        let parts = vec![data.slice(..100), data.slice(100..)];
        bench.disk.submit_held(id, file, offset, parts).unwrap();
        assert_eq!(bench.collect(1)[0].0, id);
        let path = bench.folder.path().join("journal/held");
        let there = std::fs::read(path).unwrap();
        assert_eq!(there[offset as usize..][..length], data[..]);
    }
    // A durable write covers it, and a sync does.
    let id = bench.submit(write(file, 500_000, b"durable", true));
    assert_eq!(bench.collect(1)[0].0, id);
}

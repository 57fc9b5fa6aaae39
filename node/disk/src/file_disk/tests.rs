use super::*;
use isthmus_journal::OpIds;
use parking_lot::{Condvar, Mutex};
use std::os::unix::fs::MetadataExt;
use tempfile::TempDir;

#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

struct Bench {
    folder: TempDir,
    disk: FileDisk,
    bell: Arc<Bell>,
    ids: OpIds,
}

fn open(folder: &Path) -> (FileDisk, Arc<Bell>) {
    let bell = Arc::new(Bell::default());
    let ring = Arc::clone(&bell);
    let waker = Arc::new(move || {
        *ring.rung.lock() = true;
        ring.changed.notify_all();
    });
    (FileDisk::open(folder, waker).unwrap(), bell)
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let (disk, bell) = open(folder.path());
        Bench {
            folder,
            disk,
            bell,
            ids: OpIds::new(1),
        }
    }

    fn submit(&mut self, op: DiskOp) -> OpId {
        submit(&mut self.disk, &mut self.ids, op)
    }

    /// Collects until `count` have completed, sleeping on the waker alone.
    fn collect(&mut self, count: usize) -> Vec<(OpId, io::Result<Done>)> {
        let mut out = Vec::new();
        while out.len() < count {
            let mut rung = self.bell.rung.lock();
            while !*rung {
                self.bell.changed.wait(&mut rung);
            }
            *rung = false;
            drop(rung);
            self.disk.completed(&mut out);
        }
        assert_eq!(out.len(), count, "each operation completes once");
        out
    }

    fn run(&mut self, op: DiskOp) -> io::Result<Done> {
        let id = self.submit(op);
        let (completed, result) = self.collect(1).remove(0);
        assert_eq!(completed, id);
        result
    }

    fn read(&mut self, file: FileId, offset: u64, length: usize) -> Vec<u8> {
        match self
            .run(DiskOp::Read {
                file,
                offset,
                length,
            })
            .unwrap()
        {
            Done::Read(bytes) => bytes.to_vec(),
            Done::Finished => panic!("a read gives bytes"),
        }
    }
}

fn submit(disk: &mut FileDisk, ids: &mut OpIds, op: DiskOp) -> OpId {
    let id = ids.next_id();
    disk.submit(id, op).unwrap();
    id
}

fn write(file: FileId, offset: u64, data: &[u8], durable: bool) -> DiskOp {
    let (front, back) = data.split_at(data.len() / 3);
    let parts = vec![
        Bytes::copy_from_slice(front),
        Bytes::new(),
        Bytes::copy_from_slice(back),
    ];
    DiskOp::Write {
        file,
        offset,
        parts,
        durable,
    }
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

#[test]
fn what_was_written_in_any_way_is_read_back() {
    let mut bench = Bench::new();
    let file = bench.disk.create("volumes/7/slots", 1 << 20, true).unwrap();
    for (round, (offset, length)) in [
        (0, 4096),
        (8192, 65536),
        (512, 512),
        (300_000, 5000),
        (4096, 1),
        (524_288, 262_145),
    ]
    .into_iter()
    .enumerate()
    {
        for durable in [true, false] {
            let data = pattern(length, round as u8 + u8::from(durable) * 100);
            assert!(bench.run(write(file, offset, &data, durable)).is_ok());
            assert!(
                bench.read(file, offset, length) == data,
                "offset {offset}, length {length}, durable {durable}"
            );
        }
    }
    bench.run(DiskOp::Sync { file }).unwrap();
    let mut now = vec![0; 512];
    bench.disk.read_now(file, 512, &mut now).unwrap();
    assert!(now == pattern(512, 2));
    drop(bench.disk);
    let (mut disk, _bell) = open(bench.folder.path());
    let file = disk.open("volumes/7/slots").unwrap();
    disk.read_now(file, 512, &mut now).unwrap();
    assert!(now == pattern(512, 2));
}

#[test]
fn past_the_end_there_are_zeroes() {
    let mut bench = Bench::new();
    let file = bench.disk.create("file", 5000, false).unwrap();
    bench.disk.write_now(file, 4990, &[9; 10]).unwrap();
    let mut expected = vec![9; 10];
    expected.extend([0; 90]);
    assert_eq!(bench.read(file, 4990, 100), expected);
    assert_eq!(bench.read(file, 1 << 40, 10), vec![0; 10]);
    assert_eq!(bench.read(file, 0, 1 << 20).len(), 1 << 20);
    assert!(
        bench
            .run(DiskOp::Read {
                file,
                offset: u64::MAX - 3,
                length: 8
            })
            .is_err()
    );
}

#[test]
fn a_punched_range_reads_as_zeroes_and_gives_its_space_back() {
    let mut bench = Bench::new();
    let file = bench.disk.create("file", 0, false).unwrap();
    bench
        .run(write(file, 0, &pattern(1 << 20, 3), true))
        .unwrap();
    let space = || {
        std::fs::metadata(bench.folder.path().join("file"))
            .unwrap()
            .blocks()
            * 512
    };
    assert!(space() >= 1 << 20);
    let id = bench.ids.next_id();
    bench
        .disk
        .submit(
            id,
            DiskOp::Punch {
                file,
                offset: 65536,
                length: 524_288,
            },
        )
        .unwrap();
    bench.collect(1).remove(0).1.unwrap();
    assert_eq!(bench.read(file, 65536, 524_288), vec![0; 524_288]);
    assert!(bench.read(file, 0, 65536) == pattern(1 << 20, 3)[..65536]);
    assert_eq!(bench.disk.length(file).unwrap(), 1 << 20);
    let space = std::fs::metadata(bench.folder.path().join("file"))
        .unwrap()
        .blocks()
        * 512;
    assert!(space <= 524_288 + 65536, "{space} bytes are still taken");
}

#[test]
fn reserved_space_is_allocated_and_unreserved_is_not() {
    let mut bench = Bench::new();
    let reserved = bench.disk.create("reserved", 8 << 20, true).unwrap();
    bench.disk.create("sparse", 8 << 20, false).unwrap();
    let space = |name: &str| {
        std::fs::metadata(bench.folder.path().join(name))
            .unwrap()
            .blocks()
            * 512
    };
    assert!(space("reserved") >= 8 << 20);
    assert_eq!(space("sparse"), 0);
    bench.disk.resize(reserved, 16 << 20, true).unwrap();
    assert!(space("reserved") >= 16 << 20);
    assert_eq!(bench.disk.length(reserved).unwrap(), 16 << 20);
    bench.disk.resize(reserved, 4096, true).unwrap();
    assert_eq!(bench.disk.length(reserved).unwrap(), 4096);
}

#[test]
fn paths_that_lead_out_of_the_data_directory_are_refused() {
    let mut bench = Bench::new();
    for path in [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "./a",
        "a.creating",
        "a.removing",
        "a\0b",
    ] {
        for result in [
            bench.disk.open(path).map(|_| ()),
            bench.disk.create(path, 1, false).map(|_| ()),
            bench.disk.remove(path),
        ] {
            assert_eq!(
                result.unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{path:?}"
            );
        }
    }
}

#[test]
fn names_appear_and_vanish() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.disk.open("a/b").unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert!(bench.disk.list("a").unwrap().is_empty());
    let file = bench.disk.create("a/b", 10, false).unwrap();
    assert_eq!(
        bench.disk.create("a/b", 10, false).unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    bench.disk.create("a/c/d", 10, false).unwrap();
    assert_eq!(bench.disk.open("a/b").unwrap(), file, "one file has one id");
    assert_eq!(bench.disk.list("a").unwrap(), ["b", "c"]);
    bench.disk.remove("a").unwrap();
    bench.disk.remove("a").unwrap();
    assert!(bench.disk.list("").unwrap().is_empty());
    assert_eq!(
        bench.disk.length(file).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        bench.run(DiskOp::Sync { file }).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn what_a_crash_left_half_made_is_gone_after_the_next_start() {
    let bench = Bench::new();
    let root = bench.folder.path();
    std::fs::create_dir_all(root.join("volumes/9.removing/x")).unwrap();
    std::fs::write(root.join("volumes/segment.creating"), [0; 100]).unwrap();
    std::fs::write(root.join("volumes/kept"), [0; 100]).unwrap();
    drop(bench.disk);
    let (mut disk, _bell) = open(root);
    assert_eq!(disk.list("volumes").unwrap(), ["kept"]);
    assert!(!root.join("volumes/9.removing").exists());
    assert!(!root.join("volumes/segment.creating").exists());
}

#[test]
fn a_full_queue_is_busy_until_completions_are_collected() {
    let mut bench = Bench::new();
    let file = bench.disk.create("file", 4096, false).unwrap();
    for _ in 0..OPERATIONS_IN_FLIGHT_MAX {
        bench.submit(DiskOp::Read {
            file,
            offset: 0,
            length: 16,
        });
    }
    let id = bench.ids.next_id();
    assert_eq!(bench.disk.submit(id, DiskOp::Sync { file }), Err(DiskBusy));
    bench.collect(OPERATIONS_IN_FLIGHT_MAX);
    assert_eq!(bench.read(file, 0, 16), vec![0; 16]);
}

#[test]
fn errors_of_the_file_system_are_passed_on() {
    let mut bench = Bench::new();
    let file = bench.disk.create("file", 4096, false).unwrap();
    // Longer than any file can be.
    let too_far = bench
        .run(write(file, i64::MAX as u64 - 100, &[1; 4096], false))
        .unwrap_err();
    assert!(
        matches!(
            too_far.kind(),
            io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidInput
        ),
        "{too_far:?}"
    );
    let full = bench.disk.create("huge", 1 << 60, true).unwrap_err();
    assert!(
        matches!(
            full.kind(),
            io::ErrorKind::FileTooLarge | io::ErrorKind::StorageFull
        ),
        "{full:?}"
    );
    assert_eq!(
        bench.disk.list("").unwrap(),
        ["file"],
        "nothing is left of it"
    );
}

#[test]
fn a_disk_that_is_dropped_under_load_stops_its_threads() {
    let mut bench = Bench::new();
    let file = bench.disk.create("file", 1 << 20, true).unwrap();
    for round in 0..200 {
        bench.submit(write(file, (round % 256) * 4096, &pattern(4096, 1), true));
    }
    drop(bench.disk);
    assert_eq!(
        Arc::strong_count(&bench.bell),
        1,
        "nobody is left who could wake the caller"
    );
}

#[test]
fn reserving_allocates_a_punched_range_again_and_keeps_what_is_there() {
    let mut bench = Bench::new();
    let file = bench.disk.create("data", 4 << 20, true).unwrap();
    bench.run(write(file, 3 << 20, &[7; 8192], true)).unwrap();
    let path = bench.folder.path().join("data");
    let allocated = || std::fs::metadata(&path).unwrap().blocks() * 512;
    bench
        .run(DiskOp::Punch {
            file,
            offset: 0,
            length: 2 << 20,
        })
        .unwrap();
    let punched = allocated();
    bench.disk.reserve(file, 0, 4 << 20).unwrap();
    // A file system without holes, or without allocation, changes nothing.
    assert!(allocated() >= punched);
    if punched <= 2 << 20 {
        assert!(allocated() >= 4 << 20, "{} bytes", allocated());
    }
    assert_eq!(bench.read(file, 3 << 20, 8192), [7; 8192]);
    assert_eq!(bench.read(file, 0, 4096), [0; 4096]);
    assert!(
        bench.disk.reserve(file, 4 << 20, 1).is_err(),
        "past its end"
    );
}

mod without_threads;

#[test]
fn a_folders_files_go_with_it_and_no_others() {
    let mut bench = Bench::new();
    let [gone, below, kept, beside] = ["v/1/map", "v/1/deep/slots", "v/10/map", "v/1-map"]
        .map(|path| bench.disk.create(path, 4096, false).unwrap());
    bench.disk.remove("v/1").unwrap();
    for file in [gone, below] {
        assert!(bench.disk.length(file).is_err());
    }
    for file in [kept, beside] {
        assert_eq!(bench.disk.length(file).unwrap(), 4096);
    }
    assert_eq!(
        bench.disk.open("v/10/map").unwrap(),
        kept,
        "one id for one file"
    );
    let anew = bench.disk.create("v/1/map", 4096, false).unwrap();
    assert_ne!(anew, gone, "an id is never used again");
}

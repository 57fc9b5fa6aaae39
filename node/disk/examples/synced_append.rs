//! Latency of 4 KiB durable writes at depth 1, one behind the other in a preallocated file: the ways to make one durable
//! side by side, then through `FileDisk`. Usage: `synced_append FOLDER [WRITES]`.

use bytes::Bytes;
use isthmus_disk::FileDisk;
use isthmus_journal::{Disk, DiskOp, OpIds};
use rustix::fs::OFlags;
use rustix::io::{ReadWriteFlags, pwritev2};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const FILE_BYTES: u64 = 64 << 20;

fn measure(
    name: &str,
    writes: u64,
    mut write: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut times = Vec::new();
    for number in 0..writes {
        let start = Instant::now();
        write(number * 4096 % FILE_BYTES)?;
        times.push(start.elapsed());
    }
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let total: Duration = times.iter().sum();
    let per_second = times.len() as f64 / total.as_secs_f64();
    println!(
        "{name:<34} p50 {:>9.1?}  p99 {:>9.1?}  {per_second:>7.0}/s",
        at(0.5),
        at(0.99)
    );
    Ok(())
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .ok_or_else(|| io::Error::other("which folder?"))?;
    let writes = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(3000);
    let root = Path::new(&folder);

    let (sender, receiver) = mpsc::sync_channel(1);
    let waker = Arc::new(move || {
        let _ = sender.try_send(());
    });
    let mut disk = FileDisk::open(root, waker)?;
    let id = disk.create("synced-append", FILE_BYTES, true)?;
    let path = root.join("synced-append");

    let memory = vec![7; 8192];
    let start = memory.as_ptr().align_offset(4096);
    let block = &memory[start..start + 4096];

    let direct_flags = (OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed();
    let direct = File::options()
        .write(true)
        .custom_flags(direct_flags)
        .open(&path)?;
    measure("O_DIRECT|O_DSYNC", writes, |offset| {
        direct.write_all_at(block, offset)
    })?;

    let direct_plain = OFlags::DIRECT.bits().cast_signed();
    let direct = File::options()
        .write(true)
        .custom_flags(direct_plain)
        .open(&path)?;
    measure("O_DIRECT, then fdatasync", writes, |offset| {
        direct.write_all_at(block, offset)?;
        direct.sync_data()
    })?;

    let buffered = File::options().write(true).open(&path)?;
    measure("buffered, then fdatasync", writes, |offset| {
        buffered.write_all_at(block, offset)?;
        buffered.sync_data()
    })?;
    measure("buffered with RWF_DSYNC", writes, |offset| {
        pwritev2(
            &buffered,
            &[IoSlice::new(block)],
            offset,
            ReadWriteFlags::DSYNC,
        )?;
        Ok(())
    })?;

    let data = Bytes::copy_from_slice(block);
    let mut ids = OpIds::new(1);
    let mut out = Vec::new();
    measure("FileDisk (thread hop included)", writes, |offset| {
        let op = DiskOp::Write {
            file: id,
            offset,
            parts: vec![data.clone()],
            durable: true,
        };
        disk.submit(ids.next_id(), op)
            .map_err(|_| io::Error::other("busy"))?;
        while out.is_empty() {
            receiver.recv().map_err(io::Error::other)?;
            disk.completed(&mut out);
        }
        out.remove(0).1.map(|_| ())
    })?;
    disk.remove("synced-append")
}

//! Volumes on a node: formatted, mounted, written, made larger, through restarts, and at the other site.

use crate::used::{Used, can_grow_ext4, text};
use crate::wrong;
use isthmus_csi_interface::v1::volume_capability::access_mode::Mode;
use isthmus_csi_interface::v1::volume_capability::{AccessType, MountVolume};
use isthmus_csi_interface::v1::*;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::csi::{self, Driver};
use tests::patience;
use tests::tool::run;
use tonic::Code;

const MIB: i64 = 1 << 20;

fn write(path: &Path, content: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
}

/// Writes and syncs one file after the other until it is stopped; how many.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: thread::JoinHandle<std::io::Result<()>>,
}

impl Writer {
    fn start(folder: PathBuf) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                let mut file = File::create(folder.join(format!("file-{}", number % 50)))?;
                file.write_all(&number.to_le_bytes().repeat(4096))?;
                file.sync_all()?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Writer {
            stop,
            written,
            thread,
        }
    }

    fn until_more(&self, files: u64) {
        let begun = self.written.load(Ordering::Relaxed);
        patience::wait_until("files are written", Duration::from_secs(30), || {
            let written = self.written.load(Ordering::Relaxed);
            assert!(!self.thread.is_finished(), "no write may fail");
            (written >= begun + files).then_some(())
        });
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap();
        self.written.load(Ordering::Relaxed)
    }
}

/// Each file is whole, and none is older than its number says.
fn check(folder: &Path, written: u64) {
    for slot in 0..written.min(50) {
        let content = fs::read(folder.join(format!("file-{slot}"))).unwrap();
        let newest = (0..written)
            .rev()
            .find(|number| number % 50 == slot)
            .unwrap();
        assert!(
            content == newest.to_le_bytes().repeat(4096),
            "file-{slot} is not as it was written last"
        );
    }
}

#[test]
fn a_file_system_lives_through_restarts_growth_and_a_move_to_the_other_site() {
    let mut cluster = Cluster::start(&Options::with_volume(16 << 20));
    let mut at_a = Driver::start(&cluster, Node::A1);
    let at_b = Driver::start(&cluster, Node::B1);
    let group = AccessType::Mount(MountVolume {
        fs_type: "ext4".to_owned(),
        mount_flags: vec!["noatime".to_owned()],
        volume_mount_group: "4321".to_owned(),
    });
    let capability = csi::capability(group, Mode::SingleNodeWriter);
    let used = Used::new(&cluster, Node::A1, "ext4", capability);
    used.create(&at_a, 64 * MIB);
    used.up(&at_a);
    let root = fs::metadata(&used.target).unwrap();
    assert_eq!((root.gid(), root.mode() & 0o2070), (4321, 0o2070));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let target = text(&used.target);
    let line = mounts.lines().find(|line| line.contains(&target)).unwrap();
    assert!(
        line.contains(" ext4 ") && line.contains("noatime"),
        "{line}"
    );

    let writer = Writer::start(used.target.clone());
    writer.until_more(50);
    // The driver goes and comes; the volume stays.
    at_a.restart();
    writer.until_more(20);
    // The node goes and comes; I/O pauses meanwhile.
    cluster.kill(Node::A1);
    cluster.start_node(Node::A1);
    writer.until_more(20);
    assert_eq!(cluster.stop_node(Node::A1), Some(0));
    cluster.start_node(Node::A1);
    writer.until_more(20);

    let before = used.bytes(&at_a);
    used.expand(&at_a, 160 * MIB);
    let after = used.bytes(&at_a);
    assert!(before < 64 * MIB, "{before}");
    assert!(after > 128 * MIB || !can_grow_ext4(), "{after}");
    writer.until_more(20);
    let written = writer.finish();
    check(&used.target, written);

    used.down(&at_a);
    assert_eq!(at_a.loop_devices(), []);
    patience::wait_until("nothing is left", Duration::from_secs(10), || {
        at_a.attach_processes().is_empty().then_some(())
    });

    let there = Used::new(&cluster, Node::B1, "ext4", csi::mounted(""));
    there.up(&at_b);
    check(&there.target, written);
    assert!(there.bytes(&at_b) > 128 * MIB);
    there.hide(&at_b);
    // For reading only, at another path.
    let mut request = there.showing(true);
    request.target_path.push_str("-read");
    let read = PathBuf::from(&request.target_path);
    at_b.done(at_b.node().node_publish_volume(request.clone()));
    let error = File::create(read.join("new")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    request.readonly = false;
    at_b.refused(
        Code::AlreadyExists,
        at_b.node().node_publish_volume(request),
    );
    at_b.done(
        at_b.node()
            .node_unpublish_volume(NodeUnpublishVolumeRequest {
                volume_id: there.id.clone(),
                target_path: text(&read),
            }),
    );
    let devices = at_b.loop_devices();
    let device = text(&devices[0].0);
    run("umount", &[&text(&there.staging)]);
    run("e2fsck", &["-f", "-n", &device]);
    there.down(&at_b);
}

#[test]
fn block_volumes_and_xfs_work_and_wrong_calls_are_refused() {
    let cluster = Cluster::start(&Options::with_volume(16 << 20));
    let driver = Driver::start(&cluster, Node::A1);
    a_block_volume_is_a_device_that_grows(&cluster, &driver);
    calls_at_once_are_one_or_aborted(&cluster, &driver);
    xfs_grows_while_it_is_mounted(&cluster, &driver);
    a_file_system_is_never_made_over_another(&cluster, &driver);
    a_dead_attachment_is_told_and_replaced(&cluster, &driver);
    wrong::calls_are_refused(&cluster, &driver);
    wrong::users_are_refused(&cluster, &driver);
}

fn a_block_volume_is_a_device_that_grows(cluster: &Cluster, driver: &Driver) {
    let used = Used::new(cluster, Node::A1, "block", csi::block());
    used.create(driver, 8 * MIB);
    used.up(driver);
    let mut device = File::options()
        .read(true)
        .write(true)
        .open(&used.target)
        .unwrap();
    device.write_all(&[0xab; 65536]).unwrap();
    device.sync_all().unwrap();
    run(
        "blkdiscard",
        &[
            "--zeroout",
            "--offset",
            "4096",
            "--length",
            "4096",
            &text(&used.target),
        ],
    );
    assert_eq!(used.bytes(driver), 8 * MIB);
    used.expand(driver, 12 * MIB);
    assert_eq!(used.bytes(driver), 12 * MIB);
    device.seek(SeekFrom::Start(11 << 20)).unwrap();
    device.write_all(&[0xcd; 4096]).unwrap();
    device.sync_all().unwrap();
    drop(device);
    used.down(driver);

    used.up(driver);
    let mut device = File::open(&used.target).unwrap();
    let mut data = vec![0; 12 << 20];
    device.read_exact(&mut data).unwrap();
    assert!(data[..4096].iter().all(|byte| *byte == 0xab));
    assert!(data[4096..8192].iter().all(|byte| *byte == 0));
    assert!(data[8192..65536].iter().all(|byte| *byte == 0xab));
    assert!(data[65536..11 << 20].iter().all(|byte| *byte == 0));
    assert!(data[11 << 20..][..4096].iter().all(|byte| *byte == 0xcd));
    drop(device);
    used.down(driver);
    assert_eq!(driver.loop_devices(), []);
}

fn calls_at_once_are_one_or_aborted(cluster: &Cluster, driver: &Driver) {
    let used = Used::new(cluster, Node::A1, "block", csi::block());
    driver.done(
        driver
            .controller()
            .controller_publish_volume(used.publishing()),
    );
    let answers = driver.run(async {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (mut node, request) = (driver.node(), used.staging());
            calls.spawn(async move { node.node_stage_volume(request).await });
        }
        calls.join_all().await
    });
    let codes = answers
        .into_iter()
        .map(|answer| answer.map_or_else(|status| status.code(), |_| Code::Ok));
    let codes: Vec<Code> = codes.collect();
    assert!(codes.contains(&Code::Ok), "{codes:?}");
    let other = codes
        .iter()
        .find(|code| !matches!(code, Code::Ok | Code::Aborted));
    assert_eq!(other, None);
    assert_eq!(driver.loop_devices().len(), 1);
    assert_eq!(driver.attach_processes().len(), 1);
    used.down(driver);
}

fn xfs_grows_while_it_is_mounted(cluster: &Cluster, driver: &Driver) {
    let used = Used::new(cluster, Node::A1, "xfs", csi::mounted("xfs"));
    used.create(driver, 320 * MIB);
    used.up(driver);
    write(&used.target.join("file"), b"content");
    used.expand(driver, 400 * MIB);
    assert!(used.bytes(driver) > 300 * MIB);
    used.down(driver);
    used.up(driver);
    assert_eq!(fs::read(used.target.join("file")).unwrap(), b"content");
    used.down(driver);
}

fn a_file_system_is_never_made_over_another(cluster: &Cluster, driver: &Driver) {
    let used = Used::new(cluster, Node::A1, "xfs", csi::mounted("ext4"));
    driver.done(
        driver
            .controller()
            .controller_publish_volume(used.publishing()),
    );
    let said = driver.refused(
        Code::FailedPrecondition,
        driver.node().node_stage_volume(used.staging()),
    );
    assert!(said.contains("xfs is on the volume"), "{said}");
    assert_eq!(driver.loop_devices(), [], "nothing is left of it");
    used.down(driver);
}

fn a_dead_attachment_is_told_and_replaced(cluster: &Cluster, driver: &Driver) {
    let used = Used::new(cluster, Node::A1, "xfs", csi::mounted(""));
    used.up(driver);
    assert!(!used.stats(driver).volume_condition.unwrap().abnormal);
    for id in driver.attach_processes() {
        kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
    }
    patience::wait_until("it is told", Duration::from_secs(10), || {
        let condition = used.stats(driver).volume_condition.unwrap();
        condition.abnormal.then_some(())
    });
    let said = driver.refused(
        Code::FailedPrecondition,
        driver.node().node_stage_volume(used.staging()),
    );
    assert!(said.contains("has ended"), "{said}");
    used.down(driver);
    used.up(driver);
    assert_eq!(fs::read(used.target.join("file")).unwrap(), b"content");
    used.down(driver);
}

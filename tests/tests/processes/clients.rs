//! Clients of others: nbdcopy, qemu-img, qemu-io, fio, file systems over nbdfuse.

use crate::rounds::{DEMO, SOON};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::random::Random;
use tests::tool::{attempt, run};
use tests::{patience, verify};

/// A file of that many bytes, the same for the same seed.
fn noise(path: &Path, bytes: usize, seed: u64) {
    let mut random = Random::new(seed);
    let data: Vec<u8> = (0..bytes / 8)
        .flat_map(|_| random.number().to_le_bytes())
        .collect();
    fs::write(path, data).expect("a file in a temporary folder");
}

fn hash(path: &Path) -> String {
    blake3::hash(&fs::read(path).expect("a file that was written"))
        .to_hex()
        .to_string()
}

/// The volume's URI, as soon as the node opens it.
fn uri(cluster: &Cluster, node: Node) -> String {
    verify::open(&cluster.nbd(node), DEMO, SOON).close();
    cluster.nbd(node).uri(DEMO)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn nbdcopy_and_qemu_img_get_back_what_they_put_in() {
    let cluster = Cluster::start(&Options::with_volume(64 << 20));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [input, output, converted] = ["in", "out", "qcow2"].map(|name| folder.path().join(name));
    noise(&input, 64 << 20, 1);
    let at_a = uri(&cluster, Node::A1);
    assert!(run("nbdinfo", &["--list", &at_a]).contains(DEMO));
    run("nbdcopy", &["--flush", text(&input), &at_a]);
    run("nbdcopy", &[&at_a, text(&output)]);
    assert!(
        hash(&input) == hash(&output),
        "nbdcopy read something else than it wrote"
    );
    run(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", text(&input), &at_a],
    );

    // At the other site, by another program.
    let at_b = uri(&cluster, Node::B1);
    run(
        "qemu-img",
        &[
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            &at_b,
            text(&converted),
        ],
    );
    run(
        "qemu-img",
        &[
            "compare",
            "-f",
            "raw",
            "-F",
            "qcow2",
            text(&input),
            text(&converted),
        ],
    );
    noise(&input, 64 << 20, 2);
    run(
        "qemu-img",
        &[
            "convert",
            "-n",
            "-f",
            "raw",
            "-O",
            "raw",
            text(&input),
            &at_b,
        ],
    );
    run(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "write -P 0x5a 4096 65536",
            "-c",
            "flush",
            "-c",
            "read -P 0x5a 4096 65536",
            &at_b,
        ],
    );
    run(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "write -z 1M 1M",
            "-c",
            "read -P 0 1M 1M",
            "-c",
            "discard 2M 1M",
            &at_b,
        ],
    );
    let at_a = uri(&cluster, Node::A1);
    run(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "read -P 0x5a 4096 65536",
            "-c",
            "read -P 0 1M 1M",
            &at_a,
        ],
    );
}

#[test]
fn fio_verifies_what_it_wrote_at_the_other_site() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let job = |uri: &str, more: &str| {
        let uri = format!("--uri={uri}");
        let state = format!("--aux-path={}", text(folder.path()));
        let fixed = [
            "--name=verify",
            "--ioengine=nbd",
            &uri,
            &state,
            "--size=64M",
            "--rw=randwrite",
            "--bsrange=4k-128k",
        ];
        let rest = [
            "--iodepth=16",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--randseed=7",
            "--verify_backlog=0",
            more,
        ];
        run("fio", &[&fixed[..], &rest[..]].concat())
    };
    job(&uri(&cluster, Node::A1), "--do_verify=1");
    cluster.kill(Node::A1);
    cluster.deactivate(Node::A1);
    job(&uri(&cluster, Node::B1), "--verify_only=1");
}

/// A volume as a mounted file system, by nbdfuse and a loop device.
struct Mounted {
    fuse: Child,
    fuse_folder: PathBuf,
    image: PathBuf,
    mounted: PathBuf,
}

impl Mounted {
    /// The volume as a file.
    fn attach(folder: &Path, uri: &str) -> Mounted {
        let fuse_folder = folder.join("fuse");
        let mounted = folder.join("mounted");
        fs::create_dir_all(&fuse_folder).expect("a folder");
        fs::create_dir_all(&mounted).expect("a folder");
        let image = fuse_folder.join("volume");
        let fuse = Command::new("nbdfuse")
            .arg(&image)
            .arg(uri)
            .stdin(Stdio::null())
            .spawn()
            .expect("nbdfuse is installed");
        let attached = Mounted {
            fuse,
            fuse_folder,
            image,
            mounted,
        };
        patience::wait_until("the volume shows as a file", SOON, || {
            attached.image.exists().then_some(())
        });
        attached
    }

    fn mount(&self) {
        run(
            "mount",
            &["-o", "loop", text(&self.image), text(&self.mounted)],
        );
    }

    fn unmount(&self) {
        run("umount", &[text(&self.mounted)]);
    }

    fn detach(mut self) {
        run("fusermount3", &["-u", text(&self.fuse_folder)]);
        patience::wait_until("nbdfuse ends", SOON, || {
            self.fuse.try_wait().expect("a child can be waited for")
        });
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whatever is left of it: after a failed test, or a server's death.
        let _ = attempt("umount", &["-l", text(&self.mounted)]);
        let _ = attempt("fusermount3", &["-u", "-z", text(&self.fuse_folder)]);
        let _ = self.fuse.kill();
        let _ = self.fuse.wait();
    }
}

/// Files of a system survive the death of the site that served it, and its checker finds nothing.
fn a_file_system_survives(make: &[&str], check: impl Fn(&Mounted)) {
    let mut cluster = Cluster::start(&Options::with_volume(512 << 20));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let attached = Mounted::attach(folder.path(), &uri(&cluster, Node::A1));
    run(make[0], &[&make[1..], &[text(&attached.image)]].concat());
    attached.mount();
    for number in 0..50_u64 {
        let file = attached.mounted.join(format!("file-{number}"));
        noise(&file, 4096 * (number as usize + 1), number);
    }
    run("sync", &["-f", text(&attached.mounted)]);
    // Not synced: it may be there or not, but must do no harm.
    noise(&attached.mounted.join("unsynced"), 1 << 20, 99);
    cluster.kill(Node::A1);
    drop(attached);
    cluster.deactivate(Node::A1);

    let attached = Mounted::attach(folder.path(), &uri(&cluster, Node::B1));
    check(&attached);
    attached.mount();
    let expected = folder.path().join("expected");
    for number in 0..50_u64 {
        noise(&expected, 4096 * (number as usize + 1), number);
        let file = attached.mounted.join(format!("file-{number}"));
        assert!(
            hash(&file) == hash(&expected),
            "file-{number} is not what was synced"
        );
    }
    attached.unmount();
    attached.detach();
}

#[test]
fn ext4_is_clean_after_a_failover_and_all_synced_files_are_there() {
    a_file_system_survives(&["mkfs.ext4", "-q", "-F"], |attached| {
        // e2fsck writes single bytes, which nbdfuse passes on as they are: so by a loop device, which makes blocks of them.
        let device = run("losetup", &["--find", "--show", text(&attached.image)]);
        let device = device.trim();
        // It replays the journal (1: and says so); after that nothing is wrong.
        let replayed = attempt("e2fsck", &["-p", device]);
        let checked = attempt("e2fsck", &["-f", "-n", device]);
        run("losetup", &["-d", device]);
        assert!(
            matches!(replayed.status.code(), Some(0 | 1)),
            "{replayed:?}"
        );
        assert!(checked.status.success(), "{checked:?}");
    });
}

#[test]
fn xfs_is_clean_after_a_failover_and_all_synced_files_are_there() {
    a_file_system_survives(&["mkfs.xfs", "-q", "-f"], |attached| {
        // A mount replays the log; after that nothing is wrong.
        attached.mount();
        attached.unmount();
        patience::wait_until("the loop device is gone", Duration::from_secs(10), || {
            run("losetup", &["-j", text(&attached.image)])
                .trim()
                .is_empty()
                .then_some(())
        });
        run("xfs_repair", &["-n", "-f", text(&attached.image)]);
    });
}

//! Programs that people use, against the server.

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail loudly in its helpers, too"
)]

#[path = "support/memory.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod memory;
#[path = "support/start.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod start;

use isthmus_nbd::{Address, Limits, Refusal, RefusalKind, Server};
use memory::{Memory, MemoryExports};
use start::start;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;

const MIB: u64 = 1 << 20;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("isthmus-nbd-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Runs a program; gives whether it succeeded, and all it said.
async fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), output).await;
    let output = output.unwrap_or_else(|_| panic!("{program} {arguments:?} hangs"));
    let output =
        output.unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

async fn succeed(program: &str, arguments: &[&str]) -> String {
    let (success, text) = run(program, arguments).await;
    assert!(success, "{program} {arguments:?}: {text}");
    text
}

/// Bytes without a pattern that a misplaced block could hide in.
fn noise(seed: u64, length: u64) -> Vec<u8> {
    let mut state = seed;
    let mut word = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
    };
    (0..length / 8).flat_map(|_| word().to_le_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdinfo_sees_what_an_export_is_and_can_do() {
    let started = start(
        vec![
            ("demo", Memory::new(8 * MIB, 4096)),
            ("other", Memory::new(MIB, 512)),
        ],
        Limits::default(),
    )
    .await;
    let text = succeed("nbdinfo", &["--json", &started.uri("demo")]).await;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["protocol"], "newstyle-fixed", "{json}");
    assert_eq!(json["structured"], true);
    let export = &json["exports"][0];
    assert_eq!(export["export-name"], "demo");
    assert_eq!(export["description"], "in memory");
    assert_eq!(export["export-size"], 8 * MIB);
    assert_eq!(export["is_read_only"], false);
    for can in [
        "cache",
        "df",
        "fast_zero",
        "flush",
        "fua",
        "multi_conn",
        "trim",
        "zero",
    ] {
        assert_eq!(export[format!("can_{can}")], true, "{can}: {export}");
    }
    assert_eq!(export["block_size_minimum"], 4096);
    assert_eq!(export["block_size_preferred"], 4096);
    assert_eq!(export["block_size_maximum"], 32 * MIB);
    assert_eq!(export["contexts"][0], "base:allocation");
    assert_eq!(*started.memory("demo").opening.borrow(), 0);

    let text = succeed("nbdinfo", &["--list", "--json", &started.uri("")]).await;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let names: Vec<_> = json["exports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|export| export["export-name"].clone())
        .collect();
    assert_eq!(names, ["demo", "other"]);
    let (success, text) = run("nbdinfo", &[&started.uri("none")]).await;
    assert!(!success && text.contains("No such file"), "{text}");
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_show_what_is_allocated() {
    let started = start(
        vec![("demo", Memory::new(4 * MIB, 4096))],
        Limits::default(),
    )
    .await;
    let uri = started.uri("demo");
    succeed(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "write -P 7 1M 64k",
            "-c",
            "write -P 8 3M 1M",
            &uri,
        ],
    )
    .await;
    let text = succeed("nbdinfo", &["--map", &uri]).await;
    let fields = |line: &str| {
        line.split_whitespace()
            .take(3)
            .map(|field| field.parse().unwrap())
            .collect::<Vec<u64>>()
    };
    let map: Vec<Vec<u64>> = text.lines().map(fields).collect();
    let want = [
        [0, MIB, 3],
        [MIB, 65536, 0],
        [MIB + 65536, 2 * MIB - 65536, 3],
        [3 * MIB, MIB, 0],
    ];
    assert_eq!(map, want);

    let text = succeed("qemu-img", &["map", "--output=json", "-f", "raw", &uri]).await;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let map: Vec<(u64, u64, bool)> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|extent| {
            (
                extent["start"].as_u64().unwrap(),
                extent["length"].as_u64().unwrap(),
                extent["data"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        map,
        want.map(|[start, length, flags]| (start, length, flags == 0))
    );
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_io_does_every_kind_of_request() {
    let started = start(
        vec![("demo", Memory::new(16 * MIB, 512))],
        Limits::default(),
    )
    .await;
    let text = succeed(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-d",
            "unmap",
            "-c",
            "write -P 1 0 1M",
            "-c",
            "write -f -P 2 512 512",
            "-c",
            "read -P 1 0 512",
            "-c",
            "read -P 2 512 512",
            "-c",
            "read -P 1 1024 523264",
            "-c",
            "write -z 64k 64k",
            "-c",
            "read -P 0 64k 64k",
            "-c",
            "write -z -u 128k 64k",
            "-c",
            "read -P 0 128k 64k",
            "-c",
            "discard 256k 64k",
            "-c",
            "flush",
            "-c",
            "aio_write -P 3 4M 4M",
            "-c",
            "aio_write -P 4 8M 4M",
            "-c",
            "aio_flush",
            "-c",
            "read -P 3 4M 4M",
            "-c",
            "read -P 4 8M 4M",
            &started.uri("demo"),
        ],
    )
    .await;
    assert!(!text.contains("failed") && !text.contains("rror"), "{text}");
    assert!(*started.memory("demo").forced.borrow() > 0, "FUA arrives");
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdcopy_and_qemu_img_bring_an_image_there_and_back() {
    let folder = Folder::new("copy");
    let started = start(
        vec![("demo", Memory::new(64 * MIB, 4096))],
        Limits::default(),
    )
    .await;
    let (source, back, converted) = (
        folder.file("source"),
        folder.file("back"),
        folder.file("converted"),
    );
    let mut image = noise(1, 64 * MIB);
    image[20 << 20..40 << 20].fill(0);
    std::fs::write(&source, &image).unwrap();
    succeed(
        "nbdcopy",
        &[
            "--flush",
            "--connections=4",
            "--requests=64",
            &source,
            &started.uri("demo"),
        ],
    )
    .await;
    succeed("nbdcopy", &["--connections=4", &started.uri("demo"), &back]).await;
    assert!(
        std::fs::read(&back).unwrap() == image,
        "nbdcopy brings back what it sent"
    );
    succeed(
        "qemu-img",
        &[
            "convert",
            "-f",
            "raw",
            "-O",
            "raw",
            &started.uri("demo"),
            &converted,
        ],
    )
    .await;
    assert!(
        std::fs::read(&converted).unwrap() == image,
        "qemu-img reads what nbdcopy sent"
    );
    succeed(
        "qemu-img",
        &[
            "compare",
            "-f",
            "raw",
            "-F",
            "raw",
            &source,
            &started.uri("demo"),
        ],
    )
    .await;
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fio_verifies_what_it_wrote() {
    let folder = Folder::new("fio");
    let started = start(
        vec![("demo", Memory::new(32 * MIB, 512))],
        Limits::default(),
    )
    .await;
    let (uri, aux) = (
        format!("--uri={}", started.uri("demo")),
        format!("--aux-path={}", folder.file("")),
    );
    succeed(
        "fio",
        &[
            "--name=verify",
            "--ioengine=nbd",
            &uri,
            &aux,
            "--rw=randwrite",
            "--bsrange=512-256k",
            "--bs_unaligned=0",
            "--size=32m",
            "--iodepth=32",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--randseed=7",
            "--minimal",
        ],
    )
    .await;
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn libnbd_gets_the_same_answers_with_and_without_structured_replies() {
    let started = start(
        vec![("demo", Memory::new(8 * MIB, 4096))],
        Limits::default(),
    )
    .await;
    for structured in ["True", "False"] {
        let script = format!(
            r#"
import errno, nbd
structured = {structured}
h = nbd.NBD()
h.set_request_structured_replies(structured)
h.set_strict_mode(0)
h.add_meta_context("base:allocation")
h.connect_uri("{uri}")
assert h.get_structured_replies_negotiated() == structured
assert h.can_df() == structured
assert h.can_meta_context("base:allocation") == structured
data = bytes(range(256)) * 32
h.pwrite(data, 4096, nbd.CMD_FLAG_FUA)
h.pwrite(data, 16384)
assert h.pread(8192, 4096) == data
assert h.pread(24576, 0) == bytes(4096) + data + bytes(4096) + data[:8192]
chunks = []
h.pread_structured(8192, 4096, lambda buf, off, status, err: chunks.append((bytes(buf), off, status)), nbd.CMD_FLAG_DF if structured else 0)
assert chunks == [(data, 4096, nbd.READ_DATA)]
h.cache(8192, 0)
h.flush()
said = []
h.set_debug(True)
h.set_debug_callback(lambda context, message: said.append(message))
def fails(number, text, call):
    said.clear()
    try:
        call()
    except nbd.Error as e:
        assert e.errnum == number, e
        assert not structured or any(text in message for message in said), (text, said)
        return
    assert False, "no error"
fails(errno.EINVAL, "aligned", lambda: h.pread(512, 0))
fails(errno.EINVAL, "aligned", lambda: h.pwrite(bytes(512), 4096))
fails(errno.EINVAL, "end", lambda: h.pread(4096, 8 << 20))
fails(errno.ENOSPC, "end", lambda: h.pwrite(bytes(8192), (8 << 20) - 4096))
fails(errno.EINVAL, "end", lambda: h.trim(4096, 8 << 20))
fails(errno.ENOSPC, "end", lambda: h.zero(4096, 8 << 20))
fails(errno.EINVAL, "empty", lambda: h.trim(0, 0))
fails(errno.ENOTSUP, "faster", lambda: h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO))
fails(errno.EINVAL, "32 MiB", lambda: h.pwrite(bytes((32 << 20) + 4096), 0))
assert h.pread(8192, 4096) == data
h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE)
h.trim(4096, 8192, nbd.CMD_FLAG_FUA)
assert h.pread(8192, 4096) == bytes(8192)
def entries(flags=0):
    out = []
    h.block_status(1 << 20, 0, lambda name, off, e, err: out.append((name, off, list(e))), flags)
    return out
if structured:
    want = [4096, 3, 4096, 0, 8192, 3, 8192, 0, (1 << 20) - 24576, 3]
    assert entries() == [("base:allocation", 0, want)], entries()
    assert entries(nbd.CMD_FLAG_REQ_ONE) == [("base:allocation", 0, want[:2])]
h.trim(8 << 20, 0)
pending = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i]) * 4096), i * 4096) for i in range(200)]
while h.aio_in_flight() > 0:
    h.poll(-1)
for cookie in pending:
    assert h.aio_command_completed(cookie)
for i in range(200):
    assert h.pread(4096, i * 4096) == bytes([i]) * 4096
h.trim(8 << 20, 0)
h.shutdown()
"#,
            uri = started.uri("demo"),
        );
        succeed("/usr/bin/python3", &["-c", &script]).await;
    }
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_user_as_a_text() {
    let mut elsewhere = Memory::new(MIB, 4096);
    let message = "volume demo has its primary at b1 (site-b): connect there, or deactivate site-b";
    elsewhere.refusal = Some(Refusal {
        kind: RefusalKind::Policy,
        message: message.to_owned(),
    });
    let started = start(vec![("elsewhere", elsewhere)], Limits::default()).await;
    let uri = started.uri("elsewhere");
    let (success, text) = run("qemu-io", &["-f", "raw", "-c", "read 0 4k", &uri]).await;
    assert!(!success && text.contains(message), "{text}");
    // libnbd says the text only when it is asked to debug; else what kind of refusal it was.
    let (success, text) = run("nbdcopy", &[&uri, "null:"]).await;
    assert!(!success && text.contains("server policy"), "{text}");
    assert_eq!(*started.memory("elsewhere").attached.borrow(), 0);
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_as_tcp_does() {
    let folder = Folder::new("unix");
    let path = folder.0.join("socket");
    // What a server that was killed leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let memories = [("demo".to_owned(), Arc::new(Memory::new(MIB, 4096)))].into();
    let exports = Arc::new(MemoryExports {
        memories,
        ..MemoryExports::default()
    });
    let addresses = [
        Address::Unix(path.clone()),
        Address::Tcp("127.0.0.1:0".parse().unwrap()),
    ];
    let server = Server::start(&addresses, exports.clone(), Limits::default())
        .await
        .unwrap();
    let Err(error) = Server::start(&addresses[..1], exports, Limits::default()).await else {
        panic!("a path in use is not taken over");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let uri = format!("nbd+unix:///?socket={}", path.display());
    succeed(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "write -P 5 0 1M",
            "-c",
            "read -P 5 0 1M",
            &uri,
        ],
    )
    .await;
    server.stop().await;
    assert!(!path.exists(), "a stopped server leaves no socket file");
}

//! Clients that talk nonsense, at every stage: they get an error or a closed connection, and others notice nothing.

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail loudly in its helpers, too"
)]

#[path = "support/memory.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod memory;
#[path = "support/raw.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod raw;
#[path = "support/start.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod start;

use isthmus_nbd::Limits;
use memory::Memory;
use raw::{
    ABORT, ACK, DISC, ERR_INVALID, ERR_POLICY, ERR_TOO_BIG, ERR_UNKNOWN, ERR_UNSUP, EXPORT_NAME,
    GO, INFO, LIST, LIST_META_CONTEXT, READ, Raw, SET_META_CONTEXT, STARTTLS, STRUCTURED_REPLY,
    Simple, WRITE, context_data, info_data, request,
};
use start::{Started, start};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const MIB: u64 = 1 << 20;
const EINVAL: u32 = 22;

async fn demo() -> Started {
    start(
        vec![
            ("demo", Memory::new(MIB, 4096)),
            ("other", Memory::new(MIB, 4096)),
        ],
        Limits::default(),
    )
    .await
}

/// A connection that must still work after what others did.
async fn assert_serves(bystander: &mut Raw) {
    bystander.send(&request(READ, 0, 99, 0, 4096)).await;
    assert_eq!(
        bystander.simple().await,
        Simple {
            error: 0,
            cookie: 99
        }
    );
    bystander.receive(4096).await;
}

/// All connections but the bystander's are gone, and nothing keeps an export open.
async fn assert_alone(started: &Started) {
    let attached = &started.memory("demo").attached;
    tokio::time::timeout(
        raw::PATIENCE,
        attached.subscribe().wait_for(|count| *count == 1),
    )
    .await
    .unwrap()
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_are_wrong_get_errors_and_the_handshake_goes_on() {
    let started = demo().await;
    let mut raw = Raw::greeted(started.port).await;
    let long = "x".repeat(5000);
    for (number, data, kind) in [
        (4711, vec![1, 2, 3], ERR_UNSUP),
        (11, vec![], ERR_UNSUP),
        (STARTTLS, vec![], ERR_POLICY),
        (STARTTLS, vec![1], ERR_INVALID),
        (LIST, vec![1], ERR_INVALID),
        (LIST, vec![], ACK),
        (INFO, vec![], ERR_INVALID),
        (INFO, info_data("none", &[]), ERR_UNKNOWN),
        (INFO, info_data("", &[]), ERR_UNKNOWN),
        (INFO, info_data("demo", &[0, 1, 2, 3, 77]), ACK),
        (INFO, info_data(&long, &[]), ERR_INVALID),
        (GO, [info_data("demo", &[]), vec![0]].concat(), ERR_INVALID),
        (GO, vec![0xff; 9], ERR_INVALID),
        (GO, vec![0; 100_000], ERR_TOO_BIG),
        (GO, info_data("none", &[3]), ERR_UNKNOWN),
        (
            SET_META_CONTEXT,
            context_data("demo", &["base:allocation"]),
            ERR_INVALID,
        ),
        (STRUCTURED_REPLY, vec![1], ERR_INVALID),
        (STRUCTURED_REPLY, vec![], ACK),
        (
            SET_META_CONTEXT,
            context_data("none", &["base:allocation"]),
            ERR_UNKNOWN,
        ),
        (
            SET_META_CONTEXT,
            vec![0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            ERR_INVALID,
        ),
        (
            SET_META_CONTEXT,
            context_data("demo", &["base:", "qemu:dirty-bitmap:x"]),
            ACK,
        ),
        (LIST_META_CONTEXT, context_data("demo", &[]), ACK),
        (GO, info_data("demo", &[]), ACK),
    ] {
        raw.option(number, &data).await;
        let (end, text) = raw.option_end(number).await;
        assert_eq!(end, kind, "option {number} {data:?}: {text}");
        assert!(kind == ACK || !text.is_empty(), "an error has a text");
    }
    // base:allocation was never chosen by its name.
    raw.send(&request(7, 0, 5, 0, 4096)).await;
    let chunk = raw.receive(20).await;
    assert_eq!(chunk[6..8], 0x8001_u16.to_be_bytes());
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_are_chosen_by_name_and_for_one_export() {
    let started = demo().await;
    for (chosen_for, queries, works) in [
        ("demo", vec!["x:y", "base:allocation"], true),
        ("other", vec!["base:allocation"], false),
        ("demo", vec!["base:"], false),
        ("demo", vec![], false),
    ] {
        let mut raw = Raw::greeted(started.port).await;
        raw.option(STRUCTURED_REPLY, &[]).await;
        raw.option_end(STRUCTURED_REPLY).await;
        raw.option(SET_META_CONTEXT, &context_data(chosen_for, &queries))
            .await;
        assert_eq!(raw.option_end(SET_META_CONTEXT).await.0, ACK);
        raw.option(GO, &info_data("demo", &[])).await;
        assert_eq!(raw.option_end(GO).await.0, ACK);
        raw.send(&request(7, 0, 5, 0, 4096)).await;
        let kind = if works { 5u16 } else { 0x8001 };
        assert_eq!(
            raw.receive(20).await[6..8],
            kind.to_be_bytes(),
            "{chosen_for} {queries:?}"
        );
    }
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_beyond_repair_is_closed() {
    let started = demo().await;
    let mut bystander = Raw::attached(started.port, "demo").await;

    let mut raw = Raw::connect(started.port).await;
    raw.receive(18).await;
    raw.send(&0xffff_ffff_u32.to_be_bytes()).await;
    assert_eq!(raw.rest().await, b"", "unknown client flags");

    let mut raw = Raw::connect(started.port).await;
    raw.receive(18).await;
    raw.send(&0u32.to_be_bytes()).await;
    raw.option(LIST, &[]).await;
    assert_eq!(raw.rest().await, b"", "options without the fixed newstyle");

    let mut raw = Raw::greeted(started.port).await;
    raw.send(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(raw.rest().await, b"", "not an option");

    let mut raw = Raw::greeted(started.port).await;
    raw.option_announcing(GO, u32::MAX, b"").await;
    assert_eq!(raw.rest().await, b"", "an option of 4 GiB");

    for name in ["none".as_bytes(), b"\xff\xfe", &[b'x'; 5000]] {
        let mut raw = Raw::greeted(started.port).await;
        raw.option(EXPORT_NAME, name).await;
        assert_eq!(raw.rest().await, b"", "EXPORT_NAME can't tell an error");
    }

    let mut raw = Raw::greeted(started.port).await;
    raw.option(ABORT, &[]).await;
    assert_eq!(raw.option_end(ABORT).await.0, ACK);
    assert_eq!(raw.rest().await, b"");

    assert_serves(&mut bystander).await;
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_way_in_sends_its_zeroes_to_whom_wants_them() {
    let started = demo().await;
    let mut raw = Raw::connect(started.port).await;
    raw.receive(18).await;
    raw.send(&0u32.to_be_bytes()).await;
    raw.option(EXPORT_NAME, b"demo").await;
    let reply = raw.receive(8 + 2 + 124).await;
    assert_eq!(reply[..8], MIB.to_be_bytes());
    assert_eq!(reply[10..], [0; 124]);
    assert_serves(&mut raw).await;
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_leave_the_stream_in_sync() {
    let started = demo().await;
    let mut raw = Raw::attached(started.port, "demo").await;
    let mut requests = Vec::new();
    let mut refused =
        |command: u16, flags: u16, offset: u64, length: u32, error: u32, payload: usize| {
            requests.push((request(command, flags, 1, offset, length), payload, error));
        };
    refused(4711, 0, 0, 4096, EINVAL, 0);
    refused(WRITE, 0, 0, 100, EINVAL, 100);
    refused(WRITE, 0x8000, 0, 4096, EINVAL, 4096);
    refused(WRITE, 0, MIB, 4096, 28, 4096);
    refused(WRITE, 0, u64::MAX, 4096, 28, 4096);
    refused(WRITE, 0, 0, 0, EINVAL, 0);
    refused(WRITE, 0, 0, (32 << 20) + 4096, EINVAL, (32 << 20) + 4096);
    refused(READ, 4, 0, 4096, EINVAL, 0);
    refused(READ, 0, 0, u32::MAX, EINVAL, 0);
    refused(READ, 0, 0, 0, EINVAL, 0);
    refused(3, 0, 4096, 4096, EINVAL, 0);
    refused(7, 0, 0, 4096, EINVAL, 0);
    for (header, payload, error) in requests {
        raw.send(&header).await;
        raw.send(&vec![0xaa; payload]).await;
        assert_eq!(
            raw.simple().await,
            Simple { error, cookie: 1 },
            "{header:?}"
        );
        assert_serves(&mut raw).await;
    }
    assert!(
        started.memory("demo").blocks.lock().is_empty(),
        "nothing refused was written"
    );
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transmission_beyond_repair_is_closed() {
    let started = demo().await;
    let mut bystander = Raw::attached(started.port, "demo").await;

    let mut raw = Raw::attached(started.port, "demo").await;
    raw.send(&request(READ, 0, 3, 0, 4096)).await;
    raw.send(&[0x55; 28]).await;
    assert_eq!(
        raw.simple().await,
        Simple {
            error: 0,
            cookie: 3
        },
        "what came before a bad magic is answered"
    );
    assert_eq!(raw.rest().await.len(), 4096);

    let mut raw = Raw::attached(started.port, "demo").await;
    raw.send(&request(WRITE, 0, 4, 0, u32::MAX)).await;
    assert_eq!(
        raw.simple().await,
        Simple {
            error: EINVAL,
            cookie: 4
        },
        "4 GiB"
    );
    assert_eq!(raw.rest().await, b"");

    // Cut off inside a header, inside a payload, and inside one that is thrown away.
    for bytes in [
        &request(READ, 0, 1, 0, 4096)[..20],
        &request(WRITE, 0, 1, 0, 65536),
        &request(WRITE, 0, 1, 7, 65536),
    ] {
        let mut raw = Raw::attached(started.port, "demo").await;
        raw.send(bytes).await;
        raw.stream.shutdown().await.unwrap();
        assert_eq!(raw.rest().await, b"");
    }

    let mut raw = Raw::attached(started.port, "demo").await;
    raw.send(&request(READ, 0, 6, 0, 4096)).await;
    raw.send(&request(DISC, 0, 7, 0, 0)).await;
    assert_eq!(
        raw.rest().await.len(),
        16 + 4096,
        "DISC ends it after the replies"
    );

    // Half-open: a client that sends no more still gets what it asked for.
    let mut raw = Raw::attached(started.port, "demo").await;
    raw.send(&request(READ, 0, 8, 0, 4096)).await;
    raw.stream.shutdown().await.unwrap();
    assert_eq!(raw.rest().await.len(), 16 + 4096);

    // Gone without a word, with a reply on its way.
    let mut raw = Raw::attached(started.port, "demo").await;
    raw.send(&request(READ, 0, 9, 0, MIB as u32)).await;
    raw.stream.set_zero_linger().unwrap();
    drop(raw);

    assert_alone(&started).await;
    assert_serves(&mut bystander).await;
    started.server.stop().await;
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.next() % 3000;
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Something that looks like an option or a request up to a point.
    fn plausible(&mut self) -> Vec<u8> {
        let small = (self.next() % 12) as u32;
        let data = self.bytes();
        let length = if self.next().is_multiple_of(4) {
            self.next() as u32
        } else {
            data.len() as u32
        };
        match self.next() % 3 {
            0 => [
                b"IHAVEOPT",
                &small.to_be_bytes()[..],
                &length.to_be_bytes(),
                &data,
            ]
            .concat(),
            1 => [
                b"IHAVEOPT",
                &7u32.to_be_bytes()[..],
                &11u32.to_be_bytes(),
                &info_data("demo", &[])[..],
                &[0],
            ]
            .concat(),
            _ => {
                let offset = self.next() % (2 * MIB);
                let length = (self.next() % (8 << 20)) as u32;
                [
                    request(
                        small as u16,
                        (self.next() % 32) as u16,
                        1,
                        offset & !4095,
                        length,
                    ),
                    data,
                ]
                .concat()
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_at_every_stage_harm_nobody() {
    let started = demo().await;
    let mut bystander = Raw::attached(started.port, "demo").await;
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut raw = match seed % 3 {
            0 => Raw::connect(started.port).await,
            1 => Raw::greeted(started.port).await,
            _ => Raw::attached(started.port, "demo").await,
        };
        // The server may close at any of these, so what can't be sent is no failure.
        for _ in 0..random.next() % 8 {
            let bytes = if random.next().is_multiple_of(2) {
                random.bytes()
            } else {
                random.plausible()
            };
            if raw.stream.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = raw.stream.shutdown().await;
        raw.rest().await;
        if seed % 50 == 0 {
            assert_serves(&mut bystander).await;
        }
    }
    assert_alone(&started).await;
    assert_serves(&mut bystander).await;
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_without_progress_ends_and_an_idle_client_stays() {
    let limits = Limits {
        handshake: Duration::from_secs(1),
        ..Limits::default()
    };
    let started = start(vec![("demo", Memory::new(MIB, 4096))], limits).await;
    let mut idle = Raw::attached(started.port, "demo").await;
    let mut silent = Raw::connect(started.port).await;
    silent.receive(18).await;
    assert_eq!(silent.rest().await, b"");
    let mut halfway = Raw::greeted(started.port).await;
    halfway.option_announcing(GO, 40, b"only a part").await;
    assert_eq!(halfway.rest().await, b"");
    assert_serves(&mut idle).await;
    started.server.stop().await;
}

//! The life of connections: opening, pressure, closing, stopping.

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

use isthmus_nbd::{Errno, Limits};
use memory::Memory;
use parking_lot::Mutex;
use raw::{ACK, GO, PATIENCE, READ, Raw, Simple, WRITE, info_data, request};
use start::start;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

const MIB: u64 = 1 << 20;

/// An export that answers only when the test does.
fn held() -> Memory {
    Memory {
        held: Some(Mutex::default()),
        ..Memory::new(64 * MIB, 4096)
    }
}

async fn wait_for(counter: &watch::Sender<usize>, count: usize) {
    let mut watched = counter.subscribe();
    let reached = timeout(PATIENCE, watched.wait_for(|value| *value == count)).await;
    reached
        .unwrap_or_else(|_| panic!("{} instead of {count}", *counter.borrow()))
        .unwrap();
}

fn release(memory: &Memory) {
    let requests = std::mem::take(&mut *memory.held.as_ref().unwrap().lock());
    requests
        .into_iter()
        .for_each(|(request, reply)| memory.answer(request, reply));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_empty_name_is_the_only_export() {
    let started = start(vec![("only", Memory::new(MIB, 4096))], Limits::default()).await;
    let mut raw = Raw::greeted(started.port).await;
    raw.option(GO, &info_data("", &[1])).await;
    assert_eq!(raw.option_reply(GO).await.0, 3);
    assert_eq!(raw.option_reply(GO).await, (3, b"\0\x01only".to_vec()));
    assert_eq!(raw.option_end(GO).await.0, ACK);
    assert_eq!(*started.memory("only").attached.borrow(), 1);
    drop(raw);
    wait_for(&started.memory("only").attached, 0).await;
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_that_takes_long_is_given_up_when_its_client_leaves() {
    let memory = Memory {
        opens: watch::Sender::new(false),
        ..Memory::new(MIB, 4096)
    };
    let started = start(vec![("slow", memory)], Limits::default()).await;
    let memory = started.memory("slow").clone();
    let mut leaves = Raw::greeted(started.port).await;
    leaves.option(GO, &info_data("slow", &[])).await;
    wait_for(&memory.opening, 1).await;
    let mut stays = Raw::greeted(started.port).await;
    stays.option(GO, &info_data("slow", &[])).await;
    wait_for(&memory.opening, 2).await;
    drop(leaves);
    wait_for(&memory.opening, 1).await;
    memory.opens.send_replace(true);
    assert_eq!(stays.option_end(GO).await.0, ACK);
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_so_many_requests_in_flight_and_no_more() {
    let limits = Limits {
        requests_in_flight: 8,
        ..Limits::default()
    };
    let started = start(vec![("held", held())], limits).await;
    let memory = started.memory("held").clone();
    let mut raw = Raw::attached(started.port, "held").await;
    // One segment, so all of them are with the server once the first is.
    let requests: Vec<u8> = (0..20)
        .flat_map(|cookie| request(READ, 0, cookie, 0, 4096))
        .collect();
    raw.send(&requests).await;
    for so_far in [8, 16, 20] {
        wait_for(&memory.submitted, so_far).await;
        assert!(memory.held.as_ref().unwrap().lock().len() <= 8);
        release(&memory);
    }
    for _ in 0..20 {
        assert_eq!(raw.simple().await.error, 0);
        raw.receive(4096).await;
    }
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_in_flight_is_bounded_and_one_large_request_is_let_through() {
    let limits = Limits {
        payload_bytes_in_flight: 8192,
        ..Limits::default()
    };
    let started = start(vec![("held", held())], limits).await;
    let memory = started.memory("held").clone();
    let mut raw = Raw::attached(started.port, "held").await;
    for cookie in 0..3 {
        raw.send(&request(WRITE, 0, cookie, 0, 4096)).await;
        raw.send(&[7; 4096]).await;
    }
    raw.send(&request(WRITE, 0, 3, 0, 65536)).await;
    raw.send(&[8; 65536]).await;
    for so_far in [2, 3, 4] {
        wait_for(&memory.submitted, so_far).await;
        assert!(memory.held.as_ref().unwrap().lock().len() <= 2);
        release(&memory);
    }
    for _ in 0..4 {
        assert_eq!(raw.simple().await.error, 0);
    }
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_reply_is_an_io_error_and_replies_come_in_any_order() {
    let started = start(vec![("held", held())], Limits::default()).await;
    let memory = started.memory("held").clone();
    let mut raw = Raw::attached(started.port, "held").await;
    for cookie in 0..3 {
        raw.send(&request(READ, 0, cookie, 0, 4096)).await;
    }
    wait_for(&memory.submitted, 3).await;
    let mut requests = std::mem::take(&mut *memory.held.as_ref().unwrap().lock());
    drop(requests.pop());
    assert_eq!(
        raw.simple().await,
        Simple {
            error: Errno::Io as u32,
            cookie: 2
        }
    );
    // From a thread that knows nothing of the server's runtime.
    std::thread::spawn(move || requests.remove(1).1.error(Errno::Shutdown, "stepped down"))
        .join()
        .unwrap();
    assert_eq!(
        raw.simple().await,
        Simple {
            error: Errno::Shutdown as u32,
            cookie: 1
        }
    );
    assert_eq!(
        raw.simple().await,
        Simple {
            error: Errno::Io as u32,
            cookie: 0
        }
    );
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_closes_a_connection_after_its_replies_and_leaves_others() {
    let started = start(
        vec![("held", held()), ("other", Memory::new(MIB, 4096))],
        Limits::default(),
    )
    .await;
    let memory = started.memory("held").clone();
    let mut raw = Raw::attached(started.port, "held").await;
    let mut other = Raw::attached(started.port, "other").await;
    raw.send(&request(READ, 0, 1, 0, 4096)).await;
    raw.send(&request(READ, 0, 2, 0, 4096)).await;
    wait_for(&memory.submitted, 2).await;
    let mut requests = std::mem::take(&mut *memory.held.as_ref().unwrap().lock());
    started.exports.clients.lock()[0].close("the volume's primary moved");
    // What comes after the close still arrives, but for what the close says itself: a client that comes back asks again.
    requests.remove(0).1.error(Errno::Shutdown, "stepped down");
    requests.remove(0).1.error(Errno::NoSpace, "full");
    assert_eq!(
        raw.simple().await,
        Simple {
            error: Errno::NoSpace as u32,
            cookie: 2
        }
    );
    assert_eq!(raw.rest().await, b"");
    wait_for(&memory.attached, 0).await;
    other.send(&request(READ, 0, 1, 0, 4096)).await;
    assert_eq!(other.simple().await.error, 0);
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_sends_the_replies_in_flight_and_waits_only_so_long() {
    let limits = Limits {
        drain: Duration::from_secs(2),
        ..Limits::default()
    };
    let started = start(vec![("held", held())], limits).await;
    let memory = started.memory("held").clone();
    let mut answered = Raw::attached(started.port, "held").await;
    answered.send(&request(READ, 0, 1, 0, 4096)).await;
    wait_for(&memory.submitted, 1).await;
    let mut unanswered = Raw::attached(started.port, "held").await;
    unanswered.send(&request(READ, 0, 2, 0, 4096)).await;
    wait_for(&memory.submitted, 2).await;
    let mut greeted = Raw::greeted(started.port).await;
    assert_eq!(started.server.connections(), 3);

    let stopping = tokio::spawn(started.server.stop());
    assert_eq!(greeted.rest().await, b"");
    let first = memory.held.as_ref().unwrap().lock().remove(0);
    memory.answer(first.0, first.1);
    assert_eq!(
        answered.simple().await,
        Simple {
            error: 0,
            cookie: 1
        }
    );
    assert_eq!(answered.rest().await.len(), 4096);
    assert_eq!(unanswered.rest().await, b"");
    // Both ends closed: the lingers end at once.
    drop((greeted, answered, unanswered));
    timeout(PATIENCE, stopping)
        .await
        .expect("the stop is bounded")
        .unwrap();
    wait_for(&memory.attached, 0).await;
    assert!(
        tokio::net::TcpStream::connect(("127.0.0.1", started.port))
            .await
            .is_err(),
        "nobody listens any more"
    );
    // Answering after the end does no harm.
    release(&memory);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_clients_and_no_more() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let started = start(vec![("demo", Memory::new(MIB, 4096))], limits).await;
    let first = Raw::attached(started.port, "demo").await;
    let mut second = Raw::attached(started.port, "demo").await;
    let mut third = Raw::connect(started.port).await;
    assert_eq!(third.rest().await, b"");
    second.send(&request(READ, 0, 1, 0, 4096)).await;
    assert_eq!(second.simple().await.error, 0);
    drop(first);
    wait_for(&started.memory("demo").attached, 1).await;
    started.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_no_replies_is_stopped_not_buffered() {
    let limits = Limits {
        requests_in_flight: 16,
        ..Limits::default()
    };
    let started = start(vec![("demo", Memory::new(64 * MIB, 4096))], limits).await;
    let memory = started.memory("demo").clone();
    let mut raw = Raw::attached(started.port, "demo").await;
    // Far more than any socket buffers hold.
    let requests: Vec<u8> = (0..64)
        .flat_map(|cookie| request(READ, 0, cookie, 0, 8 * MIB as u32))
        .collect();
    raw.send(&requests).await;
    let mut bystander = Raw::attached(started.port, "demo").await;
    bystander.send(&request(READ, 0, 1, 0, 4096)).await;
    assert_eq!(bystander.simple().await.error, 0);
    // 64 MiB of payload may be in flight and some in the sockets; 512 MiB may not.
    assert!(
        *memory.submitted.borrow() < 40,
        "{} requests submitted",
        *memory.submitted.borrow()
    );
    for _ in 0..64 {
        assert_eq!(raw.simple().await.error, 0);
        raw.receive(8 * MIB as usize).await;
    }
    started.server.stop().await;
}

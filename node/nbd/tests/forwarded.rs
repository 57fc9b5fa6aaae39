//! A server that hands its clients on to another one.

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

use bytes::Bytes;
use isthmus_nbd::{
    Address, Adopted, Adopter, Agreement, BoxFuture, Connection, Elsewhere, Export, ExportEntry,
    ExportInfo, Exports, Limits, Refusal, Reply, Request, Server,
};
use memory::{Memory, MemoryExports};
use parking_lot::Mutex;
use raw::{DISC, PATIENCE, READ, Raw, Simple, WRITE, request};
use start::{Started, start};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::watch;
use tokio::time::timeout;

const MIB: u64 = 1 << 20;
/// What the way between the servers holds: less than one request.
const WAY_BYTES: usize = 1000;

/// Exports of another server, by a way that takes little at a time.
struct Forwarding {
    exports: Arc<MemoryExports>,
    there: Adopter,
}

struct Forwarded {
    info: ExportInfo,
    stream: Mutex<Option<DuplexStream>>,
}

impl Export for Forwarded {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn submit(&self, _request: Request, _reply: Reply) {
        panic!("nothing is submitted here");
    }

    fn elsewhere(&self, agreement: Agreement) -> Option<Elsewhere> {
        let first = [agreement.structured, agreement.allocation].map(u8::from);
        Some(Elsewhere {
            stream: Box::new(self.stream.lock().take().unwrap()),
            first: Bytes::copy_from_slice(&first),
        })
    }
}

impl Exports for Forwarding {
    fn list(&self) -> Vec<ExportEntry> {
        self.exports.list()
    }

    fn info<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ExportInfo, Refusal>> {
        self.exports.info(name)
    }

    fn open<'a>(
        &'a self,
        name: &'a str,
        _client: Connection,
    ) -> BoxFuture<'a, Result<Arc<dyn Export>, Refusal>> {
        let (here, mut there) = tokio::io::duplex(WAY_BYTES);
        let (exports, wanted) = (Arc::clone(&self.exports), name.to_owned());
        self.there
            .adopt("a server".to_owned(), |client| async move {
                let export = exports.open(&wanted, client).await.ok()?;
                let agreement = Agreement {
                    structured: there.read_u8().await.ok()? == 1,
                    allocation: there.read_u8().await.ok()? == 1,
                };
                Some(Adopted {
                    stream: there,
                    export,
                    agreement,
                })
            });
        Box::pin(async move {
            let forwarded = Forwarded {
                info: self.info(name).await?,
                stream: Mutex::new(Some(here)),
            };
            Ok(Arc::new(forwarded) as Arc<dyn Export>)
        })
    }
}

/// The server that serves, and one in front of it.
async fn both(memory: Memory) -> (Started, Server, u16) {
    let there = start(vec![("it", memory)], Limits::default()).await;
    let exports = Forwarding {
        exports: Arc::clone(&there.exports),
        there: there.server.adopter(),
    };
    let anywhere = Address::Tcp("127.0.0.1:0".parse().unwrap());
    let here = Server::start(&[anywhere], Arc::new(exports), Limits::default())
        .await
        .unwrap();
    let Address::Tcp(address) = here.addresses()[0].clone() else {
        panic!("a TCP server has a TCP address");
    };
    (there, here, address.port())
}

async fn wait_for(counter: &watch::Sender<usize>, count: usize) {
    let mut watched = counter.subscribe();
    let reached = timeout(PATIENCE, watched.wait_for(|value| *value == count)).await;
    reached
        .unwrap_or_else(|_| panic!("{} instead of {count}", *counter.borrow()))
        .unwrap();
}

fn held() -> Memory {
    Memory {
        held: Some(Mutex::default()),
        ..Memory::new(MIB, 4096)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_served_there_and_answered_here() {
    let (there, here, port) = both(Memory::new(MIB, 4096)).await;
    let mut raw = Raw::attached(port, "it").await;
    let content: Vec<u8> = (0..65_536_u32).map(|at| (at % 249) as u8).collect();
    raw.send(&[request(WRITE, 0, 1, 4096, 65_536), content.clone()].concat())
        .await;
    let done = |cookie| Simple { error: 0, cookie };
    assert_eq!(raw.simple().await, done(1));
    raw.send(&request(READ, 0, 2, 4096, 65_536)).await;
    assert_eq!(raw.simple().await, done(2));
    assert_eq!(raw.receive(65_536).await, content);
    assert_eq!(*there.memory("it").submitted.borrow(), 2);
    raw.send(&request(DISC, 0, 3, 0, 0)).await;
    assert!(raw.rest().await.is_empty());
    wait_for(&there.memory("it").attached, 0).await;
    here.stop().await;
    there.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_find_what_they_agreed_on_there_too() {
    let (there, here, port) = both(Memory::new(MIB, 4096)).await;
    let uri = format!("nbd://127.0.0.1:{port}/it");
    let map = tokio::process::Command::new("nbdinfo")
        .args(["--map", &uri])
        .output();
    let map = timeout(PATIENCE, map).await.unwrap();
    let map = map.expect("nbdinfo is needed for this test");
    let text = String::from_utf8(map.stdout).unwrap();
    assert!(text.contains("hole,zero"), "{text}");
    here.stop().await;
    there.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_detached_there() {
    let (there, here, port) = both(held()).await;
    let mut raw = Raw::attached(port, "it").await;
    raw.send(&request(READ, 0, 1, 0, 4096)).await;
    wait_for(&there.memory("it").submitted, 1).await;
    drop(raw);
    there.memory("it").held.as_ref().unwrap().lock().clear();
    wait_for(&there.memory("it").attached, 0).await;
    here.stop().await;
    there.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_closed_there_ends_here_with_the_replies_that_were_given() {
    let (there, here, port) = both(held()).await;
    let mut raw = Raw::attached(port, "it").await;
    for cookie in [1, 2] {
        raw.send(&request(READ, 0, cookie, 0, 4096)).await;
    }
    wait_for(&there.memory("it").submitted, 2).await;
    let client = there.exports.clients.lock()[0].clone();
    client.close("it is not served any more");
    assert!(client.is_closing());
    let held = std::mem::take(&mut *there.memory("it").held.as_ref().unwrap().lock());
    for (request, reply) in held {
        there.memory("it").answer(request, reply);
    }
    for cookie in [1, 2] {
        assert_eq!(raw.simple().await, Simple { error: 0, cookie });
        raw.receive(4096).await;
    }
    assert!(raw.rest().await.is_empty());
    here.stop().await;
    there.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_server_stops_with_clients_between_them() {
    for first in [0, 1] {
        let (there, here, port) = both(Memory::new(MIB, 4096)).await;
        let mut raw = Raw::attached(port, "it").await;
        raw.send(&request(READ, 0, 1, 0, 4096)).await;
        raw.simple().await;
        raw.receive(4096).await;
        let stop = async {
            match first {
                0 => here.stop().await,
                _ => there.server.stop().await,
            }
        };
        let (rest, stopped) = tokio::join!(raw.rest(), timeout(PATIENCE, stop));
        assert!(rest.is_empty() && stopped.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handed_on_clients_count() {
    let limits = Limits {
        connections: 1,
        drain: Duration::from_millis(50),
        ..Limits::default()
    };
    let there = start(vec![("it", Memory::new(MIB, 4096))], limits).await;
    let adopter = there.server.adopter();
    let (_kept, first) = tokio::io::duplex(WAY_BYTES);
    let (mut refused, second) = tokio::io::duplex(WAY_BYTES);
    adopter.adopt::<DuplexStream, _>("one".to_owned(), |_| async move {
        let _first = first;
        std::future::pending().await
    });
    adopter.adopt::<DuplexStream, _>("two".to_owned(), move |_| async move {
        let _second = second;
        std::future::pending().await
    });
    assert!(
        timeout(PATIENCE, refused.read_u8()).await.unwrap().is_err(),
        "one too many"
    );
    timeout(PATIENCE, there.server.stop()).await.unwrap();
}

//! Row 19: peers that talk nonsense: they get an error or a closed connection, and the node goes on serving others.

use crate::rounds::{DEMO, SOON};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::time::Duration;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::nbd::Session;
use tests::random::Random;
use tests::verify;

const HELLO: &[u8] = b"\0\0\0\x03";

/// An option as the protocol wants it.
fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// GO for a volume.
fn go(export: &str) -> Vec<u8> {
    let mut data = (export.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(export.as_bytes());
    data.extend_from_slice(&[0, 0]);
    option(7, &data)
}

/// A request as the protocol wants it.
fn request(kind: u16, offset: u64, bytes: u32) -> Vec<u8> {
    let mut message = 0x2560_9513_u32.to_be_bytes().to_vec();
    message.extend_from_slice(&0_u16.to_be_bytes());
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&7_u64.to_be_bytes());
    message.extend_from_slice(&offset.to_be_bytes());
    message.extend_from_slice(&bytes.to_be_bytes());
    message
}

fn together(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// What broken clients send, stage by stage.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let open = together(&[HELLO, &go(DEMO)]);
    let mut random = Random::new(8);
    let noise: Vec<u8> = (0..100_000).map(|_| random.number() as u8).collect();
    let mut huge_option = together(&[HELLO, b"IHAVEOPT"]);
    huge_option.extend_from_slice(&[0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff]);
    let many_options = [HELLO.to_vec(), option(3, b"").repeat(20_000)].concat();
    let name_longer_than_data = together(&[HELLO, &option(7, &[0xff, 0xff, 0xff, 0xff, 0, 0])]);
    vec![
        ("nothing", Vec::new()),
        (
            "another protocol",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        ),
        ("unknown flags", b"\xff\xff\xff\xff".to_vec()),
        ("half a flag", b"\0\0".to_vec()),
        (
            "a wrong option magic",
            together(&[HELLO, b"IHAVENOT\0\0\0\x07\0\0\0\0"]),
        ),
        (
            "unknown options",
            together(&[HELLO, &option(4711, b"abc"), &option(99, b"")]),
        ),
        ("an option of four gigabytes", huge_option),
        ("half an option", together(&[HELLO, &go(DEMO)[..13]])),
        ("more options than anyone needs", many_options),
        ("a name longer than its option", name_longer_than_data),
        (
            "a volume that is not there",
            together(&[HELLO, &go("nothere")]),
        ),
        (
            "a name that is no text",
            together(&[HELLO, &option(7, b"\0\0\0\x04\xff\xfe\xfd\xfc\0\0")]),
        ),
        ("noise as options", together(&[HELLO, &noise])),
        ("noise as requests", together(&[&open, &noise])),
        (
            "half a request",
            together(&[&open, &request(0, 0, 512)[..20]]),
        ),
        (
            "an unknown request",
            together(&[&open, &request(77, 0, 512)]),
        ),
        (
            "a read past the end",
            together(&[&open, &request(0, u64::MAX - 100, 512)]),
        ),
        (
            "a read of four gigabytes",
            together(&[&open, &request(0, 0, u32::MAX)]),
        ),
        ("a read of nothing", together(&[&open, &request(0, 0, 0)])),
        (
            "a write of four gigabytes",
            together(&[&open, &request(1, 0, u32::MAX), &noise]),
        ),
        (
            "a write that breaks off",
            together(&[&open, &request(1, 0, 65_536), &noise[..100]]),
        ),
        (
            "many reads and nobody who takes the answers",
            together(&[&open, &request(0, 0, 1 << 20).repeat(2000)]),
        ),
    ]
}

/// Sends it and hangs up; whatever comes back is read for a moment only.
fn send(cluster: &Cluster, node: Node, bytes: &[u8]) {
    let mut stream = cluster
        .nbd(node)
        .connect()
        .expect("the node takes connections");
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    // The server may hang up first, or stop reading: both are its right.
    let _ = stream.write_all(bytes);
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut [0; 4096]);
}

#[track_caller]
fn assert_serves(bystander: &mut Session, what: &str) {
    let mut data = vec![7; 4096];
    if let Err(error) = bystander
        .write(1 << 20, &data)
        .and_then(|()| bystander.read(1 << 20, &mut data))
    {
        panic!("after {what}: {error}");
    }
}

#[test]
fn row_19_an_nbd_client_that_talks_nonsense_harms_nobody_else() {
    let cluster = Cluster::start(&Options::with_volume(64 << 20));
    let mut bystander = verify::open(&cluster.nbd(Node::A1), DEMO, SOON);
    for (what, bytes) in nonsense() {
        send(&cluster, Node::A1, &bytes);
        assert_serves(&mut bystander, what);
        send(&cluster, Node::B1, &bytes);
        assert_serves(&mut bystander, what);
    }
    for length in 0..go(DEMO).len() {
        send_without_waiting(&cluster, &together(&[HELLO, &go(DEMO)])[..length]);
    }
    assert_serves(&mut bystander, "openings cut at every byte");
    drop(bystander);
    verify::open(&cluster.nbd(Node::A1), DEMO, SOON).close();
    cluster.until_in_sync(SOON);
}

fn send_without_waiting(cluster: &Cluster, bytes: &[u8]) {
    let mut stream = cluster
        .nbd(Node::A1)
        .connect()
        .expect("the node takes connections");
    stream.write_all(bytes).expect("a few bytes can be sent");
}

#[test]
fn row_19_nonsense_at_the_ports_between_nodes_and_of_the_api_harms_nobody() {
    let cluster = Cluster::start(&Options::with_volume(64 << 20));
    let mut bystander = verify::open(&cluster.nbd(Node::A1), DEMO, SOON);
    let mut random = Random::new(9);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..2000 {
        let noise: Vec<u8> = (0..random.between(1, 1400))
            .map(|_| random.number() as u8)
            .collect();
        for node in Node::ALL {
            // A full socket may lose it.
            let _ = socket.send_to(&noise, cluster.addresses(node).peer());
        }
    }
    for text in [
        "\0\0\0\0",
        "GET / HTTP/1.1\r\n\r\n",
        "POST /v1/volumes HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n{",
    ] {
        for node in Node::ALL {
            let mut stream = TcpStream::connect(cluster.addresses(node).api())
                .expect("the API takes connections");
            stream
                .set_read_timeout(Some(Duration::from_millis(300)))
                .unwrap();
            let _ = stream.write_all(text.as_bytes());
            let _ = stream.read(&mut [0; 4096]);
        }
    }
    assert_serves(&mut bystander, "noise");
    bystander.close();
    cluster.until_in_sync(SOON);
}

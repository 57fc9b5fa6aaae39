//! The other side is a socket on which each request is seen, and answered by hand.

use super::*;
use std::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(10);
const BLOCK: u32 = 4096;

/// The server's side of one connection.
struct Peer(TcpStream);

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    command: u16,
    cookie: u64,
    offset: u64,
    bytes: u32,
    data: Vec<u8>,
}

impl Peer {
    fn see(&mut self) -> Seen {
        let mut header = [0; 28];
        self.0.read_exact(&mut header).unwrap();
        let number = |range: std::ops::Range<usize>| {
            header[range]
                .iter()
                .fold(0_u64, |all, byte| all << 8 | u64::from(*byte))
        };
        let mut seen = Seen {
            command: number(6..8) as u16,
            cookie: number(8..16),
            offset: number(16..24),
            bytes: number(24..28) as u32,
            data: Vec::new(),
        };
        if seen.command == command::WRITE {
            seen.data = vec![0; seen.bytes as usize];
            self.0.read_exact(&mut seen.data).unwrap();
        }
        seen
    }

    fn answer(&mut self, cookie: u64, error: u32, data: &[u8]) {
        let mut reply = 0x6744_6698_u32.to_be_bytes().to_vec();
        reply.extend_from_slice(&error.to_be_bytes());
        reply.extend_from_slice(&cookie.to_be_bytes());
        reply.extend_from_slice(data);
        self.0.write_all(&reply).unwrap();
    }
}

struct World {
    listener: TcpListener,
    requests: Requests,
    results: mpsc::Receiver<(u8, Result<Vec<u8>, i32>)>,
    results_in: mpsc::Sender<(u8, Result<Vec<u8>, i32>)>,
    /// The size that the next connections tell; none for an attachment that is over.
    bytes: Arc<Mutex<Option<u64>>>,
}

impl World {
    fn new() -> (World, Peer) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let export = |bytes| Export {
            bytes,
            block_bytes: BLOCK,
            flags: 0,
        };
        let bytes = Arc::new(Mutex::new(Some(1 << 30)));
        let told = Arc::clone(&bytes);
        let dial = move || match *told.lock() {
            Some(bytes) => match TcpStream::connect(address) {
                Ok(stream) => Dialed::Open(stream, export(bytes)),
                Err(error) => Dialed::NotNow(error.to_string()),
            },
            None => Dialed::Never("over".to_owned()),
        };
        let stream = TcpStream::connect(address).unwrap();
        let (requests, _) = Requests::start(stream, export(1 << 30), Box::new(dial)).unwrap();
        let (results_in, results) = mpsc::channel();
        let world = World {
            listener,
            requests,
            results,
            results_in,
            bytes,
        };
        let peer = world.accept();
        (world, peer)
    }

    fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Peer(stream)
    }

    fn submit(&self, number: u8, action: Action, offset: u64) {
        let results = self.results_in.clone();
        let done = move |result| results.send((number, result)).unwrap();
        self.requests.submit(action, offset, Box::new(done));
    }

    /// A write of one block that is filled with its number.
    fn write(&self, number: u8, offset: u64) {
        let data = vec![number; BLOCK as usize];
        self.submit(number, Action::Write(Arc::from(data)), offset);
    }

    fn result(&self) -> (u8, Result<Vec<u8>, i32>) {
        self.results.recv_timeout(LIMIT).unwrap()
    }
}

#[test]
fn a_change_waits_for_an_older_one_that_it_overlaps() {
    let (world, mut peer) = World::new();
    world.write(1, 0);
    let first = peer.see();
    world.write(2, 0);
    world.submit(3, Action::Zero(BLOCK), 1024);
    world.write(4, 8192);
    world.submit(5, Action::Read(BLOCK), 0);
    let (fourth, fifth) = (peer.see(), peer.see());
    assert_eq!((fourth.offset, fourth.data[0]), (8192, 4));
    assert_eq!(fifth.command, command::READ);
    peer.answer(first.cookie, 0, &[]);
    assert_eq!(world.result(), (1, Ok(vec![])));
    let second = peer.see();
    assert_eq!((second.offset, second.data[0]), (0, 2));
    peer.answer(fifth.cookie, 0, &[7; BLOCK as usize]);
    assert_eq!(world.result(), (5, Ok(vec![7; BLOCK as usize])));
    peer.answer(second.cookie, 0, &[]);
    assert_eq!(world.result(), (2, Ok(vec![])));
    assert_eq!(peer.see().command, command::WRITE_ZEROES);
}

#[test]
fn what_was_not_answered_is_sent_again_in_its_order() {
    let (world, mut peer) = World::new();
    for number in 1..=3 {
        world.write(number, u64::from(number) * 8192);
    }
    let seen: Vec<Seen> = (0..3).map(|_| peer.see()).collect();
    peer.answer(seen[1].cookie, 0, &[]);
    assert_eq!(world.result().0, 2);
    drop(peer);
    let mut peer = world.accept();
    for number in [1, 3] {
        let again = peer.see();
        assert_eq!((again.data[0], again.data.len()), (number, BLOCK as usize));
        peer.answer(again.cookie, 0, &[]);
        assert_eq!(world.result(), (number, Ok(vec![])));
    }
}

#[test]
fn a_connection_is_left_only_when_nothing_on_it_is_unanswered() {
    let (world, mut peer) = World::new();
    world.write(1, 0);
    world.write(2, 8192);
    let (first, second) = (peer.see(), peer.see());
    peer.answer(first.cookie, ESHUTDOWN, &[]);
    peer.answer(second.cookie, 0, &[]);
    assert_eq!(world.result(), (2, Ok(vec![])));
    assert_eq!(peer.see().command, command::DISCONNECT);
    world.write(3, 16384);
    let mut peer = world.accept();
    for number in [1, 3] {
        let again = peer.see();
        assert_eq!(again.data[0], number);
        peer.answer(again.cookie, 0, &[]);
        assert_eq!(world.result(), (number, Ok(vec![])));
    }
}

#[test]
fn an_io_error_is_believed_in_the_end() {
    let (world, mut peer) = World::new();
    world.submit(1, Action::Read(BLOCK), 0);
    for tried in 1..=IO_ERROR_TRIES_MAX {
        let seen = peer.see();
        peer.answer(seen.cookie, 5, &[]);
        if tried < IO_ERROR_TRIES_MAX {
            peer = world.accept();
        }
    }
    assert_eq!(world.result(), (1, Err(EIO)));
    // Others are believed at once.
    world.write(2, 0);
    let seen = peer.see();
    peer.answer(seen.cookie, 28, &[]);
    assert_eq!(world.result(), (2, Err(28)));
}

#[test]
fn all_fails_once_the_attachment_is_over() {
    let (world, mut peer) = World::new();
    world.write(1, 0);
    world.write(2, 0);
    peer.see();
    *world.bytes.lock() = None;
    drop(peer);
    assert_eq!(world.result(), (1, Err(EIO)));
    assert_eq!(world.result(), (2, Err(EIO)));
    world.write(3, 0);
    assert_eq!(world.result(), (3, Err(EIO)));
}

#[test]
fn a_new_size_is_seen_after_all_was_answered() {
    let (world, mut peer) = World::new();
    world.write(1, 0);
    let seen = peer.see();
    *world.bytes.lock() = Some(2 << 30);
    let grown = world.requests.look_anew();
    peer.answer(seen.cookie, 0, &[]);
    assert_eq!(world.result(), (1, Ok(vec![])));
    assert_eq!(peer.see().command, command::DISCONNECT);
    let _peer = world.accept();
    assert_eq!(grown.recv_timeout(LIMIT), Ok(2 << 30));
    assert_eq!(world.requests.bytes(), 2 << 30);
}

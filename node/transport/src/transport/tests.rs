//! Two and three transports in one process, and peers that break the rules.

mod generations;
mod tls;
mod tunnels;

use super::*;
use crate::certificates::{Authority, Credentials, node_name};
use crate::handler::Answer;
use crate::wire::{
    Class, FRAME_BYTES_MAX, Hello, WELCOME_BYTES, encode_call_header, encode_frame_header,
    encode_lane,
};
use crate::{quic, trust};
use isthmus_engine::VolumeId;
use quinn::{Connection, Endpoint, EndpointConfig, RecvStream, SendStream, TokioRuntime};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const CLUSTER: u64 = 0xc1;
/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Up(NodeId, SessionId),
    Down(NodeId, SessionId),
    Frame(NodeId, SessionId, Lane, Bytes),
    Other(NodeId, Vec<u64>),
}

struct Recorder(Mutex<mpsc::Sender<Event>>);

impl Handler for Recorder {
    fn session_up(&self, peer: NodeId, session: SessionId) {
        self.0.lock().send(Event::Up(peer, session)).unwrap();
    }
    fn session_down(&self, peer: NodeId, session: SessionId) {
        self.0.lock().send(Event::Down(peer, session)).unwrap();
    }
    fn frame(&self, peer: NodeId, session: SessionId, lane: Lane, frame: Bytes) {
        self.0
            .lock()
            .send(Event::Frame(peer, session, lane, frame))
            .unwrap();
    }
    fn other_generation(&self, peer: NodeId, lineage: Vec<u64>) {
        self.0.lock().send(Event::Other(peer, lineage)).unwrap();
    }
    /// Service 1 echoes, 2 never answers, 3 answers too much.
    fn call(&self, _: NodeId, service: u8, request: Bytes) -> Answer {
        Box::pin(async move {
            match service {
                1 => request,
                2 => std::future::pending().await,
                _ => vec![0; crate::CALL_BYTES_MAX + 1].into(),
            }
        })
    }
}

struct Node {
    transport: Transport,
    events: mpsc::Receiver<Event>,
}

impl Node {
    fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    /// Waits until so many were refused: who is hears the end before it is counted.
    fn until_refused(&self, count: u64) {
        let begun = Instant::now();
        while self.transport.refusals() < count {
            assert!(begun.elapsed() < PATIENCE, "nobody was refused");
            std::thread::yield_now();
        }
    }

    /// The session of the next event, which must be that `peer` is up.
    fn up(&self, peer: NodeId) -> SessionId {
        match self.next() {
            Event::Up(who, session) if who == peer => session,
            other => panic!("{peer} should come up, but: {other:?}"),
        }
    }

    fn down(&self, peer: NodeId, session: SessionId) {
        assert_eq!(self.next(), Event::Down(peer, session));
    }

    fn address(&self) -> SocketAddr {
        self.transport.local_address().unwrap()
    }
}

struct Cluster {
    folder: TempDir,
    authority: Authority,
}

impl Cluster {
    fn new() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), CLUSTER).unwrap();
        for node in [ONE, TWO, THREE] {
            authority
                .issue(folder.path(), &node.to_string(), node)
                .unwrap();
        }
        Cluster { folder, authority }
    }

    fn files(&self, node: NodeId) -> CertificateFiles {
        CertificateFiles::in_folder(self.folder.path(), &node.to_string())
    }

    fn config(&self, me: NodeId, peers: &[(NodeId, SocketAddr)]) -> Config {
        let mut config = Config::new(me, CLUSTER, free(), self.files(me));
        config.peers = peers
            .iter()
            .map(|(node, address)| (*node, address.to_string()))
            .collect();
        config
    }

    /// A node that knows of the nodes with lower numbers only that they will dial it.
    fn dialed_by(&self, me: NodeId, peers: &[NodeId]) -> Node {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let peers: Vec<_> = peers.iter().map(|peer| (*peer, nowhere)).collect();
        start(self.config(me, &peers))
    }

    fn pair(&self) -> (Node, Node, SessionId, SessionId) {
        self.pair_over(Bulk::Tls)
    }

    fn pair_over(&self, bulk: Bulk) -> (Node, Node, SessionId, SessionId) {
        let two = self.dialed_by(TWO, &[ONE]);
        let one = start(Config {
            bulk,
            ..self.config(ONE, &[(TWO, two.address())])
        });
        let (at_one, at_two) = (one.up(TWO), two.up(ONE));
        (one, two, at_one, at_two)
    }
}

fn free() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn start(config: Config) -> Node {
    let (sender, events) = mpsc::channel();
    let transport = Transport::start(config, Arc::new(Recorder(Mutex::new(sender)))).unwrap();
    Node { transport, events }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A peer made of bare QUIC, with a node's certificate, that can break every rule. It only lives while its runtime is
/// driven: left alone, it is a process that was stopped.
struct Bare {
    runtime: Runtime,
    connections: Vec<Connection>,
    greetings: Vec<(SendStream, RecvStream)>,
    _endpoint: Endpoint,
}

impl Bare {
    /// Connects (three times) to `to` as the holder of these certificate files, and says nothing yet.
    fn connect(files: &CertificateFiles, to: NodeId, address: SocketAddr) -> Result<Bare, String> {
        let runtime = runtime();
        let credentials = Credentials::load(files).unwrap();
        let trust::Configurations { server, client } = trust::configurations(&credentials).unwrap();
        let (_, client) = quic::configurations(
            &server,
            &client,
            Duration::from_secs(30),
            Duration::from_millis(300),
        )
        .unwrap();
        runtime
            .block_on(async {
                let socket = UdpSocket::bind(free()).unwrap();
                let endpoint = Endpoint::new(
                    EndpointConfig::default(),
                    None,
                    socket,
                    Arc::new(TokioRuntime),
                )
                .unwrap();
                let mut connections = Vec::new();
                for _ in Class::ALL {
                    let connecting = endpoint
                        .connect_with(client.clone(), address, &node_name(CLUSTER, to))
                        .unwrap();
                    connections.push(connecting.await.map_err(|error| error.to_string())?);
                }
                Ok((endpoint, connections))
            })
            .map(|(endpoint, connections)| Bare {
                runtime,
                connections,
                greetings: Vec::new(),
                _endpoint: endpoint,
            })
    }

    /// Greets on each connection and waits for the welcomes.
    fn greet(&mut self, process: u64, attempt: u64) {
        for class in Class::ALL {
            self.say(
                class,
                &Hello {
                    class,
                    process,
                    attempt,
                }
                .encode(),
            );
        }
        let Bare {
            runtime, greetings, ..
        } = self;
        runtime.block_on(async {
            for (_, receive) in greetings {
                receive.read_exact(&mut [0; WELCOME_BYTES]).await.unwrap();
            }
        });
    }

    /// Sends bytes as the greeting on one connection.
    fn say(&mut self, class: Class, bytes: &[u8]) {
        let connection = &self.connections[class.index()];
        let streams = self.runtime.block_on(async {
            let (mut send, receive) = connection.open_bi().await.unwrap();
            send.write_all(bytes).await.unwrap();
            (send, receive)
        });
        self.greetings.push(streams);
    }

    /// Opens a one-way stream and sends bytes on it.
    fn stream(&self, class: Class, bytes: &[u8]) -> SendStream {
        self.runtime.block_on(async {
            let mut stream = self.connections[class.index()].open_uni().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream
        })
    }

    /// Waits until the other side has closed this connection.
    fn closed(&self, class: Class) -> quinn::ConnectionError {
        let connection = &self.connections[class.index()];
        self.runtime
            .block_on(async { timeout(PATIENCE, connection.closed()).await.unwrap() })
    }
}

fn lane_and(lane: Lane, bytes: &[u8]) -> Vec<u8> {
    [&encode_lane(lane)[..], bytes].concat()
}

#[test]
fn frames_of_a_lane_arrive_in_order_and_whole() {
    for bulk in [Bulk::Tls, Bulk::Quic] {
        frames_arrive_in_order_and_whole(bulk);
    }
}

fn frames_arrive_in_order_and_whole(bulk: Bulk) {
    let (one, two, at_one, at_two) = Cluster::new().pair_over(bulk);
    let lanes = [
        Lane::Control,
        Lane::Write(VolumeId(1)),
        Lane::Write(VolumeId(2)),
        Lane::Resync(VolumeId(1)),
    ];
    let rounds = 1500_usize;
    let length = |round: usize| match round % 100 {
        0 => 0,
        1 => 200_000,
        2 if round == 2 => FRAME_BYTES_MAX - 8,
        rest => rest * 61,
    };
    let sender = std::thread::spawn(move || {
        for round in 0..rounds {
            for lane in lanes {
                let number = Bytes::copy_from_slice(&(round as u64).to_le_bytes());
                let parts = vec![
                    number,
                    Bytes::new(),
                    Bytes::from(vec![round as u8; length(round)]),
                ];
                // The only reason to wait: the receiver below is slower.
                while let Err(error) = one.transport.send(TWO, at_one, lane, parts.clone()) {
                    assert_eq!(error, SendError::Full);
                    std::thread::yield_now();
                }
            }
        }
        one
    });
    let mut expected = BTreeMap::new();
    for _ in 0..rounds * lanes.len() {
        let Event::Frame(ONE, session, lane, frame) = two.next() else {
            panic!("a frame was due")
        };
        assert_eq!(session, at_two);
        let round = expected.entry(lane).or_insert(0);
        assert_eq!(frame[..8], (*round as u64).to_le_bytes(), "{lane:?}");
        assert!(
            frame.len() == 8 + length(*round)
                && frame[8..].iter().all(|byte| *byte == *round as u8)
        );
        *round += 1;
    }
    let one = sender.join().unwrap();
    assert_eq!(
        two.transport.stats(ONE).unwrap().frames_received,
        (rounds * lanes.len()) as u64
    );
    assert!(one.transport.round_trip(TWO).is_some());
    // And back, on a lane of the same name.
    two.transport
        .send(
            ONE,
            at_two,
            Lane::Control,
            vec![Bytes::from_static(b"back")],
        )
        .unwrap();
    assert_eq!(
        one.next(),
        Event::Frame(TWO, at_one, Lane::Control, Bytes::from_static(b"back"))
    );
    let bytes = FRAME_BYTES_MAX + 1;
    let refused = two
        .transport
        .send(ONE, at_two, Lane::Control, vec![vec![0; bytes].into()]);
    assert_eq!(refused, Err(SendError::TooLong { bytes }));
}

#[test]
fn calls_are_answered_in_both_directions_and_end_in_time() {
    let (one, two, at_one, _) = Cluster::new().pair();
    let large = Bytes::from(vec![7; crate::CALL_BYTES_MAX]);
    runtime().block_on(async {
        for (from, to) in [(&one.transport, TWO), (&two.transport, ONE)] {
            for request in [Bytes::new(), Bytes::from_static(b"question"), large.clone()] {
                assert!(from.call(to, 1, request.clone(), PATIENCE).await == Ok(request));
            }
            let many = (0..200_u8)
                .map(|number| from.call(to, 1, Bytes::from(vec![number; 100]), PATIENCE));
            let mut calls = Vec::from_iter(many.map(Box::pin));
            for (number, call) in calls.iter_mut().enumerate() {
                assert_eq!(call.await, Ok(Bytes::from(vec![number as u8; 100])));
            }
            let late = from
                .call(to, 2, Bytes::new(), Duration::from_millis(20))
                .await;
            assert_eq!(late, Err(CallError::TimedOut));
            let too_much = from.call(to, 3, Bytes::new(), PATIENCE).await;
            assert_eq!(too_much, Err(CallError::Broken));
        }
        let bytes = crate::CALL_BYTES_MAX + 1;
        let refused = one
            .transport
            .call(TWO, 1, vec![0; bytes].into(), PATIENCE)
            .await;
        assert_eq!(refused, Err(CallError::TooLong { bytes }));
        let unknown = one.transport.call(THREE, 1, Bytes::new(), PATIENCE).await;
        assert_eq!(unknown, Err(CallError::NotConnected));
    });
    assert_eq!(
        one.transport.connected(TWO),
        Some(at_one),
        "none of this cost the session"
    );
}

#[test]
fn a_peer_that_stops_is_down_at_once_and_up_again_after_its_restart() {
    let cluster = Cluster::new();
    let (one, two, mut at_one, at_two) = cluster.pair();
    let address = two.address();
    let (mut two, mut at_two) = (two, at_two);
    for _ in 0..3 {
        one.transport
            .send(
                TWO,
                at_one,
                Lane::Control,
                vec![Bytes::from_static(b"last")],
            )
            .unwrap();
        assert!(matches!(two.next(), Event::Frame(..)));
        two.transport.stop();
        two.down(ONE, at_two);
        assert!(
            two.events.try_recv().is_err(),
            "nothing comes after the stop"
        );
        assert_eq!(
            two.transport.send(ONE, at_two, Lane::Control, Vec::new()),
            Err(SendError::SessionOver)
        );
        one.down(TWO, at_one);
        drop(two);
        let mut config = cluster.config(TWO, &[(ONE, one.address())]);
        config.listen = address;
        two = start(config);
        let again = one.up(TWO);
        assert!(again > at_one);
        let refused = one.transport.send(TWO, at_one, Lane::Control, Vec::new());
        assert_eq!(
            refused,
            Err(SendError::SessionOver),
            "the old session stays over"
        );
        (at_one, at_two) = (again, two.up(ONE));
    }
    // The dialing side restarts.
    drop(one);
    two.down(ONE, at_two);
    let one = start(cluster.config(ONE, &[(TWO, address)]));
    one.up(TWO);
    assert!(two.up(ONE) > at_two);
}

#[test]
fn a_peer_that_falls_silent_is_down_after_the_idle_timeout_and_its_queue_is_bounded() {
    let cluster = Cluster::new();
    let mut config = cluster.config(TWO, &[(ONE, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))]);
    config.idle_timeout = Duration::from_millis(1500);
    config.queue_bytes_max = 1 << 20;
    let two = start(config);
    let mut silent = Bare::connect(&cluster.files(ONE), TWO, two.address()).unwrap();
    silent.greet(1, 1);
    let session = two.up(ONE);
    // From here on nobody drives its runtime. It allowed no stream, so that all stays queued.
    let frame = Bytes::from(vec![1; 100_000]);
    let send = || {
        two.transport
            .send(ONE, session, Lane::Write(VolumeId(1)), vec![frame.clone()])
    };
    for _ in 0..10 {
        send().unwrap();
    }
    assert_eq!(send(), Err(SendError::Full));
    two.down(ONE, session);
    assert_eq!(send(), Err(SendError::SessionOver));
    assert_eq!(two.transport.stats(ONE).unwrap().queued_bytes, 0);
}

#[test]
fn a_newer_session_takes_over_and_an_older_try_does_not() {
    let cluster = Cluster::new();
    let two = cluster.dialed_by(TWO, &[ONE]);
    let mut first = Bare::connect(&cluster.files(ONE), TWO, two.address()).unwrap();
    first.greet(1, 5);
    let session = two.up(ONE);
    let mut stream = first.stream(
        Class::Control,
        &lane_and(Lane::Control, &encode_frame_header(0)),
    );
    stream.finish().unwrap();
    // Arrived, that is: its runtime is left alone after this.
    let arrived = first
        .runtime
        .block_on(async { timeout(PATIENCE, stream.stopped()).await });
    assert_eq!(arrived.unwrap(), Ok(None));
    assert_eq!(
        two.next(),
        Event::Frame(ONE, session, Lane::Control, Bytes::new())
    );
    let mut second = Bare::connect(&cluster.files(ONE), TWO, two.address()).unwrap();
    second.greet(1, 6);
    two.down(ONE, session);
    let newer = two.up(ONE);
    assert!(newer > session);
    let mut stale = Bare::connect(&cluster.files(ONE), TWO, two.address()).unwrap();
    for class in Class::ALL {
        stale.say(
            class,
            &Hello {
                class,
                process: 1,
                attempt: 5,
            }
            .encode(),
        );
        stale.closed(class);
    }
    assert_eq!(two.transport.connected(ONE), Some(newer));
}

#[test]
fn only_the_right_certificate_of_the_right_authority_gets_in() {
    let cluster = Cluster::new();
    let two = cluster.dialed_by(TWO, &[ONE]);
    let strangers = tempfile::tempdir().unwrap();
    let stranger = Authority::create(strangers.path(), CLUSTER).unwrap();
    let forged = stranger.issue(strangers.path(), "forged", ONE).unwrap();
    let other_cluster = Authority::load(cluster.folder.path(), CLUSTER + 1).unwrap();
    let elsewhere = other_cluster
        .issue(cluster.folder.path(), "elsewhere", ONE)
        .unwrap();
    let unknown = cluster
        .authority
        .issue(cluster.folder.path(), "unknown", NodeId(9))
        .unwrap();

    // Trusts the right authority, but shows a certificate of another one with the same names.
    let mixed = CertificateFiles {
        authority: cluster.files(ONE).authority,
        ..forged.clone()
    };
    for files in [&mixed, &elsewhere, &unknown, &cluster.files(TWO)] {
        let before = two.transport.refusals();
        // A client learns of its refusal only after its own half of the handshake.
        if let Ok(bare) = Bare::connect(files, TWO, two.address()) {
            bare.closed(Class::Control);
        }
        two.until_refused(before + 1);
    }
    // The other way round: the one that dials does not trust the one that answers.
    assert!(Bare::connect(&forged, TWO, two.address()).is_err());
    assert!(
        Bare::connect(&cluster.files(ONE), THREE, two.address()).is_err(),
        "n2 is not n3"
    );

    let one = start(cluster.config(ONE, &[(TWO, two.address())]));
    one.up(TWO);
    two.up(ONE);
    let error = Transport::start(
        Config {
            certificates: cluster.files(TWO),
            ..cluster.config(ONE, &[])
        },
        Arc::new(Recorder(Mutex::new(mpsc::channel().0))),
    );
    assert_eq!(error.err().unwrap().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn nonsense_costs_its_sender_the_session_and_nobody_else() {
    let cluster = Cluster::new();
    let three = cluster.dialed_by(THREE, &[ONE, TWO]);
    let good = start(cluster.config(TWO, &[(THREE, three.address())]));
    let (at_good, at_three) = (good.up(THREE), three.up(TWO));

    let lane = Lane::Write(VolumeId(1));
    let mut too_long = encode_frame_header(0);
    too_long[4..].copy_from_slice(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
    let mut unknown_lane = encode_lane(lane);
    unknown_lane[5] = 77;
    let cut = encode_frame_header(100).to_vec();
    let nonsense: [(Class, Vec<u8>); 6] = [
        (Class::Write, lane_and(lane, &too_long)),
        (Class::Write, lane_and(lane, &[0xff; 64])),
        (Class::Write, unknown_lane.to_vec()),
        (Class::Resync, encode_lane(lane).to_vec()),
        (Class::Control, vec![0; 4096]),
        (Class::Write, lane_and(lane, &cut)),
    ];
    for (number, (class, bytes)) in nonsense.into_iter().enumerate() {
        let mut bare = Bare::connect(&cluster.files(ONE), THREE, three.address()).unwrap();
        bare.greet(number as u64, 1);
        let session = three.up(ONE);
        let mut stream = bare.stream(class, &bytes);
        stream.finish().unwrap();
        for class in Class::ALL {
            bare.closed(class);
        }
        three.down(ONE, session);
    }
    // A lane twice, and a call that announces more than a call may have.
    let mut bare = Bare::connect(&cluster.files(ONE), THREE, three.address()).unwrap();
    bare.greet(100, 1);
    let session = three.up(ONE);
    let _streams = [
        bare.stream(Class::Write, &encode_lane(lane)),
        bare.stream(Class::Write, &encode_lane(lane)),
    ];
    bare.closed(Class::Write);
    three.down(ONE, session);
    let mut bare = Bare::connect(&cluster.files(ONE), THREE, three.address()).unwrap();
    bare.greet(101, 1);
    let session = three.up(ONE);
    let mut call = encode_call_header(1, 0);
    call[4..].copy_from_slice(&u32::MAX.to_le_bytes());
    bare.say(Class::Control, &call);
    bare.closed(Class::Control);
    three.down(ONE, session);

    still_works(&good, &three, at_good, at_three);
}

fn still_works(good: &Node, other: &Node, at_good: SessionId, at_other: SessionId) {
    let frame = Bytes::from_static(b"still there");
    good.transport
        .send(THREE, at_good, Lane::Control, vec![frame.clone()])
        .unwrap();
    assert_eq!(
        other.next(),
        Event::Frame(TWO, at_other, Lane::Control, frame)
    );
}

#[test]
fn wrong_greetings_floods_and_garbage_are_refused() {
    let cluster = Cluster::new();
    let three = cluster.dialed_by(THREE, &[ONE, TWO]);
    let good = start(cluster.config(TWO, &[(THREE, three.address())]));
    let (at_good, at_three) = (good.up(THREE), three.up(TWO));

    let mut bare = Bare::connect(&cluster.files(ONE), THREE, three.address()).unwrap();
    bare.say(Class::Control, &[0x55; 24]);
    bare.closed(Class::Control);
    // The same class twice in one try.
    let hello = Hello {
        class: Class::Write,
        process: 1,
        attempt: 1,
    }
    .encode();
    bare.say(Class::Write, &hello);
    bare.say(Class::Resync, &hello);
    bare.closed(Class::Write);
    bare.closed(Class::Resync);
    // Silence instead of a greeting.
    let silent = Bare::connect(&cluster.files(ONE), THREE, three.address()).unwrap();
    silent.closed(Class::Control);

    let socket = UdpSocket::bind(free()).unwrap();
    let mut seed = 1_u64;
    for round in 0..3000_usize {
        let mut datagram = vec![0; 1200];
        for byte in &mut datagram {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (seed >> 33) as u8;
        }
        if round % 2 == 0 {
            // The first packet of a handshake, as far as its header goes.
            datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
        }
        socket
            .send_to(&datagram[..1200 - (round % 3) * 500], three.address())
            .unwrap();
    }
    still_works(&good, &three, at_good, at_three);
    assert!(three.events.try_recv().is_err(), "nobody else came up");
}

#[test]
fn what_cannot_be_started_says_why() {
    let cluster = Cluster::new();
    let refuse = |config: Config| {
        let recorder = Arc::new(Recorder(Mutex::new(mpsc::channel().0)));
        Transport::start(config, recorder).err().unwrap()
    };
    let taken = UdpSocket::bind(free()).unwrap();
    let mut config = cluster.config(ONE, &[]);
    config.listen = taken.local_addr().unwrap();
    let error = refuse(config);
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    let mut config = cluster.config(ONE, &[]);
    config.certificates = CertificateFiles::in_folder(Path::new("/nowhere"), "n1");
    assert_eq!(refuse(config).kind(), io::ErrorKind::NotFound);
    assert_eq!(
        refuse(cluster.config(ONE, &[(ONE, free())])).kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(
        refuse(cluster.config(ONE, &[(TWO, free()), (TWO, free())])).kind(),
        io::ErrorKind::InvalidInput
    );
}

//! What is particular to the connections over TLS.

use super::*;
use crate::tls::TlsSocket;
use crate::wire::encode_mixed_header;
use std::io::Write as _;
use std::net::TcpStream;

/// A session of bare connections, control by QUIC, the others by TLS.
struct Mixed {
    control: Bare,
    bulk: Vec<TlsSocket>,
}

impl Mixed {
    /// Greets and waits until the session is up.
    fn connect(cluster: &Cluster, to: NodeId, address: SocketAddr, process: u64) -> Mixed {
        let files = cluster.files(ONE);
        let mut control = Bare::connect(&files, to, address).unwrap();
        let hello = |class| {
            Hello {
                class,
                process,
                attempt: 1,
            }
            .encode()
        };
        control.say(Class::Control, &hello(Class::Control));
        let mut bulk = Vec::new();
        for class in [Class::Write, Class::Resync] {
            let mut socket = secured(&control.runtime, &files, to, address).unwrap();
            say(&control.runtime, &mut socket, &hello(class));
            bulk.push(socket);
        }
        for socket in &mut bulk {
            let welcome = socket.fill(WELCOME_BYTES);
            control.runtime.block_on(welcome).unwrap();
        }
        Mixed { control, bulk }
    }

    /// Sends bytes on the connection of a class other than control.
    fn say(&mut self, class: Class, bytes: &[u8]) {
        let socket = &mut self.bulk[class.index() - 1];
        say(&self.control.runtime, socket, bytes);
    }
}

fn say(runtime: &Runtime, socket: &mut TlsSocket, bytes: &[u8]) {
    socket.seal(bytes).unwrap();
    runtime.block_on(socket.flush()).unwrap();
}

pub(super) fn secured(
    runtime: &Runtime,
    files: &CertificateFiles,
    to: NodeId,
    address: SocketAddr,
) -> io::Result<TlsSocket> {
    let credentials = Credentials::load(files).unwrap();
    let client = Arc::new(trust::configurations(&credentials).unwrap().client);
    let name = node_name(CLUSTER, to);
    let connecting = TlsSocket::connect(address.ip(), address, &name, &client, PATIENCE);
    runtime.block_on(connecting)
}

/// Whether the other side ends this connection without a word.
pub(super) fn is_closed(runtime: &Runtime, socket: &mut TlsSocket) -> bool {
    runtime.block_on(async { timeout(PATIENCE, socket.fill(1)).await.unwrap().is_err() })
}

#[test]
fn nonsense_over_tls_costs_its_sender_the_session_and_nobody_else() {
    let cluster = Cluster::new();
    let three = cluster.dialed_by(THREE, &[ONE, TWO]);
    let good = start(cluster.config(TWO, &[(THREE, three.address())]));
    let (at_good, at_three) = (good.up(THREE), three.up(TWO));
    let (write, resync) = (Lane::Write(VolumeId(1)), Lane::Resync(VolumeId(1)));
    let mut too_long = encode_mixed_header(write, 0);
    too_long[4..8].copy_from_slice(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
    let mut unknown = encode_mixed_header(write, 0);
    unknown[1] = 77;
    let nonsense: [(Lane, Vec<u8>); 5] = [
        (write, too_long.to_vec()),
        (write, unknown.to_vec()),
        (write, vec![0xff; 100]),
        (resync, encode_mixed_header(write, 0).to_vec()),
        (write, encode_mixed_header(Lane::Control, 0).to_vec()),
    ];
    for (process, (lane, bytes)) in (1..).zip(nonsense) {
        let mut mixed = Mixed::connect(&cluster, THREE, three.address(), process);
        let session = three.up(ONE);
        let good = [&encode_mixed_header(lane, 1)[..], &[9]].concat();
        mixed.say(lane.class(), &good);
        let frame = Bytes::from_static(&[9]);
        assert_eq!(three.next(), Event::Frame(ONE, session, lane, frame));
        mixed.say(lane.class(), &bytes);
        three.down(ONE, session);
        mixed.control.closed(Class::Control);
    }
    still_works(&good, &three, at_good, at_three);
}

#[test]
fn any_connection_that_is_lost_ends_the_session_at_once() {
    let cluster = Cluster::new();
    let two = cluster.dialed_by(TWO, &[ONE]);
    for process in [1, 2] {
        let mut mixed = Mixed::connect(&cluster, TWO, two.address(), process);
        let session = two.up(ONE);
        // Cut within a frame.
        let header = encode_mixed_header(Lane::Write(VolumeId(1)), 100);
        mixed.say(Class::Write, &header);
        drop(mixed.bulk.remove(process as usize - 1));
        two.down(ONE, session);
    }
}

#[test]
fn strangers_and_garbage_get_nowhere_over_tcp() {
    let cluster = Cluster::new();
    let three = cluster.dialed_by(THREE, &[ONE, TWO]);
    let good = start(cluster.config(TWO, &[(THREE, three.address())]));
    let (at_good, at_three) = (good.up(THREE), three.up(TWO));
    let runtime = runtime();
    let strangers = tempfile::tempdir().unwrap();
    let forged = Authority::create(strangers.path(), CLUSTER)
        .unwrap()
        .issue(strangers.path(), "forged", ONE)
        .unwrap();
    // Trusts the right authority, but shows a certificate of another one with the same names.
    let mixed = CertificateFiles {
        authority: cluster.files(ONE).authority,
        ..forged.clone()
    };
    let before = three.transport.refusals();
    // A client learns of its refusal only after its own half of the handshake.
    for files in [&mixed, &cluster.files(THREE)] {
        let socket = secured(&runtime, files, THREE, three.address());
        assert!(socket.is_err() || is_closed(&runtime, &mut socket.unwrap()));
    }
    three.until_refused(before + 2);
    // The other way round: the one that dials does not trust the one that answers, or takes it for another one.
    assert!(secured(&runtime, &forged, THREE, three.address()).is_err());
    assert!(secured(&runtime, &cluster.files(ONE), TWO, three.address()).is_err());
    // The right one, but for control, or with a greeting that is none.
    let control = Hello {
        class: Class::Control,
        process: 1,
        attempt: 1,
    };
    for greeting in [control.encode(), [0x55; 24]] {
        let mut socket = secured(&runtime, &cluster.files(ONE), THREE, three.address()).unwrap();
        say(&runtime, &mut socket, &greeting);
        assert!(is_closed(&runtime, &mut socket));
    }
    let http: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    for bytes in [&[0x16, 3, 1, 0xff, 0xff], &[0; 70_000][..], http] {
        let mut stream = TcpStream::connect(three.address()).unwrap();
        // It may be closed before all is sent.
        let _ = stream.write_all(bytes);
    }
    // Silence, more of it than handshakes may be under way.
    let silent = Vec::from_iter((0..80).map(|_| TcpStream::connect(three.address()).unwrap()));
    still_works(&good, &three, at_good, at_three);
    drop(silent);
    assert!(three.events.try_recv().is_err(), "nobody else came up");
}

#[test]
fn keys_are_changed_before_they_are_worn_out() {
    let cluster = Cluster::new();
    let runtime = runtime();
    let [near, far] = [ONE, TWO].map(|node| {
        let credentials = Credentials::load(&cluster.files(node)).unwrap();
        trust::configurations_with(&credentials, &short_lived(1000)).unwrap()
    });
    let listener = runtime.block_on(tokio::net::TcpListener::bind(free()));
    let listener = listener.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = (Arc::new(near.client), Arc::new(far.server));
    let name = node_name(CLUSTER, TWO);
    runtime.block_on(async {
        let accepting = async {
            let (stream, _) = listener.accept().await.unwrap();
            TlsSocket::accept(stream, &server, PATIENCE).await
        };
        let connecting = TlsSocket::connect(address.ip(), address, &name, &client, PATIENCE);
        let (mut far, mut near) = tokio::try_join!(accepting, connecting).unwrap();
        for round in 0..5000_u32 {
            let bytes = round.to_le_bytes();
            pass(&mut near, &mut far, &bytes).await;
            pass(&mut far, &mut near, &bytes).await;
        }
    });
}

async fn pass(from: &mut TlsSocket, to: &mut TlsSocket, bytes: &[u8]) {
    from.seal(bytes).unwrap();
    from.flush().await.unwrap();
    to.fill(bytes.len()).await.unwrap();
    assert_eq!(to.plain.split_to(bytes.len())[..], *bytes);
}

/// The usual cryptography with keys that are good for so many records only.
fn short_lived(records: u64) -> rustls::crypto::CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = provider
        .cipher_suites
        .iter()
        .filter_map(|suite| suite.tls13())
        .map(|suite| {
            let short = rustls::Tls13CipherSuite {
                common: rustls::crypto::CipherSuiteCommon {
                    confidentiality_limit: records,
                    ..suite.common
                },
                ..*suite
            };
            // For the rest of the test's process.
            rustls::SupportedCipherSuite::Tls13(Box::leak(Box::new(short)))
        })
        .collect();
    provider
}

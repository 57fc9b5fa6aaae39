//! Streams of bytes beside a session.

use super::*;
use crate::tunnel::Tunnel;
use crate::wire::Greeting;
use std::io::IoSlice;
use tokio::io::{AsyncReadExt, AsyncWrite as _, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Records sessions as [`Recorder`] does, and keeps tunnels.
struct Gate(Recorder, UnboundedSender<(NodeId, Tunnel)>);

impl Handler for Gate {
    fn session_up(&self, peer: NodeId, session: SessionId) {
        self.0.session_up(peer, session);
    }
    fn session_down(&self, peer: NodeId, session: SessionId) {
        self.0.session_down(peer, session);
    }
    fn frame(&self, peer: NodeId, session: SessionId, lane: Lane, frame: Bytes) {
        self.0.frame(peer, session, lane, frame);
    }
    fn call(&self, peer: NodeId, service: u8, request: Bytes) -> Answer {
        self.0.call(peer, service, request)
    }
    fn tunnel(&self, peer: NodeId, tunnel: Tunnel) {
        self.1.send((peer, tunnel)).unwrap();
    }
}

type Tunnels = UnboundedReceiver<(NodeId, Tunnel)>;

fn start_on(runtime: &Runtime, config: Config) -> (Node, Tunnels) {
    let (sender, events) = mpsc::channel();
    let (tunnels, came) = unbounded_channel();
    let gate = Gate(Recorder(Mutex::new(sender)), tunnels);
    let transport = Transport::start_on(config, Arc::new(gate), runtime.handle()).unwrap();
    (Node { transport, events }, came)
}

/// Two nodes with a session, on one runtime with a thread of its own.
struct Pair {
    runtime: Runtime,
    one: (Node, Tunnels),
    two: (Node, Tunnels),
    at_two: SessionId,
}

impl Pair {
    fn new() -> Pair {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let cluster = Cluster::new();
        // Each knows where the other is: either may open a tunnel.
        let (first, second) = (port(), port());
        let config = |me, other, own, address| Config {
            listen: own,
            ..cluster.config(me, &[(other, address)])
        };
        let two = start_on(&runtime, config(TWO, ONE, second, first));
        let one = start_on(&runtime, config(ONE, TWO, first, second));
        one.0.up(TWO);
        let at_two = two.0.up(ONE);
        Pair {
            runtime,
            one,
            two,
            at_two,
        }
    }
}

/// A port that was free just now, for both protocols.
fn port() -> SocketAddr {
    let socket = UdpSocket::bind(free()).unwrap();
    socket.local_addr().unwrap()
}

async fn open(from: &Transport, to: NodeId, came: &mut Tunnels) -> (Tunnel, Tunnel) {
    let opened = from.tunnel(to).await.unwrap();
    let (_, taken) = timeout(PATIENCE, came.recv()).await.unwrap().unwrap();
    (opened, taken)
}

#[test]
fn bytes_pass_both_ways_whoever_opened_the_tunnel() {
    let Pair {
        runtime,
        mut one,
        mut two,
        ..
    } = Pair::new();
    runtime.block_on(async {
        for round in 0..2 {
            let (mut here, mut there) = if round == 0 {
                open(&one.0.transport, TWO, &mut two.1).await
            } else {
                open(&two.0.transport, ONE, &mut one.1).await
            };
            // Longer than all that either side keeps.
            let long: Vec<u8> = (0..4_u32 << 20).map(|at| (at % 251) as u8).collect();
            let mut back = vec![0; long.len()];
            let sent = async {
                here.write_all(&long).await.unwrap();
                here.flush().await.unwrap();
                let mut head = [0; 5];
                here.read_exact(&mut head).await.unwrap();
                here.shutdown().await.unwrap();
                head
            };
            let received = async {
                there.read_exact(&mut back).await.unwrap();
                let pieces = [IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")];
                assert_eq!(there.write_vectored(&pieces).await.unwrap(), 5);
                there.flush().await.unwrap();
                there.read_u8().await.unwrap_err().kind()
            };
            let (head, end) = timeout(PATIENCE, async { tokio::join!(sent, received) })
                .await
                .unwrap();
            assert_eq!(&head, b"hello");
            assert_eq!(end, io::ErrorKind::UnexpectedEof);
            assert!(back == long);
        }
    });
}

#[test]
fn who_is_not_read_from_is_held_up() {
    let Pair {
        runtime,
        one,
        mut two,
        ..
    } = Pair::new();
    runtime.block_on(async {
        let (mut here, mut there) = open(&one.0.transport, TWO, &mut two.1).await;
        let piece = vec![7; 1 << 20];
        let mut written = 0_usize;
        // More than the kernel's own buffers ever take.
        const MUCH: usize = 256 << 20;
        let held_up = |context: &mut std::task::Context<'_>| {
            loop {
                match std::pin::Pin::new(&mut here).poll_write(context, &piece) {
                    std::task::Poll::Ready(bytes) => written += bytes.unwrap(),
                    std::task::Poll::Pending => return std::task::Poll::Ready(()),
                }
                assert!(written < MUCH, "nothing holds the writer up");
            }
        };
        std::future::poll_fn(held_up).await;
        // What was taken arrives, and room is made for more.
        let read = async {
            let mut room = vec![0; 64 << 10];
            let mut read = 0;
            while read < written {
                let bytes = there.read(&mut room).await.unwrap();
                assert!(bytes > 0, "the end came early");
                read += bytes;
            }
        };
        let flushed = async { here.flush().await.unwrap() };
        timeout(PATIENCE, async { tokio::join!(read, flushed) })
            .await
            .unwrap();
    });
}

#[test]
fn a_tunnel_ends_with_the_session() {
    let Pair {
        runtime,
        one,
        mut two,
        at_two,
    } = Pair::new();
    let (_here, mut there) = runtime.block_on(open(&one.0.transport, TWO, &mut two.1));
    one.0.transport.stop();
    two.0.down(ONE, at_two);
    let end = runtime.block_on(async { timeout(PATIENCE, there.read_u8()).await.unwrap() });
    assert!(end.is_err());
    let refused = runtime.block_on(two.0.transport.tunnel(ONE));
    assert_eq!(
        refused.err().map(|error| error.kind()),
        Some(io::ErrorKind::NotConnected)
    );
}

#[test]
fn a_tunnel_without_a_session_is_refused() {
    let cluster = Cluster::new();
    let two = cluster.dialed_by(TWO, &[ONE]);
    let runtime = runtime();
    let mut socket =
        super::tls::secured(&runtime, &cluster.files(ONE), TWO, two.address()).unwrap();
    socket.seal(&Greeting::Tunnel.encode()).unwrap();
    runtime.block_on(socket.flush()).unwrap();
    assert!(super::tls::is_closed(&runtime, &mut socket));
}

/// More than both sockets and both sides keep.
const MUCH: usize = 64 << 20;

#[test]
fn who_takes_nothing_for_a_while_holds_the_tunnel_up_and_does_not_end_it() {
    let Pair {
        runtime,
        one,
        mut two,
        ..
    } = Pair::new();
    runtime.block_on(async {
        let (mut here, mut there) = open(&one.0.transport, TWO, &mut two.1).await;
        let long = vec![7; MUCH];
        let sent = async {
            here.write_all(&long).await?;
            here.flush().await
        };
        let mut sent = std::pin::pin!(sent);
        // Longer than a lane may go unanswered.
        let idle = Cluster::new().config(ONE, &[]).idle_timeout;
        let held_up = timeout(idle * 2, &mut sent).await;
        assert!(held_up.is_err(), "{held_up:?}");
        let mut taken = vec![0; MUCH];
        let received = there.read_exact(&mut taken);
        let (sent, received) = timeout(PATIENCE, async { tokio::join!(sent, received) })
            .await
            .unwrap();
        sent.unwrap();
        received.unwrap();
        assert!(taken == long);
    });
}

#[test]
fn who_is_held_up_hears_that_the_session_is_over() {
    let Pair {
        runtime,
        one,
        mut two,
        ..
    } = Pair::new();
    let (_here, mut there) = runtime.block_on(open(&one.0.transport, TWO, &mut two.1));
    let sent = runtime.spawn(async move { there.write_all(&vec![7; MUCH]).await });
    one.0.transport.stop();
    let end = runtime.block_on(async { timeout(PATIENCE, sent).await.unwrap().unwrap() });
    assert!(end.is_err());
}

//! Two nodes in one process on loopback: 4 KiB frames out, 64 B frames back; p50 and p99 at depth 1, MiB/s at depth 32.
//! Usage: `ping_pong [FRAMES [quic]]`.

use bytes::Bytes;
use isthmus_engine::{NodeId, VolumeId};
use isthmus_transport::{Answer, Authority, Bulk, Config, Handler, Lane, SessionId, Transport};
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

const LANE: Lane = Lane::Write(VolumeId(1));

enum Event {
    Up(SessionId),
    Frame,
}

/// Reports what comes, as a host's inbox does.
struct Near(Mutex<mpsc::Sender<Event>>);

impl Near {
    fn report(&self, event: Event) {
        if let Ok(sender) = self.0.lock() {
            let _ = sender.send(event);
        }
    }
}

impl Handler for Near {
    fn session_up(&self, _: NodeId, session: SessionId) {
        self.report(Event::Up(session));
    }
    fn session_down(&self, _: NodeId, _: SessionId) {}
    fn frame(&self, _: NodeId, _: SessionId, _: Lane, _: Bytes) {
        self.report(Event::Frame);
    }
    fn call(&self, _: NodeId, _: u8, request: Bytes) -> Answer {
        Box::pin(async move { request })
    }
}

/// Answers each frame at once.
struct Far(OnceLock<Arc<Transport>>);

impl Handler for Far {
    fn session_up(&self, _: NodeId, _: SessionId) {}
    fn session_down(&self, _: NodeId, _: SessionId) {}
    fn frame(&self, peer: NodeId, session: SessionId, lane: Lane, _: Bytes) {
        if let Some(transport) = self.0.get() {
            let _ = transport.send(peer, session, lane, vec![Bytes::from_static(&[1; 64])]);
        }
    }
    fn call(&self, _: NodeId, _: u8, request: Bytes) -> Answer {
        Box::pin(async move { request })
    }
}

fn run(
    near: &Transport,
    session: SessionId,
    events: &mpsc::Receiver<Event>,
    frame: &Bytes,
    depth: usize,
    frames: usize,
) -> Result<(), Box<dyn Error>> {
    let mut sent = std::collections::VecDeque::new();
    let mut times = Vec::new();
    let start = Instant::now();
    let mut left = frames;
    while times.len() < frames {
        while sent.len() < depth && left > 0 {
            near.send(
                NodeId(2),
                session,
                LANE,
                vec![Bytes::from_static(&[2; 64]), frame.clone()],
            )?;
            sent.push_back(Instant::now());
            left -= 1;
        }
        if let Event::Frame = events.recv()? {
            times.extend(sent.pop_front().map(|since: Instant| since.elapsed()));
        }
    }
    let rate = (frames * frame.len()) as f64 / start.elapsed().as_secs_f64() / f64::from(1 << 20);
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let bytes = frame.len();
    println!(
        "{bytes:>7} B out, depth {depth:>2}: p50 {:>8.1?}  p99 {:>8.1?}  {rate:>6.0} MiB/s",
        at(0.5),
        at(0.99)
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let frames = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_000);
    let folder = std::env::temp_dir().join(format!("ping-pong-{}", std::process::id()));
    let authority = Authority::create(&folder, 1)?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));

    let mut config = Config::new(
        NodeId(2),
        1,
        any,
        authority.issue(&folder, "far", NodeId(2))?,
    );
    // Never dialed: the other has the lower number.
    config.peers = vec![(NodeId(1), "127.0.0.1:1".to_owned())];
    let far = Arc::new(Far(OnceLock::new()));
    let far_transport = Arc::new(Transport::start(config, far.clone())?);
    let _ = far.0.set(Arc::clone(&far_transport));

    let (sender, events) = mpsc::channel();
    let mut config = Config::new(
        NodeId(1),
        1,
        any,
        authority.issue(&folder, "near", NodeId(1))?,
    );
    config.peers = vec![(NodeId(2), far_transport.local_address()?.to_string())];
    if std::env::args().nth(2).as_deref() == Some("quic") {
        config.bulk = Bulk::Quic;
    }
    let start = Instant::now();
    let near = Transport::start(config, Arc::new(Near(Mutex::new(sender))))?;
    std::fs::remove_dir_all(&folder)?;
    let Event::Up(session) = events.recv()? else {
        return Err("a frame before the session".into());
    };
    println!("session up after {:.1?}", start.elapsed());

    let frame = Bytes::from(vec![3; 4096]);
    for depth in [1, 1, 32] {
        run(&near, session, &events, &frame, depth, frames)?;
    }
    run(
        &near,
        session,
        &events,
        &Bytes::from(vec![3; 128 << 10]),
        8,
        frames / 8,
    )?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut times = Vec::new();
    for _ in 0..frames / 10 {
        let start = Instant::now();
        let answer = near.call(
            NodeId(2),
            1,
            Bytes::from_static(&[4; 256]),
            Duration::from_secs(1),
        );
        runtime.block_on(answer)?;
        times.push(start.elapsed());
    }
    times.sort();
    println!(
        "call of 256 B: p50 {:.1?}  p99 {:.1?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    println!("{:?}", near.stats(NodeId(2)));
    near.stop();
    far_transport.stop();
    Ok(())
}

//! What a durable mirrored write costs at least here: an empty NBD request, a round trip between two nodes, and a synced append; and how
//! fast link and disk are.

use crate::nbd::{Session as Client, request};
use anyhow::{Context, bail};
use isthmus_engine::{NodeId, VolumeId};
use isthmus_transport::{Answer, Authority, Config, Handler, Lane, SessionId, Transport};
use rustix::fs::OFlags;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

const LANE: Lane = Lane::Write(VolumeId(1));
const WITHIN: Duration = Duration::from_secs(10);
/// A record of one block in the journal: a page of head and table, and the block.
const APPEND_BYTES: usize = 8192;
/// What a resync sends in one piece, and how many it has under way.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_UNDER_WAY: usize = 16;

/// Medians, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// A request that asks nothing of the server.
    pub request_us: f64,
    /// 4 KiB to the other node, and a short answer back, over the transport.
    pub round_trip_us: f64,
    /// A direct, synced write into a file that has its space.
    pub append_us: f64,
}

impl Floor {
    /// All of it.
    #[must_use]
    pub fn sum_us(&self) -> f64 {
        self.request_us + self.round_trip_us + self.append_us
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// How long an empty request takes: a flush with nothing to flush.
///
/// # Errors
/// The server fails it.
pub fn empty_request(client: &mut Client, time: Duration) -> anyhow::Result<f64> {
    let end = Instant::now() + time;
    let mut times = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        client
            .call(request::FLUSH, 0, 0, 0, &[])
            .context("an empty request failed")?;
        times.push(start.elapsed());
    }
    Ok(median(times))
}

/// How long a synced append takes, in a file in `folder`.
///
/// # Errors
/// What the file system says.
pub fn append(folder: &Path, time: Duration) -> anyhow::Result<f64> {
    let path = folder.join("appended");
    let length = 64 << 20;
    let file = File::create(&path)?;
    file.write_all_at(&vec![0; length], 0)?;
    file.sync_all()?;
    let flags = OFlags::DIRECT | OFlags::DSYNC;
    let file = File::options()
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(&path)?;
    let memory = vec![7_u8; APPEND_BYTES + 4096];
    let start = memory.as_ptr().align_offset(4096);
    let (end, mut at, mut times) = (Instant::now() + time, 0, Vec::new());
    while Instant::now() < end {
        let begun = Instant::now();
        file.write_all_at(&memory[start..start + APPEND_BYTES], at)?;
        times.push(begun.elapsed());
        at = (at + APPEND_BYTES as u64) % length as u64;
    }
    Ok(median(times))
}

/// Answers each frame with a short one.
struct Far(OnceLock<Arc<Transport>>);

impl Handler for Far {
    fn session_up(&self, _peer: NodeId, _session: SessionId) {}
    fn session_down(&self, _peer: NodeId, _session: SessionId) {}
    fn frame(&self, peer: NodeId, session: SessionId, lane: Lane, frame: bytes::Bytes) {
        if let Some(transport) = self.0.get() {
            // The asker waits in vain when the session is over, and says so.
            let _ = transport.send(peer, session, lane, vec![frame.slice(..64)]);
        }
    }
    fn call(&self, _peer: NodeId, _service: u8, _request: bytes::Bytes) -> Answer {
        Box::pin(async { bytes::Bytes::new() })
    }
}

enum Event {
    Up(SessionId),
    Frame,
}

struct Near(mpsc::Sender<Event>);

impl Handler for Near {
    fn session_up(&self, _peer: NodeId, session: SessionId) {
        // The probe may be over.
        let _ = self.0.send(Event::Up(session));
    }
    fn session_down(&self, _peer: NodeId, _session: SessionId) {}
    fn frame(&self, _peer: NodeId, _session: SessionId, _lane: Lane, _frame: bytes::Bytes) {
        let _ = self.0.send(Event::Frame);
    }
    fn call(&self, _peer: NodeId, _service: u8, _request: bytes::Bytes) -> Answer {
        Box::pin(async { bytes::Bytes::new() })
    }
}

/// Two transports of this process, connected, each on its own threads.
struct Pair {
    near: Transport,
    far: Arc<Transport>,
    session: SessionId,
    events: mpsc::Receiver<Event>,
}

impl Pair {
    fn connect(folder: &Path) -> anyhow::Result<Pair> {
        let authority = Authority::create(folder, 1)?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config = Config::new(
            NodeId(2),
            1,
            any,
            authority.issue(folder, "far", NodeId(2))?,
        );
        // Never dialed: the other has the lower number.
        config.peers = vec![(NodeId(1), "127.0.0.1:1".to_owned())];
        let handler = Arc::new(Far(OnceLock::new()));
        let far = Arc::new(Transport::start(config, handler.clone())?);
        let _ = handler.0.set(Arc::clone(&far));
        let (sender, events) = mpsc::channel();
        let mut config = Config::new(
            NodeId(1),
            1,
            any,
            authority.issue(folder, "near", NodeId(1))?,
        );
        config.peers = vec![(NodeId(2), far.local_address()?.to_string())];
        let near = Transport::start(config, Arc::new(Near(sender)))?;
        let Event::Up(session) = events.recv_timeout(WITHIN)? else {
            bail!("a frame before the session");
        };
        Ok(Pair {
            near,
            far,
            session,
            events,
        })
    }

    fn stop(self) {
        self.near.stop();
        self.far.stop();
    }
}

/// How long 4 KiB take to another node, with a short answer back.
///
/// # Errors
/// The transport does not come up.
pub fn round_trip(folder: &Path, time: Duration) -> anyhow::Result<f64> {
    let pair = Pair::connect(folder)?;
    let block = bytes::Bytes::from(vec![3; 4096]);
    let (end, mut times) = (Instant::now() + time, Vec::new());
    while Instant::now() < end {
        let start = Instant::now();
        let parts = vec![block.slice(..64), block.clone()];
        pair.near.send(NodeId(2), pair.session, LANE, parts)?;
        pair.events.recv_timeout(WITHIN)?;
        times.push(start.elapsed());
    }
    pair.stop();
    Ok(median(times))
}

/// Bytes a second from one node to another in pieces as a resync sends them, several under way.
///
/// # Errors
/// The transport does not come up, or ends.
pub fn link_rate(folder: &Path, time: Duration) -> anyhow::Result<f64> {
    let pair = Pair::connect(folder)?;
    let piece = bytes::Bytes::from(vec![3; PIECE_BYTES]);
    let lane = Lane::Resync(VolumeId(1));
    let send = || {
        pair.near.send(
            NodeId(2),
            pair.session,
            lane,
            vec![piece.slice(..64), piece.clone()],
        )
    };
    for _ in 0..PIECES_UNDER_WAY {
        send()?;
    }
    let (start, mut arrived) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        pair.events.recv_timeout(WITHIN)?;
        arrived += 1;
        send()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    pair.stop();
    Ok(arrived as f64 * PIECE_BYTES as f64 / seconds)
}

/// Bytes a second that the disk takes, from the page cache, until they are durable.
///
/// # Errors
/// What the file system says.
pub fn disk_rate(folder: &Path, bytes: u64) -> anyhow::Result<f64> {
    let path = folder.join("written");
    let file = File::create(&path)?;
    let piece = vec![9; PIECE_BYTES];
    let start = Instant::now();
    for at in (0..bytes).step_by(PIECE_BYTES) {
        file.write_all_at(&piece, at)?;
    }
    file.sync_data()?;
    let rate = bytes as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

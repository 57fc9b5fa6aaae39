//! The way out. Over QUIC each lane has a queue and a writer task; a TLS connection has one queue for all its lanes, and `mixed` takes from it.
//! What has queued up goes out in one piece.

use crate::handler::{Lane, SendError};
use crate::session::Session;
use crate::wire::{
    Class, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, encode_frame_header, encode_lane,
    encode_mixed_header,
};
use bytes::Bytes;
use parking_lot::Mutex;
use quinn::WriteError;
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// What each queued frame counts for besides its bytes, so that frames without content are bounded, too.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// The lanes on which this node has sent in a session.
pub(crate) struct Lanes {
    open: Mutex<Open>,
    /// By class: the queue of a connection that carries many lanes.
    mixed: [Option<Arc<Queue>>; 3],
    queued_bytes: AtomicUsize,
    queued_bytes_max: usize,
}

struct Open {
    queues: BTreeMap<Lane, Arc<Queue>>,
    ended: bool,
}

/// Frames that wait to be sent.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    chunks: Vec<Bytes>,
    /// What the frames count for.
    bytes: usize,
    ended: bool,
}

impl Lanes {
    /// `mixed`: the classes whose connection carries many lanes.
    pub(crate) fn new(queued_bytes_max: usize, mixed: [bool; 3]) -> Lanes {
        Lanes {
            mixed: mixed.map(|mixed| mixed.then(Arc::default)),
            open: Mutex::new(Open {
                queues: BTreeMap::new(),
                ended: false,
            }),
            queued_bytes: AtomicUsize::new(0),
            queued_bytes_max,
        }
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Queues a frame; the first one of a lane starts its writer.
    pub(crate) fn push(
        &self,
        session: &Arc<Session>,
        runtime: &Handle,
        lane: Lane,
        parts: Vec<Bytes>,
    ) -> Result<(), SendError> {
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        if bytes > FRAME_BYTES_MAX {
            return Err(SendError::TooLong { bytes });
        }
        let mixed = &self.mixed[lane.class().index()];
        let queue = match mixed {
            Some(queue) => Arc::clone(queue),
            None => self.queue(session, runtime, lane)?,
        };
        let header = match mixed {
            Some(_) => Bytes::copy_from_slice(&encode_mixed_header(lane, bytes)),
            None => Bytes::copy_from_slice(&encode_frame_header(bytes)),
        };
        let counted = bytes + FRAME_HEADER_BYTES + FRAME_OVERHEAD_BYTES;
        if self.queued_bytes.fetch_add(counted, Ordering::Relaxed) + counted > self.queued_bytes_max
        {
            self.queued_bytes.fetch_sub(counted, Ordering::Relaxed);
            return Err(SendError::Full);
        }
        let mut waiting = queue.waiting.lock();
        if waiting.ended {
            return Err(SendError::SessionOver);
        }
        let first = waiting.chunks.is_empty();
        waiting.chunks.push(header);
        waiting
            .chunks
            .extend(parts.into_iter().filter(|part| !part.is_empty()));
        waiting.bytes += counted;
        drop(waiting);
        if first {
            queue.filled.notify_one();
        }
        let counters = &session.peer.counters;
        counters.frames_sent.fetch_add(1, Ordering::Relaxed);
        counters
            .bytes_sent
            .fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    fn queue(
        &self,
        session: &Arc<Session>,
        runtime: &Handle,
        lane: Lane,
    ) -> Result<Arc<Queue>, SendError> {
        let mut open = self.open.lock();
        if open.ended {
            return Err(SendError::SessionOver);
        }
        if let Some(queue) = open.queues.get(&lane) {
            return Ok(Arc::clone(queue));
        }
        let queue = Arc::new(Queue::default());
        open.queues.insert(lane, Arc::clone(&queue));
        drop(open);
        let (session, taken) = (Arc::clone(session), Arc::clone(&queue));
        runtime.spawn(async move {
            // An error here is the end of the connection, which the session notices itself.
            if let Err(error) = write_lane(&session, lane, &taken).await {
                tracing::debug!(peer = %session.peer.node, ?lane, %error, "lane ends");
            }
        });
        Ok(queue)
    }

    /// The queue of a class whose connection carries many lanes.
    pub(crate) fn mixed(&self, class: Class) -> Option<Arc<Queue>> {
        self.mixed[class.index()].clone()
    }

    /// Frames that count for so much are with the kernel: there is room for others.
    pub(crate) fn has_gone(&self, counted: usize) {
        self.queued_bytes.fetch_sub(counted, Ordering::Relaxed);
    }

    /// Drops what is queued, and lets the writers end.
    pub(crate) fn end(&self) {
        let mut open = self.open.lock();
        open.ended = true;
        for queue in mem::take(&mut open.queues).values() {
            queue.end();
        }
        for queue in self.mixed.iter().flatten() {
            queue.end();
        }
    }
}

impl Queue {
    /// Moves what waits to the end of `chunks`; gives what it counts for, nothing once the session is over.
    pub(crate) fn take(&self, chunks: &mut impl Extend<Bytes>) -> Option<usize> {
        let mut waiting = self.waiting.lock();
        if waiting.ended {
            return None;
        }
        chunks.extend(waiting.chunks.drain(..));
        Some(mem::take(&mut waiting.bytes))
    }

    /// Waits until there may be something to take.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    fn end(&self) {
        let mut waiting = self.waiting.lock();
        waiting.ended = true;
        waiting.chunks = Vec::new();
        drop(waiting);
        self.filled.notify_one();
    }
}

async fn write_lane(session: &Session, lane: Lane, queue: &Queue) -> Result<(), WriteError> {
    let connection = session.streams(lane.class());
    let mut stream = connection.open_uni().await?;
    if lane == Lane::Control {
        // Before the calls on the same connection. Fails only with the stream.
        let _ = stream.set_priority(1);
    }
    let mut header = Some(Bytes::copy_from_slice(&encode_lane(lane)));
    let mut chunks = Vec::new();
    loop {
        chunks.extend(header.take());
        let Some(counted) = queue.take(&mut chunks) else {
            return Ok(());
        };
        if chunks.is_empty() {
            queue.filled().await;
            continue;
        }
        stream.write_all_chunks(&mut chunks).await?;
        session.lanes.has_gone(counted);
        chunks.clear();
    }
}

//! The way out: a queue and one writer task for each lane. What has queued up goes to the stream in one piece.

use crate::handler::{Lane, SendError};
use crate::session::Session;
use crate::wire::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, encode_frame_header, encode_lane};
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
    queued_bytes: AtomicUsize,
    queued_bytes_max: usize,
}

struct Open {
    queues: BTreeMap<Lane, Arc<Queue>>,
    ended: bool,
}

#[derive(Default)]
struct Queue {
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
    pub(crate) fn new(queued_bytes_max: usize) -> Lanes {
        Lanes {
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
        let queue = self.queue(session, runtime, lane)?;
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
        waiting
            .chunks
            .push(Bytes::copy_from_slice(&encode_frame_header(bytes)));
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

    /// Drops what is queued, and lets the writers end.
    pub(crate) fn end(&self) {
        let mut open = self.open.lock();
        open.ended = true;
        for queue in mem::take(&mut open.queues).into_values() {
            let mut waiting = queue.waiting.lock();
            waiting.ended = true;
            waiting.chunks = Vec::new();
            drop(waiting);
            queue.filled.notify_one();
        }
    }
}

async fn write_lane(session: &Session, lane: Lane, queue: &Queue) -> Result<(), WriteError> {
    let mut stream = session.connection(lane.class()).open_uni().await?;
    if lane == Lane::Control {
        // Before the calls on the same connection. Fails only with the stream.
        let _ = stream.set_priority(1);
    }
    let mut header = Some(Bytes::copy_from_slice(&encode_lane(lane)));
    let mut chunks = Vec::new();
    loop {
        chunks.extend(header.take());
        let bytes = {
            let mut waiting = queue.waiting.lock();
            if waiting.ended {
                return Ok(());
            }
            chunks.append(&mut waiting.chunks);
            mem::take(&mut waiting.bytes)
        };
        if chunks.is_empty() {
            queue.filled.notified().await;
            continue;
        }
        stream.write_all_chunks(&mut chunks).await?;
        session
            .lanes
            .queued_bytes
            .fetch_sub(bytes, Ordering::Relaxed);
        chunks.clear();
    }
}

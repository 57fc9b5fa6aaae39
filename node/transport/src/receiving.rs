//! The way in: one reader task for each lane, which cuts the stream into frames and hands them on.

use crate::session::Session;
use crate::wire::Class;
use crate::wire::{LANE_BYTES, Next, Violation, decode_lane, next_frame};
use bytes::{Buf, BytesMut};
use quinn::RecvStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

/// A buffer in which frames arrive; frames up to it are cut out of it without a copy.
const BUFFER_BYTES: usize = 64 << 10;

/// With less room than this left in its buffer, a reader takes a new one.
const ROOM_BYTES_MIN: usize = 8 << 10;

/// Announced bytes of unfinished frames and calls (those beyond [`BUFFER_BYTES`]) that a session may have.
const UNFINISHED_BYTES_MAX: usize = 512 << 20;

/// Counts what a peer has announced and not yet sent in full.
pub(crate) struct Budget {
    left: AtomicUsize,
}

/// A part of a budget, given back when dropped.
pub(crate) struct Share<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new() -> Budget {
        Budget {
            left: AtomicUsize::new(UNFINISHED_BYTES_MAX),
        }
    }

    /// Takes so many bytes; those up to [`BUFFER_BYTES`] are free, being bounded by the number of streams.
    pub(crate) fn take(&self, bytes: usize) -> Result<Share<'_>, Violation> {
        let bytes = bytes.saturating_sub(BUFFER_BYTES);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .map_err(|_| Violation::TooMuchUnfinished)?;
        Ok(Share {
            budget: self,
            bytes,
        })
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Takes the lanes that the peer opens on one connection, until the connection ends.
pub(crate) async fn accept_lanes(session: Arc<Session>, class: Class) {
    let mut readers = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = session.streams(class).accept_uni() => stream,
            Some(_) = readers.join_next() => continue,
        };
        let Ok(stream) = stream else { return };
        let session = Arc::clone(&session);
        readers.spawn(async move {
            if let Err(violation) = read_lane(&session, class, stream).await {
                session.fail(violation);
            }
        });
    }
}

/// Reads frames until the stream or the session ends.
async fn read_lane(
    session: &Session,
    class: Class,
    mut stream: RecvStream,
) -> Result<(), Violation> {
    let mut buffer = BytesMut::with_capacity(ROOM_BYTES_MIN);
    while buffer.len() < LANE_BYTES {
        if !fill(&mut stream, &mut buffer).await {
            return Ok(());
        }
    }
    let mut header = [0; LANE_BYTES];
    buffer.copy_to_slice(&mut header);
    let lane = decode_lane(&header)?;
    session.receive_on(class, lane)?;
    let mut unfinished: Option<Share<'_>> = None;
    loop {
        let missing = loop {
            match next_frame(&mut buffer)? {
                Next::Frame(frame) => {
                    unfinished = None;
                    if !session.peer.deliver(session.id, lane, frame) {
                        return Ok(());
                    }
                }
                Next::Missing { bytes, frame_bytes } => {
                    if unfinished.is_none() && frame_bytes > BUFFER_BYTES {
                        unfinished = Some(session.budget.take(frame_bytes)?);
                    }
                    break bytes;
                }
            }
        };
        let room = buffer.capacity() - buffer.len();
        if room < missing {
            buffer.reserve(missing.max(BUFFER_BYTES));
        } else if room < ROOM_BYTES_MIN {
            buffer.reserve(BUFFER_BYTES);
        }
        if !fill(&mut stream, &mut buffer).await {
            return if buffer.is_empty() {
                Ok(())
            } else {
                Err(Violation::Truncated)
            };
        }
    }
}

/// Reads what is there, at least one byte; false at the end of the stream or of the connection.
async fn fill(stream: &mut RecvStream, buffer: &mut BytesMut) -> bool {
    matches!(stream.read_buf(buffer).await, Ok(count) if count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unfinished_is_bounded_and_given_back() {
        let budget = Budget::new();
        let large = UNFINISHED_BYTES_MAX / 2 + BUFFER_BYTES;
        let first = budget.take(large).unwrap();
        let _second = budget.take(large).unwrap();
        assert!(
            budget.take(BUFFER_BYTES).is_ok(),
            "what fits a buffer is free"
        );
        assert_eq!(
            budget.take(BUFFER_BYTES + 1).err(),
            Some(Violation::TooMuchUnfinished)
        );
        drop(first);
        assert!(budget.take(large).is_ok());
    }

    #[test]
    fn frames_are_cut_at_any_byte() {
        let mut stream = Vec::new();
        for length in [0_usize, 1, 300] {
            stream.extend(crate::wire::encode_frame_header(length));
            stream.extend(vec![length as u8; length]);
        }
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for byte in stream {
            buffer.extend_from_slice(&[byte]);
            while let Next::Frame(frame) = next_frame(&mut buffer).unwrap() {
                frames.push(frame.len());
            }
        }
        assert_eq!((frames, buffer.len()), (vec![0, 1, 300], 0));
    }
}

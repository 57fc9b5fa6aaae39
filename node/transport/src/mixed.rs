//! One TLS connection that carries the frames of many lanes: one task sends all that has queued up in one go, and takes what comes.

use crate::sending::Queue;
use crate::session::Session;
use crate::tls::{SEALED_BYTES_MAX, TlsSocket};
use crate::wire::{Class, NextMixed, Violation, next_mixed_frame};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;

/// Chunks are put together up to so many bytes, which is what a TLS record carries.
const TOGETHER_BYTES_MAX: usize = 16 << 10;

/// Why a connection came to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("{0}")]
    Lost(#[from] io::Error),
    #[error("{0}")]
    Violation(#[from] Violation),
    #[error("the other side closed it")]
    Closed,
    #[error("the session ended")]
    Over,
}

/// What was taken from the queue and is not sealed yet.
#[derive(Default)]
struct Taken {
    chunks: VecDeque<Bytes>,
    /// What its frames count for.
    counted: usize,
}

/// Moves frames both ways until the connection or the session ends.
pub(crate) async fn carry(
    session: &Session,
    class: Class,
    mut tls: Box<TlsSocket>,
    queue: &Queue,
) -> End {
    let mut taken = Taken::default();
    let mut together = Vec::new();
    let retransmits = &session.retransmits[class.index()];
    loop {
        retransmits.look_if_asked(tls.socket());
        let turn = deliver(session, class, &mut tls)
            .and_then(|()| send(session, &mut tls, queue, &mut taken, &mut together));
        if let Err(end) = turn {
            return end;
        }
        let sending = tls.is_sending();
        let came = tokio::select! {
            biased;
            came = tls.exchange() => came,
            () = queue.filled(), if !sending => Ok(true),
        };
        match came {
            Ok(true) => {}
            Ok(false) => return End::Closed,
            Err(error) => return End::Lost(error),
        }
    }
}

/// Hands on the frames that are whole.
fn deliver(session: &Session, class: Class, tls: &mut TlsSocket) -> Result<(), End> {
    loop {
        match next_mixed_frame(&mut tls.plain)? {
            NextMixed::Frame(lane, frame) => {
                if lane.class() != class {
                    return Err(Violation::WrongConnection.into());
                }
                if !session.peer.deliver(session.id, lane, frame) {
                    return Err(End::Over);
                }
            }
            NextMixed::Missing { bytes } => {
                // At most one frame is unfinished here, so that what a peer can announce is bounded.
                tls.plain.reserve(bytes);
                return Ok(());
            }
        }
    }
}

/// Seals and sends what has queued up, as long as the kernel takes it.
fn send(
    session: &Session,
    tls: &mut TlsSocket,
    queue: &Queue,
    taken: &mut Taken,
    together: &mut Vec<u8>,
) -> Result<(), End> {
    loop {
        tls.send_at_once()?;
        if tls.is_sending() {
            return Ok(());
        }
        if taken.chunks.is_empty() {
            session.lanes.has_gone(std::mem::take(&mut taken.counted));
            let Some(counted) = queue.take(&mut taken.chunks) else {
                return Err(End::Over);
            };
            taken.counted = counted;
            if taken.chunks.is_empty() {
                return Ok(());
            }
        }
        seal(tls, &mut taken.chunks, together)?;
    }
}

/// Seals the next chunks: a long one as it is, short ones together.
fn seal(
    tls: &mut TlsSocket,
    chunks: &mut VecDeque<Bytes>,
    together: &mut Vec<u8>,
) -> io::Result<()> {
    let mut sealed = 0;
    while sealed < SEALED_BYTES_MAX
        && let Some(chunk) = chunks.pop_front()
    {
        if together.len() + chunk.len() <= TOGETHER_BYTES_MAX {
            together.extend_from_slice(&chunk);
            continue;
        }
        sealed += together.len() + chunk.len();
        if !together.is_empty() {
            tls.seal(together)?;
            together.clear();
        }
        tls.seal(&chunk)?;
    }
    if !together.is_empty() {
        tls.seal(together)?;
        together.clear();
    }
    Ok(())
}

//! A tunnel: a stream of bytes to a peer beside the lanes of its session, over a TLS connection of its own. Whoever has a session with a
//! peer may open one, whichever of the two dialed. It ends with the session at the latest, on either side.
//!
//! TCP holds up who sends more than the other side takes: neither side keeps more than a few hundred KiB.

use crate::peer::Peer;
use crate::session::Session;
use crate::tls::{SEALED_BYTES_MAX, TlsSocket};
use bytes::Buf;
use rustix::net::sockopt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Short pieces that are written at once are put together up to so many bytes.
const TOGETHER_BYTES_MAX: usize = 64 << 10;

/// A stream of bytes to a peer. What is written may wait here until it is flushed.
pub struct Tunnel {
    socket: Box<TlsSocket>,
    /// Who reads and who writes may be different tasks, and each has to be woken.
    over_for_reads: Over,
    over_for_writes: Over,
    together: Vec<u8>,
}

/// Done once the session is over; none from then on.
struct Over(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Over {
    fn of(session: &Session) -> Over {
        Over(Some(Box::pin(session.over())))
    }

    /// # Errors
    /// The session is over.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let is_over = match &mut self.0 {
            Some(over) => over.as_mut().poll(context).is_ready(),
            None => true,
        };
        if is_over {
            self.0 = None;
            let why = "the session with the peer is over";
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why));
        }
        Ok(())
    }
}

impl Tunnel {
    /// A tunnel over this connection to the peer; none when there is no session with it.
    pub(crate) fn new(peer: &Peer, socket: TlsSocket) -> Option<Tunnel> {
        let session: Arc<Session> = peer.session()?;
        // Who is at its far end may take nothing for as long as it likes, and TCP calls that unanswered; whether the peer is there is the
        // session's to say.
        if let Err(error) = sockopt::set_tcp_user_timeout(socket.socket(), 0) {
            tracing::debug!(%error, "a tunnel keeps the limit of the lanes for what is not taken");
        }
        Some(Tunnel {
            socket: Box::new(socket),
            over_for_reads: Over::of(&session),
            over_for_writes: Over::of(&session),
            together: Vec::new(),
        })
    }

    /// Ready once the kernel has all that was written.
    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.over_for_writes.check(context)?;
        self.socket.poll_send(context)
    }

    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        let plain = &plain[..plain.len().min(SEALED_BYTES_MAX)];
        self.socket.seal(plain)?;
        self.socket.send_at_once()?;
        Ok(plain.len())
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.over_for_reads.check(context)?;
        if !ready!(this.socket.poll_plain(context))? {
            return Poll::Ready(Ok(()));
        }
        let plain = &mut this.socket.plain;
        let bytes = plain.len().min(room.remaining());
        room.put_slice(&plain[..bytes]);
        plain.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(context))?;
        Poll::Ready(self.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(context))?;
        let this = &mut *self;
        let first = pieces.iter().find(|piece| !piece.is_empty());
        if let Some(first) = first.filter(|piece| piece.len() >= TOGETHER_BYTES_MAX) {
            return Poll::Ready(this.write(first));
        }
        let mut together = std::mem::take(&mut this.together);
        together.clear();
        for piece in pieces {
            let room = TOGETHER_BYTES_MAX - together.len();
            together.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let written = this.write(&together);
        this.together = together;
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(context))?;
        self.socket.poll_shutdown(context)
    }
}

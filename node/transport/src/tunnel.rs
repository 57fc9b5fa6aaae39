//! A tunnel: a stream of bytes to a peer beside the lanes of its session, over a TLS connection of its own. Whoever has a session with a
//! peer may open one, whichever of the two dialed. It ends with the session at the latest, on either side.
//!
//! TCP holds up who sends more than the other side takes: neither side keeps more than a few hundred KiB.

use crate::peer::Peer;
use crate::session::Session;
use crate::tls::{SEALED_BYTES_MAX, TlsSocket};
use bytes::Buf;
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
    /// Done once the session is over; none from then on.
    session: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    together: Vec<u8>,
}

impl Tunnel {
    /// A tunnel over this connection to the peer; none when there is no session with it.
    pub(crate) fn new(peer: &Peer, socket: TlsSocket) -> Option<Tunnel> {
        let session: Arc<Session> = peer.session()?;
        let over = session.over();
        drop(session);
        Some(Tunnel {
            socket: Box::new(socket),
            session: Some(Box::pin(over)),
            together: Vec::new(),
        })
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
        let is_over = match &mut this.session {
            Some(session) => session.as_mut().poll(context).is_ready(),
            None => true,
        };
        if is_over {
            this.session = None;
            let why = "the session with the peer is over";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
        }
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
        ready!(self.socket.poll_send(context))?;
        Poll::Ready(self.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_send(context))?;
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
        self.socket.poll_send(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.socket.poll_send(context))?;
        self.socket.poll_shutdown(context)
    }
}

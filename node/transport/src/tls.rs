//! TLS 1.3 over one TCP socket: bytes sealed into what goes out, bytes opened from what came in.
//!
//! The records are rustls's ("unbuffered" interface); the buffers are ours, so that one read takes all that the socket has and one write
//! sends all that was sealed. A stream that is cut off is the end of its session, whoever cut it: no closing record is needed.

use bytes::{Buf, BytesMut};
use rustix::net::sockopt;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

/// Taken from the socket at once, at most. A TLS record has some 16 KiB; a flight of a handshake may have 64 KiB.
const READ_BYTES: usize = 128 << 10;
/// The most that one record adds to what it carries, generously; a change of keys may come before it.
const RECORD_OVERHEAD_BYTES: usize = 256;
/// Room for sealed bytes that is kept for the next ones.
const KEPT_BYTES_MAX: usize = 512 << 10;
/// A connection that said nothing for so long says that it is there.
const KEPT_ALIVE_AFTER: Duration = Duration::from_secs(30);
/// With so many bytes sealed, the rest waits until these are with the kernel.
pub(crate) const SEALED_BYTES_MAX: usize = 256 << 10;
/// What a record carries.
const RECORD_BYTES: usize = 16 << 10;

enum Records {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What rustls is ready for.
enum Next {
    /// Look again: something was done.
    Again,
    /// All that came is opened, and what was to be sealed is.
    Idle,
    /// The handshake needs more from the peer.
    Blocked,
    /// The peer sends no more.
    Closed,
}

/// A TLS connection of which both ends are known.
pub(crate) struct TlsSocket {
    socket: TcpStream,
    records: Records,
    /// Came, and is not opened yet.
    incoming: BytesMut,
    /// Opened, and not taken yet.
    pub(crate) plain: BytesMut,
    outgoing: Outgoing,
}

/// What was sealed and is not sent yet.
#[derive(Default)]
struct Outgoing {
    /// Longer than what is in it: bytes once there are used again without being cleared.
    bytes: Vec<u8>,
    filled: usize,
    sent: usize,
}

impl TlsSocket {
    /// Connects to `to` (from the address `from`, unless that is any) and shakes hands with whoever must have the name `name`.
    pub(crate) async fn connect(
        from: IpAddr,
        to: SocketAddr,
        name: &str,
        config: &Arc<rustls::ClientConfig>,
        unanswered_for: Duration,
    ) -> io::Result<TlsSocket> {
        let socket = if to.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if !from.is_unspecified() && from.is_ipv4() == to.is_ipv4() {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        let stream = socket.connect(to).await?;
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let records = UnbufferedClientConnection::new(Arc::clone(config), name).map_err(refused)?;
        TlsSocket::shake_hands(stream, Records::Client(records), unanswered_for).await
    }

    /// Shakes hands with whoever connected.
    pub(crate) async fn accept(
        stream: TcpStream,
        config: &Arc<rustls::ServerConfig>,
        unanswered_for: Duration,
    ) -> io::Result<TlsSocket> {
        let records = UnbufferedServerConnection::new(Arc::clone(config)).map_err(refused)?;
        TlsSocket::shake_hands(stream, Records::Server(records), unanswered_for).await
    }

    async fn shake_hands(
        socket: TcpStream,
        records: Records,
        unanswered_for: Duration,
    ) -> io::Result<TlsSocket> {
        socket.set_nodelay(true)?;
        let limit = u32::try_from(unanswered_for.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(&socket, limit)?;
        // For what stands between the sites and forgets connections that say nothing.
        sockopt::set_socket_keepalive(&socket, true)?;
        sockopt::set_tcp_keepidle(&socket, KEPT_ALIVE_AFTER)?;
        let mut tls = TlsSocket {
            socket,
            records,
            incoming: BytesMut::new(),
            plain: BytesMut::new(),
            outgoing: Outgoing::default(),
        };
        while tls.is_shaking_hands() {
            tls.drive(&[])?;
            tls.flush().await?;
            if tls.is_shaking_hands() && !tls.exchange().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        tls.flush().await?;
        Ok(tls)
    }

    fn is_shaking_hands(&self) -> bool {
        match &self.records {
            Records::Client(records) => records.is_handshaking(),
            Records::Server(records) => records.is_handshaking(),
        }
    }

    /// The certificates of the other end, which TLS has verified.
    pub(crate) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        let certificates = match &self.records {
            Records::Client(records) => records.peer_certificates(),
            Records::Server(records) => records.peer_certificates(),
        };
        certificates.unwrap_or_default()
    }

    /// What both ends have agreed to speak.
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        match &self.records {
            Records::Client(records) => records.alpn_protocol(),
            Records::Server(records) => records.alpn_protocol(),
        }
    }

    /// What carries it.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Seals bytes into what is to be sent.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        self.drive(plain)
    }

    /// Whether something sealed is not sent yet.
    pub(crate) fn is_sending(&self) -> bool {
        !self.outgoing.rest().is_empty()
    }

    /// Sends as much as the socket takes at once.
    pub(crate) fn send_at_once(&mut self) -> io::Result<()> {
        while self.is_sending() {
            match self.socket.try_write(self.outgoing.rest()) {
                Ok(bytes) => self.outgoing.has_sent(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends all that is sealed.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while self.is_sending() {
            self.socket.writable().await?;
            self.send_at_once()?;
        }
        Ok(())
    }

    /// Waits until something came or went, and opens what came; false when nothing comes any more.
    /// Given up, it has lost nothing.
    pub(crate) async fn exchange(&mut self) -> io::Result<bool> {
        self.incoming.reserve(READ_BYTES);
        let came = std::future::poll_fn(|context| self.poll(context)).await?;
        if came == Some(0) {
            return Ok(false);
        }
        if came.is_some() {
            self.open_what_came()?;
        }
        Ok(true)
    }

    fn open_what_came(&mut self) -> io::Result<()> {
        self.drive(&[])?;
        // Rustls has looked at all of it: what is left is part of one record, or of one flight of a handshake.
        if self.incoming.len() >= READ_BYTES {
            return Err(io::Error::other("a TLS record without an end"));
        }
        Ok(())
    }

    /// Ready as soon as something is opened; with false when nothing comes any more. Reads nothing before what is opened was taken.
    pub(crate) fn poll_plain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.plain.is_empty() {
            self.incoming.reserve(READ_BYTES);
            if ready!(self.poll_incoming(context))? == 0 {
                return Poll::Ready(Ok(false));
            }
            self.open_what_came()?;
        }
        Poll::Ready(Ok(true))
    }

    /// Ready when all that is sealed is with the kernel.
    pub(crate) fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.is_sending() {
            let rest = self.outgoing.rest();
            let bytes = ready!(Pin::new(&mut self.socket).poll_write(context, rest))?;
            self.outgoing.has_sent(bytes);
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the other end that nothing follows.
    pub(crate) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    /// Ready with the bytes that came, if any did, or as soon as something was sent.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<usize>>> {
        let mut progress = Poll::Pending;
        if self.is_sending() {
            let rest = self.outgoing.rest();
            if let Poll::Ready(bytes) = Pin::new(&mut self.socket).poll_write(context, rest) {
                self.outgoing.has_sent(bytes?);
                progress = Poll::Ready(Ok(None));
            }
        }
        match self.poll_incoming(context) {
            Poll::Ready(bytes) => Poll::Ready(bytes.map(Some)),
            Poll::Pending => progress,
        }
    }

    /// Ready with how many bytes came.
    fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::uninit(self.incoming.spare_capacity_mut());
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut room))?;
        let bytes = room.filled().len();
        // SAFETY: so many bytes of the spare capacity were just filled.
        unsafe { self.incoming.set_len(self.incoming.len() + bytes) };
        Poll::Ready(Ok(bytes))
    }

    /// Waits until at least so many bytes are opened.
    pub(crate) async fn fill(&mut self, bytes: usize) -> io::Result<()> {
        while self.plain.len() < bytes {
            if !self.exchange().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Opens what came, and seals `seal` once all of that is done.
    fn drive(&mut self, seal: &[u8]) -> io::Result<()> {
        loop {
            let (plain, outgoing) = (&mut self.plain, &mut self.outgoing);
            let incoming = &mut self.incoming[..];
            let (discard, next) = match &mut self.records {
                Records::Client(records) => {
                    act(records.process_tls_records(incoming), seal, plain, outgoing)
                }
                Records::Server(records) => {
                    act(records.process_tls_records(incoming), seal, plain, outgoing)
                }
            };
            self.incoming.advance(discard);
            match next.map_err(refused)? {
                Next::Again => {}
                Next::Blocked if seal.is_empty() => return Ok(()),
                Next::Idle => return Ok(()),
                Next::Closed | Next::Blocked => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

fn refused(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Does what rustls is ready for; with how many bytes of what came are done with.
fn act<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    seal: &[u8],
    plain: &mut BytesMut,
    outgoing: &mut Outgoing,
) -> (usize, Result<Next, rustls::Error>) {
    let mut discard = status.discard;
    let next = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Next::Again),
                Some(Err(error)) => break Err(error),
                Some(Ok(record)) => {
                    discard += record.discard;
                    if plain.capacity() - plain.len() < record.payload.len() {
                        plain.reserve(READ_BYTES);
                    }
                    plain.extend_from_slice(record.payload);
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let room = RECORD_BYTES + RECORD_OVERHEAD_BYTES;
            outgoing
                .append(room, |room| match data.encode(room) {
                    Ok(bytes) => Ok(bytes),
                    Err(EncodeError::InsufficientSize(size)) => Err(Some(size.required_size)),
                    Err(EncodeError::AlreadyEncoded) => Err(None),
                })
                .map(|()| Next::Again)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Next::Again)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) if !seal.is_empty() => {
            let records = seal.len().div_ceil(RECORD_BYTES);
            let room = seal.len() + (records + 1) * RECORD_OVERHEAD_BYTES;
            outgoing
                .append(room, |room| match traffic.encrypt(seal, room) {
                    Ok(bytes) => Ok(bytes),
                    Err(EncryptError::InsufficientSize(size)) => Err(Some(size.required_size)),
                    Err(EncryptError::EncryptExhausted) => Err(None),
                })
                .map(|()| Next::Idle)
        }
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Next::Idle),
        Ok(ConnectionState::BlockedHandshake) => Ok(Next::Blocked),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Next::Closed),
        // Early data is switched off, and later kinds are unknown.
        Ok(_) => Err(rustls::Error::General("an unknown state".to_owned())),
    };
    (discard, next)
}

impl Outgoing {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..self.filled]
    }

    fn has_sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent == self.filled {
            (self.filled, self.sent) = (0, 0);
            if self.bytes.len() > KEPT_BYTES_MAX {
                self.bytes.truncate(KEPT_BYTES_MAX);
                self.bytes.shrink_to_fit();
            }
        }
    }

    /// Lets `fill` put bytes behind those that are there, in `room` or in as many as it says that it needs.
    fn append(
        &mut self,
        mut room: usize,
        mut fill: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
    ) -> Result<(), rustls::Error> {
        loop {
            let end = self.filled + room;
            if self.bytes.len() < end {
                self.bytes.resize(end, 0);
            }
            match fill(&mut self.bytes[self.filled..end]) {
                Ok(bytes) => {
                    self.filled += bytes;
                    return Ok(());
                }
                Err(Some(needed)) if needed > room => room = needed,
                Err(_) => return Err(rustls::Error::EncryptError),
            }
        }
    }
}

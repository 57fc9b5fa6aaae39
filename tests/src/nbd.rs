//! A small NBD client: fixed newstyle, GO and INFO, simple replies, as many requests in flight as its user sends.
//!
//! It blocks, and gives up on a silent server after [`PATIENCE`].

pub mod endpoint;

use endpoint::Endpoint;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long the client waits for a server that says nothing.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Requests, as the protocol numbers them.
pub mod request {
    /// Read.
    pub const READ: u16 = 0;
    /// Write.
    pub const WRITE: u16 = 1;
    /// Go away.
    pub const DISCONNECT: u16 = 2;
    /// Make what was acknowledged durable.
    pub const FLUSH: u16 = 3;
    /// Give space back.
    pub const TRIM: u16 = 4;
    /// Zeros without sending them.
    pub const WRITE_ZEROES: u16 = 6;
}

/// The flag of a request that must be durable when it is answered.
pub const FLAG_FUA: u16 = 1;

const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const OPTION_REPLY_BYTES_MAX: u32 = 64 << 10;

/// Why a volume could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The connection failed.
    Connection(io::Error),
    /// The server refused.
    Refused {
        /// The protocol's number of the refusal.
        kind: u32,
        /// In words.
        message: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Connection(error) => write!(out, "connection: {error}"),
            OpenError::Refused { kind, message } => write!(out, "refused ({kind:#x}): {message}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Connection(error)
    }
}

/// Why a request was not done.
#[derive(Debug)]
pub enum RequestError {
    /// The connection failed.
    Connection(io::Error),
    /// The server answered with this error number.
    Answered(u32),
}

impl fmt::Display for RequestError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Connection(error) => write!(out, "connection: {error}"),
            RequestError::Answered(error) => write!(out, "answered with error {error}"),
        }
    }
}

impl std::error::Error for RequestError {}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> RequestError {
        RequestError::Connection(error)
    }
}

/// A reply without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 0 or an error number.
    pub error: u32,
    /// The request's.
    pub cookie: u64,
}

/// An open volume.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    /// The volume's size in bytes.
    pub bytes: u64,
    /// What the server can do.
    pub flags: u16,
    cookie: u64,
}

impl Session {
    /// Opens a volume for use: this promotes the node's replica where that is allowed.
    ///
    /// # Errors
    /// The server refused, or the connection failed.
    pub fn open(endpoint: &Endpoint, export: &str) -> Result<Session, OpenError> {
        let (stream, bytes, flags) = negotiate(endpoint, export, OPTION_GO)?;
        Ok(Session {
            stream,
            bytes,
            flags,
            cookie: 1 << 63,
        })
    }

    /// A handle to close the connection with, while another thread waits on it.
    ///
    /// # Errors
    /// When the process has too many files open.
    pub fn handle(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// How long to wait from now on for a server that says nothing.
    ///
    /// # Errors
    /// The socket takes no time-out.
    pub fn set_patience(&mut self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))
    }

    /// Sends a request; `data` for writes only, `bytes` is the length otherwise.
    ///
    /// # Errors
    /// The connection failed.
    pub fn send(
        &mut self,
        kind: u16,
        flags: u16,
        cookie: u64,
        offset: u64,
        bytes: u32,
        data: &[u8],
    ) -> io::Result<()> {
        let mut message = Vec::with_capacity(28 + data.len());
        message.extend_from_slice(&0x2560_9513_u32.to_be_bytes());
        message.extend_from_slice(&flags.to_be_bytes());
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&cookie.to_be_bytes());
        message.extend_from_slice(&offset.to_be_bytes());
        message.extend_from_slice(&bytes.to_be_bytes());
        message.extend_from_slice(data);
        self.stream.write_all(&message)
    }

    /// The next reply. After a read without error its data follow: [`Session::receive_data`].
    ///
    /// # Errors
    /// The connection failed, or the server does not speak the protocol.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let mut bytes = [0; 16];
        self.stream.read_exact(&mut bytes)?;
        let mut input = &bytes[..];
        expect(take_u32(&mut input), 0x6744_6698, "a simple reply")?;
        Ok(Reply {
            error: take_u32(&mut input),
            cookie: take_u64(&mut input),
        })
    }

    /// The data of a read.
    ///
    /// # Errors
    /// The connection failed.
    pub fn receive_data(&mut self, data: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(data)
    }

    /// Reads, with nothing else in flight.
    ///
    /// # Errors
    /// The connection failed or the server answered with an error.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), RequestError> {
        self.call(request::READ, 0, offset, data.len() as u32, &[])?;
        Ok(self.receive_data(data)?)
    }

    /// Writes, with nothing else in flight.
    ///
    /// # Errors
    /// The connection failed or the server answered with an error.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), RequestError> {
        self.call(request::WRITE, 0, offset, data.len() as u32, data)
    }

    /// Any request without data in its reply, with nothing else in flight.
    ///
    /// # Errors
    /// The connection failed or the server answered with an error.
    pub fn call(
        &mut self,
        kind: u16,
        flags: u16,
        offset: u64,
        bytes: u32,
        data: &[u8],
    ) -> Result<(), RequestError> {
        self.cookie += 1;
        let cookie = self.cookie;
        self.send(kind, flags, cookie, offset, bytes, data)?;
        let reply = self.receive()?;
        if reply.cookie != cookie {
            return Err(RequestError::Connection(io::Error::other(
                "a reply to another request",
            )));
        }
        if reply.error == 0 {
            Ok(())
        } else {
            Err(RequestError::Answered(reply.error))
        }
    }

    /// Goes away politely.
    pub fn close(mut self) {
        // A server that is gone already has nothing to be told.
        let _ = self.send(request::DISCONNECT, 0, 0, 0, 0, &[]);
        let _ = self.stream.shutdown(Shutdown::Write);
        let mut rest = [0; 64];
        while matches!(self.stream.read(&mut rest), Ok(1..)) {}
    }
}

/// Asks about a volume without opening it: this never promotes.
///
/// # Errors
/// The server refused, or the connection failed.
pub fn info(endpoint: &Endpoint, export: &str) -> Result<u64, OpenError> {
    negotiate(endpoint, export, OPTION_INFO).map(|(_, bytes, _)| bytes)
}

fn negotiate(
    endpoint: &Endpoint,
    export: &str,
    option: u32,
) -> Result<(TcpStream, u64, u16), OpenError> {
    let mut stream = endpoint.connect()?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting)?;
    if !greeting.starts_with(b"NBDMAGICIHAVEOPT") {
        return Err(io::Error::other("no NBD server").into());
    }
    // Fixed newstyle, no padding.
    let mut message = 3_u32.to_be_bytes().to_vec();
    message.extend_from_slice(b"IHAVEOPT");
    message.extend_from_slice(&option.to_be_bytes());
    message.extend_from_slice(&(export.len() as u32 + 6).to_be_bytes());
    message.extend_from_slice(&(export.len() as u32).to_be_bytes());
    message.extend_from_slice(export.as_bytes());
    message.extend_from_slice(&0_u16.to_be_bytes());
    stream.write_all(&message)?;
    let (mut bytes, mut flags) = (0, 0);
    loop {
        let mut head = [0; 20];
        stream.read_exact(&mut head)?;
        let mut input = &head[..];
        if take_u64(&mut input) != 0x0003_e889_0455_65a9 || take_u32(&mut input) != option {
            return Err(io::Error::other("no reply to the option").into());
        }
        let (kind, length) = (take_u32(&mut input), take_u32(&mut input));
        if length > OPTION_REPLY_BYTES_MAX {
            return Err(io::Error::other("an option reply of an absurd length").into());
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data)?;
        match kind {
            REPLY_ACK => return Ok((stream, bytes, flags)),
            REPLY_INFO if data.len() == 12 && data[..2] == [0, 0] => {
                let mut input = &data[2..];
                bytes = take_u64(&mut input);
                flags = u16::from_be_bytes([input[0], input[1]]);
            }
            REPLY_INFO => {}
            kind => {
                return Err(OpenError::Refused {
                    kind,
                    message: String::from_utf8_lossy(&data).into_owned(),
                });
            }
        }
    }
}

fn expect(found: u32, wanted: u32, what: &str) -> io::Result<()> {
    if found == wanted {
        Ok(())
    } else {
        Err(io::Error::other(format!("{found:#x} is not {what}")))
    }
}

fn take_u32(input: &mut &[u8]) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&input[..4]);
    *input = &input[4..];
    u32::from_be_bytes(word)
}

fn take_u64(input: &mut &[u8]) -> u64 {
    (u64::from(take_u32(input)) << 32) | u64::from(take_u32(input))
}

//! A small NBD client: fixed newstyle, GO, simple replies. It blocks.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A server may have to promote its replica before it answers.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
const OPTION_REPLY_BYTES_MAX: u32 = 64 << 10;

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// Requests, as the protocol numbers them.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write.
    pub const WRITE: u16 = 1;
    /// Go away.
    pub const DISCONNECT: u16 = 2;
    /// Make what was answered durable.
    pub const FLUSH: u16 = 3;
    /// Zeroes without sending them.
    pub const WRITE_ZEROES: u16 = 6;
}

/// What a server says of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its size.
    pub bytes: u64,
    /// Its smallest block, which is the volume's.
    pub block_bytes: u32,
    /// What it can do.
    pub flags: u16,
}

/// Why an export could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// There is no connection.
    Unreachable(io::Error),
    /// The server refused, in words.
    Refused(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Unreachable(error) => {
                write!(out, "the NBD server can't be reached: {error}")
            }
            OpenError::Refused(message) => write!(out, "the NBD server refused: {message}"),
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Unreachable(error)
    }
}

/// Opens an export for use.
///
/// # Errors
/// No connection, or a refusal.
pub fn open(address: &str, name: &str) -> Result<(TcpStream, Export), OpenError> {
    let resolved = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::other(format!("{address} has no address")))?;
    let mut stream = TcpStream::connect_timeout(&resolved, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT))?;
    greet(&mut stream)?;
    ask_to_go(&mut stream, name)?;
    let export = hear(&mut stream)?;
    // From now on a silent server is one whose volume is frozen: it is waited for.
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok((stream, export))
}

fn greet(stream: &mut TcpStream) -> io::Result<()> {
    let (first, second, flags) = (u64(stream)?, u64(stream)?, u16(stream)?);
    if (first, second) != (NBDMAGIC, IHAVEOPT) || flags & FIXED_NEWSTYLE == 0 {
        return Err(nonsense("no NBD server of the fixed newstyle is there"));
    }
    let ours = u32::from(FIXED_NEWSTYLE | (flags & NO_ZEROES));
    stream.write_all(&ours.to_be_bytes())
}

fn ask_to_go(stream: &mut TcpStream, name: &str) -> io::Result<()> {
    let name_bytes = u32::try_from(name.len()).map_err(|_| nonsense("a name too long"))?;
    let mut message = Vec::new();
    message.extend_from_slice(&IHAVEOPT.to_be_bytes());
    message.extend_from_slice(&OPTION_GO.to_be_bytes());
    message.extend_from_slice(&(name_bytes + 8).to_be_bytes());
    message.extend_from_slice(&name_bytes.to_be_bytes());
    message.extend_from_slice(name.as_bytes());
    message.extend_from_slice(&1_u16.to_be_bytes());
    message.extend_from_slice(&INFO_BLOCK_SIZE.to_be_bytes());
    stream.write_all(&message)
}

fn hear(stream: &mut TcpStream) -> Result<Export, OpenError> {
    let mut size = None;
    let mut block_bytes = 1;
    loop {
        let (magic, option) = (u64(stream)?, u32(stream)?);
        let (kind, length) = (u32(stream)?, u32(stream)?);
        if (magic, option) != (OPTION_REPLY_MAGIC, OPTION_GO) || length > OPTION_REPLY_BYTES_MAX {
            return Err(nonsense("an answer to GO was expected").into());
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data)?;
        match kind {
            REPLY_ACK => break,
            REPLY_INFO => {
                let mut information = &data[..];
                match u16(&mut information)? {
                    INFO_EXPORT => size = Some((u64(&mut information)?, u16(&mut information)?)),
                    INFO_BLOCK_SIZE => block_bytes = u32(&mut information)?,
                    _ => {}
                }
            }
            _ if kind & (1 << 31) != 0 => {
                let text = String::from_utf8_lossy(&data).trim().to_owned();
                return Err(OpenError::Refused(text));
            }
            _ => {}
        }
    }
    let (bytes, flags) = size.ok_or_else(|| nonsense("the export's size was not said"))?;
    Ok(Export {
        bytes,
        block_bytes,
        flags,
    })
}

/// A request's header.
pub fn header(command: u16, flags: u16, cookie: u64, offset: u64, bytes: u32) -> [u8; 28] {
    let mut header = [0; 28];
    header[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    header[4..6].copy_from_slice(&flags.to_be_bytes());
    header[6..8].copy_from_slice(&command.to_be_bytes());
    header[8..16].copy_from_slice(&cookie.to_be_bytes());
    header[16..24].copy_from_slice(&offset.to_be_bytes());
    header[24..].copy_from_slice(&bytes.to_be_bytes());
    header
}

/// The next reply: its request's cookie, and 0 or an error number. The data of a read follow.
///
/// # Errors
/// The connection is gone, or the server does not speak the protocol.
pub fn reply(stream: &mut impl Read) -> io::Result<(u64, u32)> {
    let (magic, error, cookie) = (u32(stream)?, u32(stream)?, u64(stream)?);
    if magic != SIMPLE_REPLY_MAGIC {
        return Err(nonsense("a reply was expected"));
    }
    Ok((cookie, error))
}

fn nonsense(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

fn bytes<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u16(input: &mut impl Read) -> io::Result<u16> {
    bytes(input).map(u16::from_be_bytes)
}

fn u32(input: &mut impl Read) -> io::Result<u32> {
    bytes(input).map(u32::from_be_bytes)
}

fn u64(input: &mut impl Read) -> io::Result<u64> {
    bytes(input).map(u64::from_be_bytes)
}

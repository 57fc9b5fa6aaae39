//! Clients of a Unix socket have no host to name, and some put the socket's path into HTTP/2's `:authority` (`%2Fcsi%2Fcsi.sock`). The
//! HTTP/2 library refuses such a request before anybody could look at it. Nothing here depends on the authority, so one that is none is
//! replaced by one of the same length while it is read: the size that the header's entry takes in the compression's table stays the
//! same, and so do both sides' tables (RFC 7541, section 4.1).
//!
//! What is not understood is passed on as it is.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

/// `PRI * HTTP/2.0 …`
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
/// Longer frames are none of a sound client's.
const FRAME_BYTES_MAX: usize = 16 << 10;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;
/// `:authority` in the compression's static table.
const AUTHORITY: usize = 1;
const READ_BYTES: usize = 16 << 10;

/// A connection whose requests have sound authorities.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// Read, and not yet looked at.
    raw: VecDeque<u8>,
    /// To be passed on.
    sound: VecDeque<u8>,
    /// So many bytes are passed on as they are.
    plain: usize,
}

impl Connection {
    /// Over that stream.
    pub fn new(stream: UnixStream) -> Connection {
        Connection {
            stream,
            raw: VecDeque::new(),
            sound: VecDeque::new(),
            plain: PREFACE_BYTES,
        }
    }

    fn look(&mut self) {
        loop {
            let plain = self.plain.min(self.raw.len());
            self.sound.extend(self.raw.drain(..plain));
            self.plain -= plain;
            if self.plain > 0 || self.raw.len() < FRAME_HEADER_BYTES {
                return;
            }
            let [high, middle, low, kind] = [0, 1, 2, 3].map(|at| self.raw[at]);
            let payload = u32::from_be_bytes([0, high, middle, low]) as usize;
            let whole = FRAME_HEADER_BYTES + payload;
            if kind != HEADERS || payload > FRAME_BYTES_MAX {
                self.plain = whole;
            } else if self.raw.len() < whole {
                return;
            } else {
                let frame: Vec<u8> = self.raw.drain(..whole).collect();
                self.sound
                    .extend(with_sound_authority(&frame).unwrap_or(frame));
            }
        }
    }
}

/// The frame with another authority; none where it can stay as it is.
fn with_sound_authority(frame: &[u8]) -> Option<Vec<u8>> {
    let (header, payload) = frame.split_at(FRAME_HEADER_BYTES);
    let flags = header[4];
    if flags & END_HEADERS == 0 || flags & PADDED != 0 {
        return None;
    }
    let before = if flags & PRIORITY == 0 {
        0
    } else {
        PRIORITY_BYTES
    };
    let (priority, block) = payload.split_at_checked(before)?;
    let block = sound_block(block)?;
    let length = u32::try_from(priority.len() + block.len()).ok()?;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&header[3..]);
    frame.extend_from_slice(priority);
    frame.extend_from_slice(&block);
    Some(frame)
}

/// A block of compressed headers with another authority; none where it can stay as it is.
fn sound_block(block: &[u8]) -> Option<Vec<u8>> {
    let mut rest = block;
    let mut sound = None;
    while let Some(first) = rest.first() {
        let (prefix, is_literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (index, mut after) = integer(rest, prefix)?;
        if is_literal {
            let mut is_authority = index == AUTHORITY;
            if index == 0 {
                let name;
                (name, after) = string(after)?;
                is_authority = name.decoded().is_some_and(|name| name == b":authority");
            }
            let at = block.len() - after.len();
            let (value, behind) = string(after)?;
            if is_authority {
                let length = value.decoded_bytes()?;
                if !value.is_authority() {
                    let mut changed = block[..at].to_vec();
                    write_integer(&mut changed, length);
                    changed.extend(std::iter::repeat_n(b'x', length));
                    changed.extend_from_slice(behind);
                    // One request has one authority.
                    sound = Some(changed);
                }
            }
            after = behind;
        }
        rest = after;
    }
    sound
}

/// RFC 7541, section 5.1.
fn integer(bytes: &[u8], prefix: u32) -> Option<(usize, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let full = (1_usize << prefix) - 1;
    let mut value = usize::from(*first) & full;
    if value < full {
        return Some((value, rest));
    }
    for shift in [0, 7, 14] {
        let (byte, after) = rest.split_first()?;
        rest = after;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

/// A string's length, uncompressed.
fn write_integer(out: &mut Vec<u8>, value: usize) {
    const FULL: usize = 0x7f;
    if value < FULL {
        out.push(value as u8);
        return;
    }
    out.push(FULL as u8);
    let mut left = value - FULL;
    while left > FULL {
        out.push((left & FULL) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

/// A string as it was sent.
struct Sent<'a> {
    huffman: bool,
    bytes: &'a [u8],
}

/// RFC 7541, section 5.2.
fn string(bytes: &[u8]) -> Option<(Sent<'_>, &[u8])> {
    let huffman = bytes.first()? & 0x80 != 0;
    let (length, rest) = integer(bytes, 7)?;
    let (bytes, behind) = rest.split_at_checked(length)?;
    Some((Sent { huffman, bytes }, behind))
}

impl Sent<'_> {
    fn decoded(&self) -> Option<Vec<u8>> {
        if self.huffman {
            return huffman_decoded(self.bytes);
        }
        Some(self.bytes.to_vec())
    }

    fn decoded_bytes(&self) -> Option<usize> {
        self.decoded().map(|bytes| bytes.len())
    }

    fn is_authority(&self) -> bool {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
        self.decoded()
            .is_some_and(|bytes| !bytes.is_empty() && bytes.iter().all(plain))
    }
}

/// The codes of 5 to 8 bits, in their order (RFC 7541, appendix B): all that paths of sockets are made of.
const CODES: [(u32, u32, &[u8]); 4] = [
    (5, 0x0, b"012aceiost"),
    (6, 0x14, b" %-./3456789=A_bdfghlmnpru"),
    (7, 0x5c, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, 0xf8, b"&*,;XZ"),
];

fn huffman_decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let (mut code, mut bits) = (0_u32, 0_u32);
    for at in 0..bytes.len() * 8 {
        let bit = bytes[at / 8] >> (7 - at % 8) & 1;
        (code, bits) = (code << 1 | u32::from(bit), bits + 1);
        let found = CODES
            .iter()
            .filter(|(length, ..)| *length == bits)
            .find_map(|(_, first, letters)| {
                letters.get(usize::try_from(code.checked_sub(*first)?).ok()?)
            });
        if let Some(letter) = found {
            text.push(*letter);
            (code, bits) = (0, 0);
        } else if bits > 8 {
            return None;
        }
    }
    // What is left over is the beginning of a code of ones.
    (bits < 8 && code == (1 << bits) - 1).then_some(text)
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sound.is_empty() {
            let mut space = [0; READ_BYTES];
            let mut space = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut space))?;
            if space.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.raw.extend(space.filled());
            self.look();
        }
        let (bytes, _) = self.sound.as_slices();
        let count = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes[..count]);
        self.sound.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_of_the_specification() {
        // RFC 7541, C.4.1 and C.4.3.
        let example = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(
            huffman_decoded(&example).as_deref(),
            Some(&b"www.example.com"[..])
        );
        let custom = [0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f];
        assert_eq!(
            huffman_decoded(&custom).as_deref(),
            Some(&b"custom-key"[..])
        );
        assert_eq!(huffman_decoded(&[0xff, 0xff]), None);
    }

    fn frame(block: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, block.len() as u8, HEADERS, END_HEADERS, 0, 0, 0, 1];
        frame.extend_from_slice(block);
        frame
    }

    #[test]
    fn only_an_authority_that_is_none_is_replaced() {
        let mut block = vec![0x83, 0x86, 0x41, 12];
        block.extend_from_slice(b"%2Fcsi%2Fsoc");
        block.extend_from_slice(&[0x40, 1, b'a', 1, b'%']);
        let mut expected = vec![0x83, 0x86, 0x41, 12];
        expected.extend_from_slice(&[b'x'; 12]);
        expected.extend_from_slice(&[0x40, 1, b'a', 1, b'%']);
        assert_eq!(with_sound_authority(&frame(&block)), Some(frame(&expected)));

        // The name spelled out, and one byte of a socket's path that is wrong.
        let mut block = vec![0x40, 10];
        block.extend_from_slice(b":authority");
        let mut expected = block.clone();
        block.extend_from_slice(&[3, b'a', b'%', b'b']);
        expected.extend_from_slice(&[3, b'x', b'x', b'x']);
        assert_eq!(with_sound_authority(&frame(&block)), Some(frame(&expected)));

        let mut block = vec![0x41, 9];
        block.extend_from_slice(b"localhost");
        assert_eq!(with_sound_authority(&frame(&block)), None);
    }

    #[test]
    fn no_bytes_make_it_panic_or_grow() {
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..40 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                bytes.push((state >> 33) as u8);
            }
            bytes[3..5].copy_from_slice(&[HEADERS, END_HEADERS]);
            let changed = with_sound_authority(&bytes);
            assert!(changed.is_none_or(|changed| changed.len() < 40 * 8));
        }
    }
}

//! The bytes between nodes, below the frames' own content: greetings, the header of a lane, of a frame, of a call.
//! Every decoder takes any bytes and gives a value or the reason for a refusal.

use crate::handler::Lane;
use bytes::{Buf, Bytes, BytesMut};
use isthmus_engine::VolumeId;

/// A frame's content has at most this many bytes: the largest record with its header and checksums.
pub const FRAME_BYTES_MAX: usize = (2 << 20) + 4096;

/// A call's request and its answer have at most this many bytes each.
pub const CALL_BYTES_MAX: usize = 8 << 20;

/// The version of everything in this file. The TLS handshake settles it (ALPN); headers repeat it.
pub const VERSION: u8 = 1;

/// What is offered and asked for in the TLS handshake.
pub const PROTOCOL: &[u8] = b"isthmus/1";

const MAGIC: [u8; 4] = *b"ISTH";

/// Bytes of a [`Hello`].
pub const HELLO_BYTES: usize = 24;
/// Bytes of the answer to it.
pub const WELCOME_BYTES: usize = 8;
/// Bytes with which a stream of frames begins.
pub const LANE_BYTES: usize = 16;
/// Bytes before each frame.
pub const FRAME_HEADER_BYTES: usize = 8;
/// Bytes before each frame on a connection that carries many lanes.
pub const MIXED_HEADER_BYTES: usize = 16;
/// Bytes before each call and each answer.
pub const CALL_HEADER_BYTES: usize = 8;

/// What a connection of a session is for. Apart, so that neither writes nor resync hold up control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Calls, and frames of the control lane.
    Control,
    /// Mirrored writes.
    Write,
    /// Copying.
    Resync,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 3] = [Class::Control, Class::Write, Class::Resync];

    /// Its place in [`Class::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Why bytes from a peer were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The first bytes of a connection.
    #[error("a greeting that is none of ours")]
    Greeting,
    /// The header of a lane, frame or call.
    #[error("a header that is none of ours")]
    Header,
    /// A lane that there is not.
    #[error("an unknown lane")]
    UnknownLane,
    /// A lane on the connection of another class.
    #[error("a lane on the connection of another class")]
    WrongConnection,
    /// A lane that is open already.
    #[error("a lane that was opened twice")]
    LaneTwice,
    /// A length over its limit.
    #[error("a length over the limit")]
    TooLong,
    /// The stream ended within a frame or call.
    #[error("a stream that ended within a frame or call")]
    Truncated,
    /// More is unfinished than a session may have.
    #[error("more unfinished frames and calls than a session may have")]
    TooMuchUnfinished,
    /// The connection belongs to no session in the making.
    #[error("a connection that belongs to no session in the making")]
    OutOfPlace,
}

/// The first bytes on a connection, by which three connections find together to one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What the connection is for.
    pub class: Class,
    /// Random, the same as long as the dialing process lives.
    pub process: u64,
    /// Rises with each try of that process.
    pub attempt: u64,
}

impl Hello {
    /// Its bytes.
    #[must_use]
    pub fn encode(self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.class as u8;
        bytes[8..16].copy_from_slice(&self.process.to_le_bytes());
        bytes[16..].copy_from_slice(&self.attempt.to_le_bytes());
        bytes
    }

    /// The greeting of these bytes.
    ///
    /// # Errors
    /// `Greeting`, when it is none of ours.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, Violation> {
        let class = Class::ALL
            .into_iter()
            .find(|class| *class as u8 == bytes[5]);
        let (Some(class), true) = (class, bytes[..5] == greeting()) else {
            return Err(Violation::Greeting);
        };
        Ok(Hello {
            class,
            process: number(&bytes[8..16]),
            attempt: number(&bytes[16..]),
        })
    }
}

/// In place of a class: the connection is a tunnel.
const TUNNEL: u8 = 3;

/// What the first bytes of a TLS connection may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// It belongs to a session.
    Session(Hello),
    /// It is a tunnel: bytes follow that the transport does not look at.
    Tunnel,
}

impl Greeting {
    /// Its bytes.
    #[must_use]
    pub fn encode(self) -> [u8; HELLO_BYTES] {
        match self {
            Greeting::Session(hello) => hello.encode(),
            Greeting::Tunnel => {
                let mut bytes = [0; HELLO_BYTES];
                bytes[..5].copy_from_slice(&greeting());
                bytes[5] = TUNNEL;
                bytes
            }
        }
    }

    /// The greeting of these bytes.
    ///
    /// # Errors
    /// `Greeting`, when it is none of ours.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Greeting, Violation> {
        if *bytes == Greeting::Tunnel.encode() {
            return Ok(Greeting::Tunnel);
        }
        Hello::decode(bytes).map(Greeting::Session)
    }
}

fn greeting() -> [u8; 5] {
    [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], VERSION]
}

fn number(bytes: &[u8]) -> u64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

/// The answer to a [`Hello`]: all three connections are there, the session is up.
#[must_use]
pub fn encode_welcome() -> [u8; WELCOME_BYTES] {
    let mut bytes = [0; WELCOME_BYTES];
    bytes[..5].copy_from_slice(&greeting());
    bytes
}

/// Whether these bytes are that answer.
///
/// # Errors
/// `Greeting`, when they are not.
pub fn decode_welcome(bytes: &[u8; WELCOME_BYTES]) -> Result<(), Violation> {
    if *bytes == encode_welcome() {
        Ok(())
    } else {
        Err(Violation::Greeting)
    }
}

/// The first bytes of a stream that carries frames.
#[must_use]
pub fn encode_lane(lane: Lane) -> [u8; LANE_BYTES] {
    let mut bytes = [0; LANE_BYTES];
    bytes[..5].copy_from_slice(&greeting());
    bytes[5] = lane.class() as u8;
    bytes[8..].copy_from_slice(&volume_of(lane).to_le_bytes());
    bytes
}

/// The lane that a stream begins with.
///
/// # Errors
/// `Header` or `UnknownLane`.
pub fn decode_lane(bytes: &[u8; LANE_BYTES]) -> Result<Lane, Violation> {
    if bytes[..5] != greeting() {
        return Err(Violation::Header);
    }
    lane_of(bytes[5], number(&bytes[8..]))
}

/// What comes before each frame: version and length.
///
/// # Panics
/// When the frame is longer than [`FRAME_BYTES_MAX`].
#[must_use]
pub fn encode_frame_header(length: usize) -> [u8; FRAME_HEADER_BYTES] {
    assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
    let mut bytes = [0; FRAME_HEADER_BYTES];
    bytes[0] = VERSION;
    bytes[4..].copy_from_slice(&(length as u32).to_le_bytes());
    bytes
}

/// The length of the frame that follows.
///
/// # Errors
/// `Header` or `TooLong`.
pub fn decode_frame_header(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<usize, Violation> {
    if bytes[..4] != [VERSION, 0, 0, 0] {
        return Err(Violation::Header);
    }
    bounded(&bytes[4..], FRAME_BYTES_MAX)
}

/// What comes before a call's request (with the service asked) and before its answer (service 0).
///
/// # Panics
/// When it is longer than [`CALL_BYTES_MAX`].
#[must_use]
pub fn encode_call_header(service: u8, length: usize) -> [u8; CALL_HEADER_BYTES] {
    assert!(length <= CALL_BYTES_MAX, "a call of {length} bytes");
    let mut bytes = [0; CALL_HEADER_BYTES];
    bytes[0] = VERSION;
    bytes[1] = service;
    bytes[4..].copy_from_slice(&(length as u32).to_le_bytes());
    bytes
}

/// The service and the length of what follows.
///
/// # Errors
/// `Header` or `TooLong`.
pub fn decode_call_header(bytes: &[u8; CALL_HEADER_BYTES]) -> Result<(u8, usize), Violation> {
    if bytes[0] != VERSION || bytes[2..4] != [0, 0] {
        return Err(Violation::Header);
    }
    Ok((bytes[1], bounded(&bytes[4..], CALL_BYTES_MAX)?))
}

/// What a buffer of received bytes begins with.
#[derive(Debug)]
pub enum Next {
    /// A whole frame, without its header.
    Frame(Bytes),
    /// So many bytes are missing of what comes next, which has `frame_bytes` in all as far as is known.
    Missing {
        /// Missing.
        bytes: usize,
        /// In all.
        frame_bytes: usize,
    },
}

/// Cuts the next frame off the buffer, if it is whole.
///
/// # Errors
/// `Header` or `TooLong`.
pub fn next_frame(buffer: &mut BytesMut) -> Result<Next, Violation> {
    let Some(header) = buffer.first_chunk::<FRAME_HEADER_BYTES>() else {
        let bytes = FRAME_HEADER_BYTES - buffer.len();
        return Ok(Next::Missing {
            bytes,
            frame_bytes: 0,
        });
    };
    let length = decode_frame_header(header)?;
    let whole = FRAME_HEADER_BYTES + length;
    if buffer.len() < whole {
        return Ok(Next::Missing {
            bytes: whole - buffer.len(),
            frame_bytes: whole,
        });
    }
    buffer.advance(FRAME_HEADER_BYTES);
    Ok(Next::Frame(buffer.split_to(length).freeze()))
}

/// What comes before each frame on a connection that carries many lanes: version, lane and length.
///
/// # Panics
/// When the frame is longer than [`FRAME_BYTES_MAX`].
#[must_use]
pub fn encode_mixed_header(lane: Lane, length: usize) -> [u8; MIXED_HEADER_BYTES] {
    assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
    let mut bytes = [0; MIXED_HEADER_BYTES];
    bytes[0] = VERSION;
    bytes[1] = lane.class() as u8;
    bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[8..].copy_from_slice(&volume_of(lane).to_le_bytes());
    bytes
}

/// What a buffer of such bytes begins with.
#[derive(Debug)]
pub enum NextMixed {
    /// A whole frame, without its header.
    Frame(Lane, Bytes),
    /// So many bytes are missing of what comes next.
    Missing {
        /// Missing, at least one.
        bytes: usize,
    },
}

/// Cuts the next frame, of whichever lane, off the buffer, if it is whole.
///
/// # Errors
/// `Header`, `UnknownLane` or `TooLong`.
pub fn next_mixed_frame(buffer: &mut BytesMut) -> Result<NextMixed, Violation> {
    let Some(header) = buffer.first_chunk::<MIXED_HEADER_BYTES>() else {
        let bytes = MIXED_HEADER_BYTES - buffer.len();
        return Ok(NextMixed::Missing { bytes });
    };
    if header[0] != VERSION || header[2..4] != [0, 0] {
        return Err(Violation::Header);
    }
    let lane = lane_of(header[1], number(&header[8..]))?;
    let length = bounded(&header[4..8], FRAME_BYTES_MAX)?;
    let whole = MIXED_HEADER_BYTES + length;
    if buffer.len() < whole {
        let bytes = whole - buffer.len();
        return Ok(NextMixed::Missing { bytes });
    }
    buffer.advance(MIXED_HEADER_BYTES);
    Ok(NextMixed::Frame(lane, buffer.split_to(length).freeze()))
}

fn volume_of(lane: Lane) -> u64 {
    match lane {
        Lane::Control => 0,
        Lane::Write(volume) | Lane::Resync(volume) => volume.0,
    }
}

fn lane_of(class: u8, volume: u64) -> Result<Lane, Violation> {
    match Class::ALL.into_iter().find(|known| *known as u8 == class) {
        Some(Class::Control) if volume == 0 => Ok(Lane::Control),
        Some(Class::Write) => Ok(Lane::Write(VolumeId(volume))),
        Some(Class::Resync) => Ok(Lane::Resync(VolumeId(volume))),
        _ => Err(Violation::UnknownLane),
    }
}

fn bounded(bytes: &[u8], length_max: usize) -> Result<usize, Violation> {
    match usize::try_from(number(bytes)) {
        Ok(length) if length <= length_max => Ok(length),
        _ => Err(Violation::TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for class in Class::ALL {
            let hello = Hello {
                class,
                process: 0x0123_4567_89ab_cdef,
                attempt: 7,
            };
            assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
            let session = Greeting::Session(hello);
            assert_eq!(Greeting::decode(&session.encode()), Ok(session));
        }
        let tunnel = Greeting::Tunnel.encode();
        assert_eq!(Greeting::decode(&tunnel), Ok(Greeting::Tunnel));
        assert_eq!(
            Hello::decode(&tunnel),
            Err(Violation::Greeting),
            "no session is made of it"
        );
        for lane in [
            Lane::Control,
            Lane::Write(VolumeId(3)),
            Lane::Resync(VolumeId(u64::MAX)),
        ] {
            assert_eq!(decode_lane(&encode_lane(lane)), Ok(lane));
        }
        assert_eq!(decode_welcome(&encode_welcome()), Ok(()));
        assert_eq!(
            decode_frame_header(&encode_frame_header(FRAME_BYTES_MAX)),
            Ok(FRAME_BYTES_MAX)
        );
        assert_eq!(decode_call_header(&encode_call_header(9, 1)), Ok((9, 1)));
    }

    #[test]
    fn frames_of_many_lanes_are_cut_at_any_byte() {
        let lanes = [
            Lane::Write(VolumeId(3)),
            Lane::Control,
            Lane::Resync(VolumeId(u64::MAX)),
        ];
        let mut buffer = BytesMut::new();
        let mut came = Vec::new();
        for (length, lane) in [0_usize, 1, 300].into_iter().zip(lanes) {
            let mut bytes = encode_mixed_header(lane, length).to_vec();
            bytes.extend(vec![7; length]);
            for byte in bytes {
                buffer.extend_from_slice(&[byte]);
                while let NextMixed::Frame(lane, frame) = next_mixed_frame(&mut buffer).unwrap() {
                    came.push((frame.len(), lane));
                }
            }
        }
        assert_eq!(came, Vec::from_iter([0, 1, 300].into_iter().zip(lanes)));
        let refuse = |change: &dyn Fn(&mut [u8])| {
            let mut header = encode_mixed_header(Lane::Control, 5);
            change(&mut header);
            next_mixed_frame(&mut BytesMut::from(&header[..])).unwrap_err()
        };
        assert_eq!(refuse(&|bytes| bytes[0] = 9), Violation::Header);
        assert_eq!(refuse(&|bytes| bytes[3] = 1), Violation::Header);
        assert_eq!(refuse(&|bytes| bytes[1] = 3), Violation::UnknownLane);
        assert_eq!(refuse(&|bytes| bytes[9] = 1), Violation::UnknownLane);
        assert_eq!(refuse(&|bytes| bytes[7] = 1), Violation::TooLong);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        assert_eq!(
            Hello::decode(&[0xff; HELLO_BYTES]),
            Err(Violation::Greeting)
        );
        assert_eq!(
            decode_welcome(&[0; WELCOME_BYTES]),
            Err(Violation::Greeting)
        );
        assert_eq!(decode_lane(&[1; LANE_BYTES]), Err(Violation::Header));
        let mut lane = encode_lane(Lane::Control);
        lane[5] = 3;
        assert_eq!(decode_lane(&lane), Err(Violation::UnknownLane));
        let mut frame = encode_frame_header(0);
        frame[4..].copy_from_slice(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
        assert_eq!(decode_frame_header(&frame), Err(Violation::TooLong));
        frame[1] = 1;
        assert_eq!(decode_frame_header(&frame), Err(Violation::Header));
        let mut call = encode_call_header(1, 1);
        call[4..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode_call_header(&call), Err(Violation::TooLong));
    }
}

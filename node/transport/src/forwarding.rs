//! What a node without a store and a volume's primary say to each other through a tunnel before a client's bytes follow: the client's node
//! asks for the volume under the epoch that it knows; the primary answers; and once the client has agreed on how replies look, its node says
//! so, and everything behind that is NBD's transmission phase as it is.
//!
//! ```text
//!   client's node ── Attach ──► primary
//!   client's node ◄── Attached, or Refused (and the end) ── primary
//!   client's node ── Begin ──► primary
//!   client's node ◄── NBD requests and replies ──► primary
//! ```
//!
//! ```text
//! magic "ISTF" | version u8 | kind u8 | length u16 | content
//! ```
//!
//! All integers are little-endian. Every decoder takes any bytes and gives a value or the reason for a refusal.

use crate::wire::Violation;
use isthmus_engine::{Epoch, VolumeId};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The version of everything in this file.
pub const VERSION: u8 = 1;
/// Bytes before a message's content.
pub const HEADER_BYTES: usize = 8;
/// Bytes of a content at most.
pub const CONTENT_BYTES_MAX: usize = 4 + REASON_BYTES_MAX;
/// Bytes of a refusal's text at most; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 4096;

const MAGIC: [u8; 4] = *b"ISTF";

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A client wants to open a volume.
    Attach {
        /// Which.
        volume: VolumeId,
        /// The volume's epoch, as the client's node knows it.
        epoch: Epoch,
    },
    /// It has opened it, at a primary.
    Attached {
        /// The epoch under which the primary serves.
        epoch: Epoch,
        /// The volume's size in bytes, as it is served.
        bytes: u64,
        /// Its logical block size in bytes.
        block_bytes: u32,
    },
    /// It can't open it there.
    Refused {
        /// What the client's node does about it.
        kind: RefusedKind,
        /// What the client's user reads.
        reason: String,
    },
    /// The client and its node have agreed; its requests follow.
    Begin {
        /// Replies are structured.
        structured: bool,
        /// The client may ask BLOCK_STATUS for base:allocation.
        allocation: bool,
    },
}

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedKind {
    /// The client is told.
    Told,
    /// The two nodes do not know of the same epoch: whoever is behind has to hear of it first, then it may be tried again.
    OtherEpoch,
    /// The node is stopping.
    Stopping,
}

impl RefusedKind {
    const ALL: [RefusedKind; 3] = [
        RefusedKind::Told,
        RefusedKind::OtherEpoch,
        RefusedKind::Stopping,
    ];
}

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Message::Attach { .. } => 1,
            Message::Attached { .. } => 2,
            Message::Refused { .. } => 3,
            Message::Begin { .. } => 4,
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[VERSION, self.kind(), 0, 0]].concat();
        match self {
            Message::Attach { volume, epoch } => {
                bytes.extend(volume.0.to_le_bytes());
                put_epoch(&mut bytes, *epoch);
            }
            Message::Attached {
                epoch,
                bytes: size,
                block_bytes,
            } => {
                put_epoch(&mut bytes, *epoch);
                bytes.extend(size.to_le_bytes());
                bytes.extend(block_bytes.to_le_bytes());
            }
            Message::Refused { kind, reason } => {
                bytes.extend([*kind as u8, 0, 0, 0]);
                bytes.extend(cut(reason).as_bytes());
            }
            Message::Begin {
                structured,
                allocation,
            } => bytes.extend([u8::from(*structured), u8::from(*allocation)]),
        }
        let length = bytes.len() - HEADER_BYTES;
        assert!(
            length <= CONTENT_BYTES_MAX,
            "a message of {length} bytes: {self:?}"
        );
        bytes[6..8].copy_from_slice(&(length as u16).to_le_bytes());
        bytes
    }

    /// The kind and the length of the content that follows a header.
    ///
    /// # Errors
    /// `Header` or `TooLong`.
    pub fn decode_header(header: &[u8; HEADER_BYTES]) -> Result<(u8, usize), Violation> {
        if header[..4] != MAGIC || header[4] != VERSION {
            return Err(Violation::Header);
        }
        let length = usize::from(u16::from_le_bytes([header[6], header[7]]));
        if length > CONTENT_BYTES_MAX {
            return Err(Violation::TooLong);
        }
        Ok((header[5], length))
    }

    /// The message of this kind and content.
    ///
    /// # Errors
    /// `Header`, when there is no such message.
    pub fn decode(kind: u8, content: &[u8]) -> Result<Message, Violation> {
        match (kind, content.len()) {
            (1, 16) => Ok(Message::Attach {
                volume: VolumeId(u64_at(content, 0)),
                epoch: epoch_at(content, 8),
            }),
            (2, 20) => Ok(Message::Attached {
                epoch: epoch_at(content, 0),
                bytes: u64_at(content, 8),
                block_bytes: u32_at(content, 16),
            }),
            (3, 4..=CONTENT_BYTES_MAX) if content[1..4] == [0; 3] => {
                let mut kinds = RefusedKind::ALL.into_iter();
                let kind = kinds.find(|known| *known as u8 == content[0]);
                let reason = std::str::from_utf8(&content[4..]).map_err(|_| Violation::Header)?;
                Ok(Message::Refused {
                    kind: kind.ok_or(Violation::Header)?,
                    reason: reason.to_owned(),
                })
            }
            (4, 2) if content.iter().all(|flag| *flag < 2) => Ok(Message::Begin {
                structured: content[0] == 1,
                allocation: content[1] == 1,
            }),
            _ => Err(Violation::Header),
        }
    }

    /// Reads the next message, and not a byte behind it.
    ///
    /// # Errors
    /// `InvalidData` for what is no message; what the stream says.
    pub async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Message> {
        let invalid = |violation| io::Error::new(io::ErrorKind::InvalidData, violation);
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).await?;
        let (kind, length) = Message::decode_header(&header).map_err(invalid)?;
        let mut content = vec![0; length];
        stream.read_exact(&mut content).await?;
        Message::decode(kind, &content).map_err(invalid)
    }

    /// Writes the message, and sends it off.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn write<W: AsyncWrite + Unpin>(&self, stream: &mut W) -> io::Result<()> {
        stream.write_all(&self.encode()).await?;
        stream.flush().await
    }
}

fn put_epoch(bytes: &mut Vec<u8>, epoch: Epoch) {
    bytes.extend(epoch.generation.to_le_bytes());
    bytes.extend(epoch.number.to_le_bytes());
}

fn epoch_at(bytes: &[u8], at: usize) -> Epoch {
    Epoch {
        generation: u32_at(bytes, at),
        number: u32_at(bytes, at + 4),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// The text, cut to its bound at a character's edge.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Message> {
        let epoch = Epoch {
            generation: 1,
            number: 0xfeed,
        };
        let mut samples = vec![
            Message::Attach {
                volume: VolumeId(7),
                epoch,
            },
            Message::Attached {
                epoch,
                bytes: 1 << 40,
                block_bytes: 512,
            },
        ];
        samples.extend(RefusedKind::ALL.map(|kind| Message::Refused {
            kind,
            reason: "é".repeat(9),
        }));
        samples.extend([false, true].map(|structured| Message::Begin {
            structured,
            allocation: !structured,
        }));
        samples
    }

    fn decode(bytes: &[u8]) -> Result<Message, Violation> {
        let (header, content) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(Violation::Truncated)?;
        let (kind, length) = Message::decode_header(header)?;
        match content.len() == length {
            true => Message::decode(kind, content),
            false => Err(Violation::Truncated),
        }
    }

    #[test]
    fn what_is_encoded_is_decoded_and_nothing_shorter_is() {
        for message in samples() {
            let bytes = message.encode();
            assert_eq!(decode(&bytes), Ok(message.clone()));
            for length in 0..bytes.len() {
                assert!(decode(&bytes[..length]).is_err(), "{message:?}");
            }
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let long = Message::Refused {
            kind: RefusedKind::Told,
            reason: format!("x{}", "é".repeat(REASON_BYTES_MAX)),
        };
        let Ok(Message::Refused { reason, .. }) = decode(&long.encode()) else {
            panic!("a refusal stays one");
        };
        assert_eq!(reason.len(), REASON_BYTES_MAX - 1);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let sound = samples()[0].encode();
        for (at, value) in [(0, 0), (4, VERSION + 1), (5, 0), (5, 9), (6, 0xff)] {
            let mut broken = sound.clone();
            broken[at] = value;
            assert!(decode(&broken).is_err(), "byte {at}");
        }
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&sound[..HEADER_BYTES]);
        header[6..].copy_from_slice(&(CONTENT_BYTES_MAX as u16 + 1).to_le_bytes());
        assert_eq!(Message::decode_header(&header), Err(Violation::TooLong));
        assert_eq!(Message::decode(3, &[9, 0, 0, 0]), Err(Violation::Header));
        assert_eq!(
            Message::decode(3, &[0, 0, 0, 0, 0xff]),
            Err(Violation::Header)
        );
        assert_eq!(Message::decode(4, &[2, 0]), Err(Violation::Header));
    }
}

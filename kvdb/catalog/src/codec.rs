//! The bytes of the catalog, of requests, and of kvdb's control messages: bincode in an envelope.
//!
//! ```text
//! magic u32 | schema u16 | kind u16 | length u32 | crc32 of (schema, kind, payload) u32 | payload
//! ```
//!
//! All integers are little-endian. Decoders are total: any bytes give a value or an error, in time and memory bounded by the
//! input's length. bincode is unmaintained, and used nowhere else: replacing it changes this file only.

use crate::command::{Answer, Request};
use crate::record::Catalog;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;

/// First bytes of every envelope.
const MAGIC: u32 = 0x6b76_6462;
/// The schema of requests and answers, and of catalogs of earlier versions. What was added to the former came at the end of their lists.
const SCHEMA: u16 = 2;
/// The schema of catalogs. Since 2 (the oldest that is read), each added maps and lists at the end: two in 3, four in 4, four in 5.
const CATALOG_SCHEMA: u16 = 5;
/// What was added since the oldest schema, where there is nothing in it. An older catalog with the end of this behind it is one of today's.
const NOTHING_ADDED: [u8; 10] = [0; 10];
/// Bytes before the payload.
pub const ENVELOPE_BYTES: usize = 16;
/// Bytes of a payload at most.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Bytes of an encoded request at most: what one client may ask the cluster to keep.
pub const REQUEST_BYTES_MAX: usize = 256 << 10;

const fn schema_of(kind: Kind) -> u16 {
    match kind {
        Kind::CATALOG => CATALOG_SCHEMA,
        _ => SCHEMA,
    }
}

/// What an envelope holds, so that one thing is never read as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub u16);

impl Kind {
    /// A [`Catalog`].
    pub const CATALOG: Kind = Kind(1);
    /// A [`Request`].
    pub const REQUEST: Kind = Kind(2);
    /// An [`Answer`].
    pub const ANSWER: Kind = Kind(3);
}

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Shorter or longer than the envelope says, or than is allowed.
    #[error("an envelope of {0} bytes has the wrong length")]
    Length(usize),
    /// Not an envelope.
    #[error("not an envelope of kvdb: it begins with {0:08x}")]
    Magic(u32),
    /// Written by another version of the software.
    #[error("schema {theirs}, this version reads {ours}")]
    Schema {
        /// What this build reads.
        ours: u16,
        /// What the bytes say.
        theirs: u16,
    },
    /// Another thing than the one asked for.
    #[error("kind {theirs}, expected {ours}")]
    Kind {
        /// What was asked for.
        ours: u16,
        /// What the bytes say.
        theirs: u16,
    },
    /// The checksum differs.
    #[error("the checksum of an envelope differs")]
    Checksum,
    /// The payload is no value of its type, or too large a one.
    #[error("the payload of an envelope can't be read or written: {0}")]
    Payload(String),
}

/// Puts a value into an envelope.
///
/// # Errors
/// `Length` when it is larger than [`PAYLOAD_BYTES_MAX`].
pub fn seal<T: Serialize>(kind: Kind, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![0; ENVELOPE_BYTES];
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard())
        .map_err(|error| CodecError::Payload(error.to_string()))?;
    let length = bytes.len() - ENVELOPE_BYTES;
    let written = u32::try_from(length)
        .ok()
        .filter(|_| length <= PAYLOAD_BYTES_MAX)
        .ok_or(CodecError::Length(bytes.len()))?;
    let schema = schema_of(kind);
    let crc = checksum(schema, kind, &bytes[ENVELOPE_BYTES..]);
    bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[4..6].copy_from_slice(&schema.to_le_bytes());
    bytes[6..8].copy_from_slice(&kind.0.to_le_bytes());
    bytes[8..12].copy_from_slice(&written.to_le_bytes());
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Takes a value out of an envelope that holds nothing else.
///
/// # Errors
/// Any [`CodecError`], when the bytes are not such an envelope.
pub fn unseal<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, CodecError> {
    let (header, payload) = bytes
        .split_first_chunk::<ENVELOPE_BYTES>()
        .ok_or(CodecError::Length(bytes.len()))?;
    let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let u32_at = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if u32_at(0) != MAGIC {
        return Err(CodecError::Magic(u32_at(0)));
    }
    if u16_at(6) != kind.0 {
        return Err(CodecError::Kind {
            ours: kind.0,
            theirs: u16_at(6),
        });
    }
    let (ours, theirs) = (schema_of(kind), u16_at(4));
    let added: &[u8] = match theirs {
        _ if theirs == ours => &[],
        2 if kind == Kind::CATALOG => &NOTHING_ADDED,
        3 if kind == Kind::CATALOG => &NOTHING_ADDED[2..],
        4 if kind == Kind::CATALOG => &NOTHING_ADDED[6..],
        _ => return Err(CodecError::Schema { ours, theirs }),
    };
    if payload.len() > PAYLOAD_BYTES_MAX || payload.len() != u32_at(8) as usize {
        return Err(CodecError::Length(bytes.len()));
    }
    if checksum(theirs, kind, payload) != u32_at(12) {
        return Err(CodecError::Checksum);
    }
    let payload = match added {
        [] => Cow::Borrowed(payload),
        added => Cow::Owned([payload, added].concat()),
    };
    let (value, read) =
        decode_payload(&payload).map_err(|error| CodecError::Payload(error.to_string()))?;
    if read != payload.len() {
        return Err(CodecError::Length(bytes.len()));
    }
    Ok(value)
}

/// bincode believes the length of a text and allocates it before it reads, up to a limit that is a constant: so the limit is taken
/// by the payload's length, or a few bytes could ask for the largest payload's memory. A byte counts as eight against it, since a
/// number is counted by its width and may have been written in one byte.
fn decode_payload<T: DeserializeOwned>(
    payload: &[u8],
) -> Result<(T, usize), bincode::error::DecodeError> {
    const STEPS: [usize; 6] = [
        4 << 10,
        32 << 10,
        256 << 10,
        2 << 20,
        16 << 20,
        PAYLOAD_BYTES_MAX,
    ];
    fn within<T: DeserializeOwned, const LIMIT: usize>(
        payload: &[u8],
    ) -> Result<(T, usize), bincode::error::DecodeError> {
        let limits = bincode::config::standard().with_limit::<LIMIT>();
        bincode::serde::decode_from_slice(payload, limits)
    }
    match payload.len() {
        length if length <= STEPS[0] => within::<T, { STEPS[0] * 8 }>(payload),
        length if length <= STEPS[1] => within::<T, { STEPS[1] * 8 }>(payload),
        length if length <= STEPS[2] => within::<T, { STEPS[2] * 8 }>(payload),
        length if length <= STEPS[3] => within::<T, { STEPS[3] * 8 }>(payload),
        length if length <= STEPS[4] => within::<T, { STEPS[4] * 8 }>(payload),
        _ => within::<T, { STEPS[5] * 8 }>(payload),
    }
}

fn checksum(schema: u16, kind: Kind, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&schema.to_le_bytes());
    hasher.update(&kind.0.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

impl Catalog {
    /// The catalog's bytes, for a snapshot.
    ///
    /// # Errors
    /// `Length` when it is larger than [`PAYLOAD_BYTES_MAX`], which its own bounds rule out.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        seal(Kind::CATALOG, self)
    }

    /// The catalog of these bytes.
    ///
    /// # Errors
    /// Any [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Catalog, CodecError> {
        let mut catalog: Catalog = unseal(Kind::CATALOG, bytes)?;
        catalog.complete_digests();
        Ok(catalog)
    }
}

impl Request {
    /// The request's bytes.
    ///
    /// # Errors
    /// `Length` when it is larger than [`REQUEST_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let bytes = seal(Kind::REQUEST, self)?;
        if bytes.len() > REQUEST_BYTES_MAX {
            Err(CodecError::Length(bytes.len()))
        } else {
            Ok(bytes)
        }
    }

    /// The request of these bytes.
    ///
    /// # Errors
    /// Any [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Request, CodecError> {
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(CodecError::Length(bytes.len()));
        }
        unseal(Kind::REQUEST, bytes)
    }
}

impl Answer {
    /// The answer's bytes.
    ///
    /// # Errors
    /// `Length` when it is larger than [`PAYLOAD_BYTES_MAX`], which its own bounds rule out.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        seal(Kind::ANSWER, self)
    }

    /// The answer of these bytes.
    ///
    /// # Errors
    /// Any [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Answer, CodecError> {
        unseal(Kind::ANSWER, bytes)
    }
}

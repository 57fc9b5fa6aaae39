//! The bytes between nodes, below the frames' own content.

use bytes::BytesMut;
use isthmus_engine::{Epoch, VolumeId};
use isthmus_transport::forwarding::{CONTENT_BYTES_MAX, HEADER_BYTES, Message, RefusedKind};
use isthmus_transport::wire::{self, Class, Greeting, Hello, Next, NextMixed};
use isthmus_transport::{CALL_BYTES_MAX, FRAME_BYTES_MAX, Lane};

use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

/// What is said in a tunnel before a client's bytes: a header and its content.
pub struct Forwarding;

impl Target for Forwarding {
    fn name(&self) -> &'static str {
        "transport-forwarding"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let epoch = Epoch {
            generation: random.number() as u32,
            number: random.number() as u32,
        };
        let kinds = [
            RefusedKind::Told,
            RefusedKind::OtherEpoch,
            RefusedKind::Stopping,
        ];
        let message = match random.below(4) {
            0 => Message::Attach {
                volume: VolumeId(random.number()),
                epoch,
            },
            1 => Message::Attached {
                epoch,
                bytes: random.number(),
                block_bytes: random.number() as u32,
            },
            2 => Message::Refused {
                kind: kinds[random.index(3)],
                reason: random.name(),
            },
            _ => Message::Begin {
                structured: random.once_in(2),
                allocation: random.once_in(2),
            },
        };
        message.encode()
    }

    fn input_bytes_max(&self) -> usize {
        HEADER_BYTES + CONTENT_BYTES_MAX + 1
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        4 * input_bytes + 1024
    }

    fn refuses_prefixes(&self) -> bool {
        true
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let Some((header, content)) = input.split_first_chunk::<HEADER_BYTES>() else {
            return Verdict::Refused;
        };
        let message = Message::decode_header(header)
            .ok()
            .filter(|(_, length)| *length == content.len())
            .and_then(|(kind, _)| Message::decode(kind, content).ok());
        let Some(message) = message else {
            return Verdict::Refused;
        };
        assert_eq!(message.encode(), input);
        Verdict::Accepted
    }
}

/// Greetings and headers of a fixed length: which one is told by the first byte.
pub struct Greetings;

impl Target for Greetings {
    fn name(&self) -> &'static str {
        "transport-greeting"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let volume = VolumeId(random.number());
        let mut bytes = vec![random.below(5) as u8];
        match bytes[0] {
            4 => bytes.extend(Greeting::Tunnel.encode()),
            0 => bytes.extend(
                Hello {
                    class: Class::ALL[random.index(3)],
                    process: random.number(),
                    attempt: random.number(),
                }
                .encode(),
            ),
            1 => bytes.extend(wire::encode_welcome()),
            2 => bytes.extend(wire::encode_lane(
                [Lane::Control, Lane::Write(volume), Lane::Resync(volume)][random.index(3)],
            )),
            _ => bytes.extend(wire::encode_call_header(
                random.next_u64() as u8,
                random.index(CALL_BYTES_MAX + 1),
            )),
        }
        bytes
    }

    fn input_bytes_max(&self) -> usize {
        64
    }

    fn memory_bytes_max(&self, _: usize) -> usize {
        0
    }

    fn refuses_prefixes(&self) -> bool {
        true
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let Some((kind, bytes)) = input.split_first() else {
            return Verdict::Refused;
        };
        let accepted = match kind {
            4 => bytes.first_chunk().is_some_and(|bytes| {
                Greeting::decode(bytes).is_ok_and(|greeting| {
                    let is_session = Hello::decode(bytes).is_ok();
                    assert_eq!(matches!(greeting, Greeting::Session(_)), is_session);
                    true
                })
            }),
            0 => bytes.first_chunk().is_some_and(|bytes| {
                Hello::decode(bytes).is_ok_and(|hello| {
                    // Two bytes are left for later versions: they are passed over.
                    let mut canonical = *bytes;
                    canonical[6..8].fill(0);
                    assert_eq!(hello.encode(), canonical);
                    true
                })
            }),
            1 => bytes
                .first_chunk()
                .is_some_and(|bytes| wire::decode_welcome(bytes).is_ok()),
            2 => bytes.first_chunk().is_some_and(|bytes| {
                wire::decode_lane(bytes).is_ok_and(|lane| {
                    let mut canonical = *bytes;
                    canonical[6..8].fill(0);
                    assert_eq!(wire::encode_lane(lane), canonical);
                    true
                })
            }),
            _ => bytes.first_chunk().is_some_and(|bytes| {
                wire::decode_call_header(bytes).is_ok_and(|(service, length)| {
                    assert!(length <= CALL_BYTES_MAX);
                    assert_eq!(wire::encode_call_header(service, length), *bytes);
                    true
                })
            }),
        };
        if accepted {
            Verdict::Accepted
        } else {
            Verdict::Refused
        }
    }
}

/// A stream of frames, cut as it arrives.
pub struct Frames;

impl Target for Frames {
    fn name(&self) -> &'static str {
        "transport-frames"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..random.below(6) {
            let length = random.index(300);
            bytes.extend(wire::encode_frame_header(length));
            bytes.extend(random.bytes(length));
        }
        bytes
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        4096 + 8 * input_bytes
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        // It arrives in two pieces.
        let (first, second) = input.split_at(crc32fast::hash(input) as usize % (input.len() + 1));
        let mut buffer = BytesMut::from(first);
        let mut taken = 0;
        for more in [second, &[]] {
            let missing = loop {
                match wire::next_frame(&mut buffer) {
                    Ok(Next::Frame(frame)) => {
                        assert!(frame.len() <= FRAME_BYTES_MAX);
                        taken += wire::FRAME_HEADER_BYTES;
                        assert_eq!(frame, input[taken..taken + frame.len()]);
                        taken += frame.len();
                    }
                    Ok(Next::Missing { bytes, frame_bytes }) => {
                        assert!(
                            bytes > 0 && frame_bytes <= FRAME_BYTES_MAX + wire::FRAME_HEADER_BYTES
                        );
                        break bytes;
                    }
                    Err(_) => return Verdict::Refused,
                }
            };
            assert!(missing <= FRAME_BYTES_MAX + wire::FRAME_HEADER_BYTES);
            assert_eq!(buffer[..], input[taken..taken + buffer.len()]);
            buffer.extend_from_slice(more);
        }
        if buffer.is_empty() {
            Verdict::Accepted
        } else {
            Verdict::Refused
        }
    }
}

/// Frames of many lanes on one connection, cut as they arrive.
pub struct MixedFrames;

impl Target for MixedFrames {
    fn name(&self) -> &'static str {
        "transport-mixed-frames"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..random.below(6) {
            let (length, volume) = (random.index(300), VolumeId(random.number()));
            let lane = [Lane::Control, Lane::Write(volume), Lane::Resync(volume)][random.index(3)];
            bytes.extend(wire::encode_mixed_header(lane, length));
            bytes.extend(random.bytes(length));
        }
        bytes
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        4096 + 8 * input_bytes
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        // It arrives in two pieces.
        let (first, second) = input.split_at(crc32fast::hash(input) as usize % (input.len() + 1));
        let mut buffer = BytesMut::from(first);
        let mut taken = 0;
        for more in [second, &[]] {
            let missing = loop {
                match wire::next_mixed_frame(&mut buffer) {
                    Ok(NextMixed::Frame(lane, frame)) => {
                        assert!(frame.len() <= FRAME_BYTES_MAX);
                        let header = wire::encode_mixed_header(lane, frame.len());
                        assert_eq!(input[taken..taken + header.len()], header);
                        taken += header.len();
                        assert_eq!(frame, input[taken..taken + frame.len()]);
                        taken += frame.len();
                    }
                    Ok(NextMixed::Missing { bytes }) => break bytes,
                    Err(_) => return Verdict::Refused,
                }
            };
            assert!(missing > 0 && missing <= FRAME_BYTES_MAX + wire::MIXED_HEADER_BYTES);
            assert_eq!(buffer[..], input[taken..taken + buffer.len()]);
            buffer.extend_from_slice(more);
        }
        if buffer.is_empty() {
            Verdict::Accepted
        } else {
            Verdict::Refused
        }
    }
}

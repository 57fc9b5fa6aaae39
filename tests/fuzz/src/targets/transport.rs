//! The bytes between nodes, below the frames' own content.

use bytes::BytesMut;
use isthmus_engine::VolumeId;
use isthmus_transport::wire::{self, Class, Hello, Next, NextMixed};
use isthmus_transport::{CALL_BYTES_MAX, FRAME_BYTES_MAX, Lane};

use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

/// Greetings and headers of a fixed length: which one is told by the first byte.
pub struct Greetings;

impl Target for Greetings {
    fn name(&self) -> &'static str {
        "transport-greeting"
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let volume = VolumeId(random.number());
        let mut bytes = vec![random.below(4) as u8];
        match bytes[0] {
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

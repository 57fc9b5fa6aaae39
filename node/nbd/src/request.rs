//! The header of a request, and whether an export may be asked for it. Pure.

use crate::export::{ExportInfo, PAYLOAD_BYTES_MAX};
use crate::reply::Errno;
use crate::wire::{self, command, command_flag};

/// Bytes of a request's header.
pub(crate) const HEADER_BYTES: usize = 28;

/// Bytes of a refused WRITE's payload that are thrown away to keep the connection (64 MiB). Behind a longer one, which
/// no client sends in good faith, the connection ends.
pub const PAYLOAD_DISCARDED_BYTES_MAX: u32 = 64 << 20;

/// What a client announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestHeader {
    flags: u16,
    command: u16,
    pub(crate) cookie: u64,
    offset: u64,
    length: u32,
}

/// What was agreed in the handshake, as far as it decides which requests are valid.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) info: ExportInfo,
    /// Replies are structured.
    pub(crate) structured: bool,
    /// The client may ask BLOCK_STATUS for base:allocation.
    pub(crate) allocation: bool,
}

/// A request that the export may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) kind: Kind,
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) fua: bool,
}

/// [`crate::Command`] before its payload was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Flush,
    Trim,
    WriteZeroes { no_hole: bool, fast: bool },
    BlockStatus { one: bool },
    Cache,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The client says good-bye.
    Disconnect,
    Accepted(Accepted),
    Refused(Errno, &'static str),
}

impl RequestHeader {
    /// None when it does not begin like a request: then client and server no longer agree where requests begin.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<RequestHeader> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (flags, rest) = rest.split_first_chunk()?;
        let (command, rest) = rest.split_first_chunk()?;
        let (cookie, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let length = rest.first_chunk()?;
        (u32::from_be_bytes(*magic) == wire::REQUEST_MAGIC).then(|| RequestHeader {
            flags: u16::from_be_bytes(*flags),
            command: u16::from_be_bytes(*command),
            cookie: u64::from_be_bytes(*cookie),
            offset: u64::from_be_bytes(*offset),
            length: u32::from_be_bytes(*length),
        })
    }

    /// How many bytes of payload follow the header, whatever becomes of the request.
    pub(crate) fn payload_bytes(&self) -> u32 {
        if self.command == command::WRITE {
            self.length
        } else {
            0
        }
    }

    /// Whether the export may be asked.
    pub(crate) fn check(&self, rules: &Rules) -> Verdict {
        let flag = |flag: u16| self.flags & flag != 0;
        // FUA is valid with every command, and means nothing where nothing is written.
        let (kind, flags_valid) = match self.command {
            command::DISC => return Verdict::Disconnect,
            command::READ => (
                Kind::Read,
                if rules.structured {
                    command_flag::DF
                } else {
                    0
                },
            ),
            command::WRITE => (Kind::Write, 0),
            command::FLUSH => (Kind::Flush, 0),
            command::TRIM => (Kind::Trim, 0),
            command::CACHE => (Kind::Cache, 0),
            command::WRITE_ZEROES => {
                let kind = Kind::WriteZeroes {
                    no_hole: flag(command_flag::NO_HOLE),
                    fast: flag(command_flag::FAST_ZERO),
                };
                (kind, command_flag::NO_HOLE | command_flag::FAST_ZERO)
            }
            command::BLOCK_STATUS => (
                Kind::BlockStatus {
                    one: flag(command_flag::REQ_ONE),
                },
                command_flag::REQ_ONE,
            ),
            _ => return Verdict::Refused(Errno::Invalid, "unknown command"),
        };
        if self.flags & !(flags_valid | command_flag::FUA) != 0 {
            return Verdict::Refused(
                Errno::Invalid,
                "a flag that this command does not have, or that was not negotiated",
            );
        }
        if let Err((errno, message)) = self.check_range(kind, rules) {
            return Verdict::Refused(errno, message);
        }
        Verdict::Accepted(Accepted {
            kind,
            offset: self.offset,
            length: self.length,
            fua: flag(command_flag::FUA),
        })
    }

    fn check_range(&self, kind: Kind, rules: &Rules) -> Result<(), (Errno, &'static str)> {
        let writes = matches!(kind, Kind::Write | Kind::Trim | Kind::WriteZeroes { .. });
        if writes && rules.info.read_only {
            return Err((Errno::Permission, "the export is read-only"));
        }
        if kind == Kind::Flush {
            let empty = self.offset == 0 && self.length == 0;
            return if empty {
                Ok(())
            } else {
                Err((Errno::Invalid, "FLUSH has no range"))
            };
        }
        if matches!(kind, Kind::BlockStatus { .. }) && !rules.allocation {
            return Err((Errno::Invalid, "base:allocation was not negotiated"));
        }
        if self.length == 0 {
            return Err((Errno::Invalid, "the range is empty"));
        }
        if matches!(kind, Kind::Read | Kind::Write) && self.length > PAYLOAD_BYTES_MAX {
            let errno = if self.flags & command_flag::DF != 0 {
                Errno::Overflow
            } else {
                Errno::Invalid
            };
            return Err((errno, "more than 32 MiB at once"));
        }
        if self
            .offset
            .checked_add(u64::from(self.length))
            .is_none_or(|end| end > rules.info.bytes)
        {
            let errno = if matches!(kind, Kind::Write | Kind::WriteZeroes { .. }) {
                Errno::NoSpace
            } else {
                Errno::Invalid
            };
            return Err((errno, "the range goes past the export's end"));
        }
        let block_bytes = rules.info.block_bytes_min;
        if !self.offset.is_multiple_of(u64::from(block_bytes))
            || !self.length.is_multiple_of(block_bytes)
        {
            return Err((
                Errno::Invalid,
                "the range is not aligned to the export's smallest block",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn rules() -> Rules {
        let info = ExportInfo {
            bytes: 64 * MIB,
            block_bytes_min: 4096,
            block_bytes_preferred: 4096,
            read_only: false,
            description: String::new(),
        };
        Rules {
            info,
            structured: true,
            allocation: true,
        }
    }

    fn header(command: u16, flags: u16, offset: u64, length: u32) -> RequestHeader {
        RequestHeader {
            flags,
            command,
            cookie: 7,
            offset,
            length,
        }
    }

    fn refusal(command: u16, flags: u16, offset: u64, length: u32) -> Option<Errno> {
        match header(command, flags, offset, length).check(&rules()) {
            Verdict::Refused(errno, _) => Some(errno),
            Verdict::Accepted(_) | Verdict::Disconnect => None,
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_header_or_nothing(bytes in any::<[u8; HEADER_BYTES]>(), magic in any::<bool>()) {
            let mut bytes = bytes;
            if magic {
                bytes[..4].copy_from_slice(&wire::REQUEST_MAGIC.to_be_bytes());
            }
            let decoded = RequestHeader::decode(&bytes);
            prop_assert!(decoded.is_some() || !magic);
        }

        #[test]
        fn what_is_accepted_lies_in_the_export_and_is_aligned(command in 0u16..10, flags in 0u16..64,
                offset in prop_oneof![any::<u64>(), (0u64..20_000).prop_map(|block| block * 4096)],
                length in prop_oneof![any::<u32>(), (0u32..20_000).prop_map(|block| block * 4096)], read_only in any::<bool>()) {
            let mut rules = rules();
            rules.info.read_only = read_only;
            if let Verdict::Accepted(accepted) = header(command, flags, offset, length).check(&rules) {
                prop_assert!(accepted.offset.checked_add(u64::from(accepted.length)).is_some_and(|end| end <= rules.info.bytes));
                prop_assert!(accepted.offset % 4096 == 0 && accepted.length % 4096 == 0);
                prop_assert_eq!(accepted.length == 0, accepted.kind == Kind::Flush);
                if matches!(accepted.kind, Kind::Read | Kind::Write) {
                    prop_assert!(accepted.length <= PAYLOAD_BYTES_MAX);
                }
                if read_only {
                    let writes = matches!(accepted.kind, Kind::Write | Kind::Trim | Kind::WriteZeroes { .. });
                    prop_assert!(!writes);
                }
            }
        }
    }

    #[test]
    fn writes_past_the_end_find_no_space_and_others_are_invalid() {
        let end = 64 * MIB;
        for (command, errno) in [
            (command::WRITE, Errno::NoSpace),
            (command::WRITE_ZEROES, Errno::NoSpace),
            (command::READ, Errno::Invalid),
            (command::TRIM, Errno::Invalid),
            (command::CACHE, Errno::Invalid),
            (command::BLOCK_STATUS, Errno::Invalid),
        ] {
            assert_eq!(
                refusal(command, 0, end, 4096),
                Some(errno),
                "command {command}"
            );
            assert_eq!(
                refusal(command, 0, u64::MAX - 4095, 4096),
                Some(errno),
                "command {command}"
            );
            assert_eq!(
                refusal(command, 0, end - 4096, 4096),
                None,
                "command {command}"
            );
            assert_eq!(
                refusal(command, 0, 512, 4096),
                Some(Errno::Invalid),
                "command {command}"
            );
            assert_eq!(
                refusal(command, 0, 0, 512),
                Some(Errno::Invalid),
                "command {command}"
            );
            assert_eq!(
                refusal(command, 0, 0, 0),
                Some(Errno::Invalid),
                "command {command}"
            );
        }
    }

    #[test]
    fn each_command_has_its_flags_and_fua() {
        let all = [
            (command::READ, command_flag::DF),
            (command::WRITE, 0),
            (command::TRIM, 0),
            (command::CACHE, 0),
            (
                command::WRITE_ZEROES,
                command_flag::NO_HOLE | command_flag::FAST_ZERO,
            ),
            (command::BLOCK_STATUS, command_flag::REQ_ONE),
        ];
        for (command, valid) in all {
            for bit in 0..16 {
                let flag = 1 << bit;
                let accepted = refusal(command, flag, 0, 4096).is_none();
                assert_eq!(
                    accepted,
                    flag & (valid | command_flag::FUA) != 0,
                    "command {command} flag {flag}"
                );
            }
        }
    }

    #[test]
    fn a_read_or_write_has_32_mib_at_most_and_other_ranges_4_gib() {
        assert_eq!(refusal(command::READ, 0, 0, PAYLOAD_BYTES_MAX), None);
        assert_eq!(
            refusal(command::READ, 0, 0, PAYLOAD_BYTES_MAX + 4096),
            Some(Errno::Invalid)
        );
        assert_eq!(
            refusal(command::READ, command_flag::DF, 0, PAYLOAD_BYTES_MAX + 4096),
            Some(Errno::Overflow)
        );
        assert_eq!(
            refusal(command::WRITE, 0, 0, PAYLOAD_BYTES_MAX + 4096),
            Some(Errno::Invalid)
        );
        assert_eq!(refusal(command::WRITE_ZEROES, 0, 0, 64 << 20), None);
    }
}

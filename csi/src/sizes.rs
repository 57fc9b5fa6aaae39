//! Sizes of volumes within the range that an orchestrator allows.

use isthmus_csi_interface::v1::CapacityRange;
use tonic::Status;

/// A volume's size where nothing is said.
const DEFAULT_BYTES: u64 = 1 << 30;
/// Sizes are multiples of this where the range allows it.
const USUAL_STEP_BYTES: u64 = 1 << 20;
/// Sizes are multiples of this in any case.
const STEP_BYTES: u64 = 4096;
/// The largest volume.
const BYTES_MAX: u64 = 256 << 40;

/// What an orchestrator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// At least.
    required: u64,
    /// At most; none for no end.
    limit: Option<u64>,
}

impl Range {
    /// Reads a range; none allows everything.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for what is no range, OUT_OF_RANGE for one that holds nothing.
    pub fn read(range: Option<&CapacityRange>) -> Result<Range, Status> {
        let (required, limit) =
            range.map_or((0, 0), |range| (range.required_bytes, range.limit_bytes));
        let (Ok(required), Ok(limit)) = (u64::try_from(required), u64::try_from(limit)) else {
            return Err(Status::invalid_argument("capacity_range is negative"));
        };
        let limit = Some(limit).filter(|limit| *limit > 0);
        if limit.is_some_and(|limit| limit < required) {
            return Err(Status::out_of_range(
                "capacity_range.limit_bytes is less than required_bytes",
            ));
        }
        Ok(Range { required, limit })
    }

    /// Whether a volume of that size does.
    pub fn holds(self, bytes: u64) -> bool {
        bytes >= self.required && self.limit.is_none_or(|limit| bytes <= limit)
    }

    /// Whether a volume of that size is large enough.
    pub fn is_reached_by(self, bytes: u64) -> bool {
        bytes >= self.required
    }

    /// The size of a new or larger volume.
    ///
    /// # Errors
    /// OUT_OF_RANGE when no size of a volume is in the range.
    pub fn choose(self) -> Result<u64, Status> {
        let wanted = match (self.required, self.limit) {
            (0, None) => DEFAULT_BYTES,
            (0, Some(limit)) => DEFAULT_BYTES.min(limit - limit % STEP_BYTES),
            (required, _) => required,
        };
        [USUAL_STEP_BYTES, STEP_BYTES]
            .into_iter()
            .filter_map(|step| wanted.checked_next_multiple_of(step))
            .find(|bytes| *bytes > 0 && *bytes <= BYTES_MAX && self.holds(*bytes))
            .ok_or_else(|| {
                Status::out_of_range(format!(
                    "no volume has a size in this range: sizes are multiples of {STEP_BYTES} bytes, up to 256 TiB"
                ))
            })
    }
}

/// A size as the interface writes it.
pub fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn chosen(required_bytes: i64, limit_bytes: i64) -> Result<u64, Code> {
        let range = CapacityRange {
            required_bytes,
            limit_bytes,
        };
        Range::read(Some(&range))
            .and_then(Range::choose)
            .map_err(|status| status.code())
    }

    #[test]
    fn a_size_is_the_smallest_round_one_in_the_range() {
        assert_eq!(chosen(0, 0), Ok(1 << 30));
        assert_eq!(chosen(10 << 30, 0), Ok(10 << 30));
        assert_eq!(chosen(1, 0), Ok(1 << 20));
        assert_eq!(chosen(1, 8192), Ok(4096));
        assert_eq!(chosen(0, 8193), Ok(8192));
        assert_eq!(chosen(0, 2 << 30), Ok(1 << 30));
    }

    #[test]
    fn a_range_without_a_size_is_refused() {
        assert_eq!(chosen(-1, 0), Err(Code::InvalidArgument));
        assert_eq!(chosen(0, -1), Err(Code::InvalidArgument));
        assert_eq!(chosen(2, 1), Err(Code::OutOfRange));
        assert_eq!(chosen(1, 4095), Err(Code::OutOfRange));
        assert_eq!(chosen(4097, 8191), Err(Code::OutOfRange));
        assert_eq!(chosen(i64::MAX, 0), Err(Code::OutOfRange));
    }
}

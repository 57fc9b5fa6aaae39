//! Sizes as people write and read them: `10GiB`, `10G`, `512MiB`, plain bytes. All units are powers of 1024.

/// Bytes from a text such as `10GiB`, `10G`, `10g`, `512 MiB`, `4096`.
///
/// # Errors
/// A sentence that says what is wrong with the text, and what would be right.
pub fn parse(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let digits = trimmed.chars().take_while(char::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    if number.is_empty() {
        return Err(format!(
            "'{text}' is no size: write a whole number with a unit, e.g. 10GiB, 512MiB or 4096"
        ));
    }
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        "kb" | "mb" | "gb" | "tb" => {
            return Err(format!(
                "the unit of '{text}' may mean two things: write KiB, MiB, GiB or TiB (powers of 1024)"
            ));
        }
        _ => {
            return Err(format!(
                "'{text}' has an unknown unit: use KiB, MiB, GiB, TiB or none (bytes)"
            ));
        }
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(1 << shift))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| {
            format!("'{text}' is out of range: a size is more than 0 and less than 16 EiB")
        })
}

/// Bytes in the largest unit that keeps three figures: `1.0 GiB`, `312 MiB`.
#[must_use]
pub fn format(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (63 - bytes.leading_zeros()) / 10;
    let unit = UNITS[power as usize - 1];
    let whole = 1_u64 << (power * 10);
    if bytes.is_multiple_of(whole) {
        return format!("{} {unit}", bytes / whole);
    }
    format!("{:.1} {unit}", bytes as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        assert_eq!(parse("10GiB"), Ok(10 << 30));
        assert_eq!(parse("10G"), Ok(10 << 30));
        assert_eq!(parse("512 mib"), Ok(512 << 20));
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("16777215T"), Ok(16_777_215 << 40));
    }

    #[test]
    fn what_is_no_size_is_refused_with_a_reason() {
        for (text, word) in [
            ("", "no size"),
            ("GiB", "no size"),
            ("-1", "no size"),
            ("1.5G", "unknown unit"),
            ("1X", "unknown unit"),
            ("10GB", "two things"),
            ("0", "out of range"),
            ("99999999999999999999", "out of range"),
            ("16777216T", "out of range"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_written_in_the_largest_fitting_unit() {
        assert_eq!(format(0), "0 B");
        assert_eq!(format(1023), "1023 B");
        assert_eq!(format(1 << 30), "1 GiB");
        assert_eq!(format(1536 << 20), "1.5 GiB");
        assert_eq!(format(u64::MAX), "16.0 EiB");
    }
}

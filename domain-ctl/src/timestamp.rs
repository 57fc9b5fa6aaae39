//! Times for people: Go's RFC 822 layout in UTC (`22 Nov 26 10:04 UTC`), as storkctl prints them.

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `22 Nov 26 10:04 UTC`; empty for 0, which stands for "not known".
pub fn rfc822(ms: u64) -> String {
    if ms == 0 {
        return String::new();
    }
    let minutes = ms / 60_000;
    let (year, month, day) = civil_from_days(minutes / 1440);
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    format!(
        "{day:02} {} {:02} {hour:02}:{minute:02} UTC",
        MONTHS[month as usize - 1],
        year % 100
    )
}

/// `2026-11-22 10:04:05 UTC`; empty for 0, which stands for "not known".
pub fn to_the_second(ms: u64) -> String {
    if ms == 0 {
        return String::new();
    }
    let seconds = ms / 1000;
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day in the Gregorian calendar of a day counted from 1970-01-01.
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`, for days after 1970 only.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // Days from 0000-03-01: leap days come last in such a year.
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// How long ago, in the largest unit that fits: `5s`, `12m`, `3h`, `40d`.
pub fn age(now_ms: u64, then_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_rfc822() {
        assert_eq!(rfc822(1_795_341_840_000), "22 Nov 26 10:04 UTC");
        assert_eq!(rfc822(951_782_400_000), "29 Feb 00 00:00 UTC");
        assert_eq!(rfc822(1), "01 Jan 70 00:00 UTC");
        assert_eq!(rfc822(0), "");
    }

    #[test]
    fn events_are_told_apart_to_the_second() {
        assert_eq!(to_the_second(1_795_341_845_999), "2026-11-22 10:04:05 UTC");
        assert_eq!(to_the_second(0), "");
    }

    #[test]
    fn ages_have_one_unit() {
        assert_eq!(age(10_000, 5_000), "5s");
        assert_eq!(age(5_000, 10_000), "0s");
        assert_eq!(age(3_600_000, 0), "60m");
        assert_eq!(age(86_400_000 * 40, 0), "40d");
    }
}

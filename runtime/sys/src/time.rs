// SPDX-License-Identifier: Apache-2.0
//! The time of day, and civil dates in UTC: days since 1970 as year, month and day, and RFC 3339.
//!
//! Pure but for [`now_ns`] and [`rfc3339_now`]. Leap seconds do not exist here, as in the clock of the kernel.

use std::time::{SystemTime, UNIX_EPOCH};

const NANOS: i64 = 1_000_000_000;
const DAY_S: i64 = 86_400;
/// Length of what [`rfc3339`] writes, in bytes.
pub const RFC3339_BYTES: usize = 30;

/// Nanoseconds since 1970-01-01; 0 if the clock is set to an earlier time.
#[must_use]
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // In 2262 the count no longer fits.
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Year, month and day of the month, both from 1, of a number of days since 1970-01-01.
#[must_use]
pub fn date_of(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the leap day is the last day of its year.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// The number of days since 1970-01-01 of a date of the Gregorian calendar; the inverse of [`date_of`].
#[must_use]
pub fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// A time in nanoseconds since 1970 as RFC 3339 in UTC, with nine digits of the second:
/// `2016-10-06T00:17:09.669794202Z`. Without allocation: every batch of a container's log has one.
#[must_use]
pub fn rfc3339(at_ns: i64) -> [u8; RFC3339_BYTES] {
    let (seconds, nanos) = (at_ns.div_euclid(NANOS), at_ns.rem_euclid(NANOS));
    let (days, of_day) = (seconds.div_euclid(DAY_S), seconds.rem_euclid(DAY_S));
    let (year, month, day) = date_of(days);
    let mut text = *b"YYYY-mm-ddTHH:MM:SS.nnnnnnnnnZ";
    for (value, at, digits) in [
        // Nanoseconds in 64 bits reach from 1677 to 2262.
        (year, 0, 4),
        (month, 5, 2),
        (day, 8, 2),
        (of_day / 3600, 11, 2),
        (of_day / 60 % 60, 14, 2),
        (of_day % 60, 17, 2),
        (nanos, 20, 9),
    ] {
        let mut rest = value;
        for place in text[at..at + digits].iter_mut().rev() {
            *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
    }
    text
}

/// The time of day as [`rfc3339`] writes it.
#[must_use]
pub fn rfc3339_now() -> String {
    String::from_utf8_lossy(&rfc3339(now_ns())).into_owned()
}

/// Parses RFC 3339, with or without a fraction of the second, in UTC or with an offset, into nanoseconds since 1970;
/// `None` if it is not in this format or not between 1678 and 2262.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let zone = rest.find(['Z', 'z', '+', '-']).filter(|at| rest.is_char_boundary(*at))?;
    let (clock, zone) = rest.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let is_date =
        (1..=12).contains(&month) && date_of(days_of(year, month, day)) == (year, month, day);
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let offset_s = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let [hours, minutes] = numbers(offset, ':', [2, 2])?;
            let seconds = hours * 3600 + minutes * 60;
            if sign == "-" { -seconds } else { seconds }
        }
    };
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse::<i64>().ok()?;
    let of_day = hour * 3600 + minute * 60 + second - offset_s;
    days_of(year, month, day)
        .checked_mul(DAY_S)?
        .checked_add(of_day)?
        .checked_mul(NANOS)?
        .checked_add(nanos)
}

/// The numbers between separators, each of exactly so many digits.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (at, wanted) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (951_782_400 * NANOS, "2000-02-29T00:00:00.000000000Z"),
            (1_475_713_029_669_794_202, "2016-10-06T00:17:09.669794202Z"),
            (1_795_698_908 * NANOS + 5, "2026-11-26T13:15:08.000000005Z"),
            (4_107_542_399 * NANOS + 1, "2100-02-28T23:59:59.000000001Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(String::from_utf8_lossy(&rfc3339(at)), wanted);
        }
    }

    #[test]
    fn every_day_follows_the_one_before_and_reads_back() {
        let (mut year, mut month, mut day) = date_of(-200_000);
        for days in -200_000..200_000 {
            assert_eq!(date_of(days), (year, month, day), "day {days}");
            assert_eq!(days_of(year, month, day), days);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == last => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn rfc3339_is_read_as_it_is_written_and_with_offsets() {
        for at in [0, 1, 1_475_713_029_669_794_202, -1_000_000_000] {
            let text = String::from_utf8_lossy(&rfc3339(at)).into_owned();
            assert_eq!(parse_rfc3339(&text), Some(at), "{text}");
        }
        assert_eq!(parse_rfc3339("1970-01-01T01:00:01+01:00"), Some(NANOS));
        assert_eq!(parse_rfc3339("1969-12-31T23:00:00.5-01:00"), Some(500_000_000));
        for text in [
            "",
            "1970-01-01",
            "1970-02-30T00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00",
            "9999-01-01T00:00:00Z",
            "1970-01-01T00:00:00+1",
            "1970-01-01T00:00:00é",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}

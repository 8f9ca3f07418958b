// SPDX-License-Identifier: Apache-2.0
//! The time of day as RFC 3339 has it, in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn now() -> String {
    // A clock before 1970 is shown as 1970.
    shown(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn shown(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let nanos = since_1970.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Year, month and day of a day since 1970. Counted in years that begin in March, so that the leap day
/// is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let since_0 = days + 719_468;
    let (era, of_era) = (since_0 / 146_097, since_0 % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        assert_eq!(shown(Duration::ZERO), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(shown(Duration::from_secs(951_782_400)), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(shown(Duration::new(1_795_698_908, 5)), "2026-11-26T13:15:08.000000005Z");
    }
}

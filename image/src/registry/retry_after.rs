// SPDX-License-Identifier: Apache-2.0
//! How long a `Retry-After` header asks to wait: RFC 9110, 10.2.3.
//!
//! Pure.

use hull_sys::time::days_of;
use std::time::Duration;

/// Parses seconds, or a date, which is compared with the response's own `Date`: clocks differ.
pub(super) fn parse(text: &str, now: Option<&str>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (then, now) = (date(text)?, date(now?)?);
    Some(Duration::from_secs(then.saturating_sub(now)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in seconds since 1970: RFC 9110, 5.6.7.
fn date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_whitespace().skip(1);
    let day = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = words.next()?;
    let month = 1 + MONTHS.iter().position(|month| *month == name)?;
    let year = words.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let mut time = words.next()?.split(':').map(str::parse::<u32>);
    let mut part = || time.next()?.ok().map(u64::from);
    let (hour, minute, second) = (part()?, part()?, part()?);
    let days = days_of(year, i64::try_from(month).ok()?, day);
    let days = u64::try_from(days).ok()?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_come_back_is_seconds_or_a_date() {
        let now = Some("Tue, 28 Feb 2028 23:59:50 GMT");
        for (text, wanted) in [
            ("7", Some(7)),
            ("Tue, 29 Feb 2028 00:00:00 GMT", Some(10)),
            ("Wed, 01 Mar 2028 00:00:00 GMT", Some(86_410)),
            ("Tue, 28 Feb 2028 00:00:00 GMT", Some(0)),
            ("soon", None),
            ("Tue, 29 Foo 2028 00:00:00 GMT", None),
        ] {
            assert_eq!(parse(text, now).map(|of| of.as_secs()), wanted, "{text}");
        }
        assert_eq!(parse("Tue, 29 Feb 2028 00:00:00 GMT", None), None);
    }
}

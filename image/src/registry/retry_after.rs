// SPDX-License-Identifier: Apache-2.0
//! How long a `Retry-After` header asks to wait: RFC 9110, 10.2.3.
//!
//! Pure.

use hull_sys::time::days_of;
use std::time::Duration;

/// Parses seconds, or a date, which is compared with the response's own `Date`: clocks differ. Without that one it is
/// compared with `clock`, in seconds since 1970. A number that is too large is the largest.
pub(super) fn parse(text: &str, now: Option<&str>, clock: u64) -> Option<Duration> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !whole.is_empty() && is_number(whole) && is_number(fraction) {
        // Some servers send fractions: rounded up, so that the next request is not too early.
        let part = u64::from(fraction.bytes().any(|byte| byte != b'0'));
        let seconds = whole.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(u64::saturating_add(seconds, part)));
    }
    let then = date(text)?;
    let now = now.and_then(date).unwrap_or(clock);
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
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "\\PC{0,40}", day in "[0-9]{1,20}", year in "[0-9]{1,20}") {
            let _any = parse(&text, Some(&text), 0);
            let date = format!("Sun, {day} Nov {year} {day}:{year}:{day} GMT");
            let _any = parse(&date, Some(&date), u64::MAX);
        }
    }

    #[test]
    fn a_time_to_come_back_is_seconds_or_a_date() {
        let now = Some("Tue, 28 Feb 2028 23:59:50 GMT");
        for (text, wanted) in [
            ("7", Some(7)),
            ("Tue, 29 Feb 2028 00:00:00 GMT", Some(10)),
            ("Wed, 01 Mar 2028 00:00:00 GMT", Some(86_410)),
            ("Tue, 28 Feb 2028 00:00:00 GMT", Some(0)),
            ("1.5", Some(2)),
            ("2.0", Some(2)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("18446744073709551615.9", Some(u64::MAX)),
            ("-1", None),
            (".", None),
            ("", None),
            ("1e3", None),
            ("soon", None),
            ("Tue, 29 Foo 2028 00:00:00 GMT", None),
        ] {
            assert_eq!(parse(text, now, 0).map(|of| of.as_secs()), wanted, "{text}");
        }
        let there = date("Tue, 29 Feb 2028 00:00:00 GMT").unwrap();
        for now in [None, Some("soon")] {
            let wait = parse("Tue, 29 Feb 2028 00:00:03 GMT", now, there);
            assert_eq!(wait, Some(Duration::from_secs(3)));
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Parses the values of flags. Pure.

use super::error::{Error, Result};
use crate::config::{LAYER_MIN, Size, decimal};
use hull_plan::accounts::{Account, UserSpec};
use hull_proto::cri as api;
use std::ops::RangeInclusive;
use std::time::Duration;

pub(super) fn bad(flag: &'static str, value: &str, why: impl Into<String>) -> Error {
    Error::BadFlag { flag, value: value.to_owned(), why: why.into() }
}

/// The mount of `dst[:option,…]` with a source on the host; `text` is the whole value, for errors.
pub(crate) fn volume(text: &str, source: &str, rest: &str) -> Result<api::Mount> {
    let bad = |why: String| bad("--volume", text, why);
    let (to, options) = rest.split_once(':').unwrap_or((rest, ""));
    if !to.starts_with('/') {
        return Err(bad(format!("`{to}` is not an absolute path of the container")));
    }
    let mut mount = api::Mount {
        host_path: source.to_owned(),
        container_path: to.to_owned(),
        ..Default::default()
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.readonly = true,
            "rro" => {
                mount.readonly = true;
                mount.recursive_read_only = true;
            }
            "rw" => mount.readonly = false,
            "private" | "rprivate" => {
                mount.set_propagation(api::MountPropagation::PropagationPrivate);
            }
            "slave" | "rslave" => {
                mount.set_propagation(api::MountPropagation::PropagationHostToContainer);
            }
            "shared" | "rshared" => {
                mount.set_propagation(api::MountPropagation::PropagationBidirectional);
            }
            other => {
                return Err(bad(format!(
                    "`{other}` is none of ro, rro, rw, rprivate, rslave, rshared"
                )));
            }
        }
    }
    Ok(mount)
}

/// Parses `KEY=VALUE`, or `KEY` for the value of `own`; `None` if `own` has none.
pub(crate) fn env(
    text: &str,
    own: impl Fn(&str) -> Option<String>,
) -> Result<Option<api::KeyValue>> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, own(text)),
    };
    if key.is_empty() {
        return Err(bad("--env", text, "it is not KEY[=VALUE]"));
    }
    Ok(value.map(|value| api::KeyValue { key: key.to_owned(), value: value.into_bytes() }))
}

/// Parses a size in bytes that is more than 0: `64m`, `1.5g`, `1Gi`, `1048576`.
pub(crate) fn size(flag: &'static str, text: &str) -> Result<i64> {
    let size = Size::parse(text).map_err(|why| bad(flag, text, why))?;
    // Every size is one with a sign.
    i64::try_from(size.bytes()).map_err(|_| bad(flag, text, "it is too large"))
}

/// The limit of the writable layer, in bytes.
pub(crate) fn layer_size(options: &[String]) -> Result<Option<String>> {
    let mut found = None;
    for option in options {
        let text = option.strip_prefix("size=").ok_or_else(|| {
            bad("--storage-opt", option, "it is not size=SIZE, the only option that Hull has")
        })?;
        let size = Size::parse(text).map_err(|why| bad("--storage-opt", option, why))?;
        if size < LAYER_MIN {
            let why = format!("it must be at least {LAYER_MIN}");
            return Err(bad("--storage-opt", option, why));
        }
        found = Some(size.bytes().to_string());
    }
    Ok(found)
}

/// Parses a memory limit in bytes. The kernel counts pages, so less than a page would mean no limit.
pub(crate) fn memory(text: &str) -> Result<i64> {
    let bytes = size("--memory", text)?;
    if bytes < MEMORY_BYTES_MIN {
        let unit = if text.bytes().all(|b| b.is_ascii_digit()) {
            format!("; without a unit it is a number of bytes: `{text}m` is {text} MiB")
        } else {
            String::new()
        };
        let why = format!("it must be at least 512k: a process cannot start with less{unit}");
        return Err(bad("--memory", text, why));
    }
    Ok(bytes)
}

/// Smallest memory limit with which a process starts, in bytes.
const MEMORY_BYTES_MIN: i64 = 512 << 10;

/// A parser of whole numbers in `range`; `what` names them in errors.
pub(crate) fn number<T>(
    what: &'static str,
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display + Clone,
{
    move |text| {
        let number = text.parse::<T>().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            format!("it is not a number of {what} from {} to {}", range.start(), range.end())
        })
    }
}

/// Parses a number of lines, or `all` as docker has it, and -1 as kubectl does.
pub(crate) fn lines(text: &str) -> Result<usize, String> {
    if matches!(text, "all" | "-1") {
        return Ok(usize::MAX);
    }
    number("lines", 0..=usize::MAX)(text)
}

/// Parses a number of CPUs into a quota in microseconds per [`CPU_PERIOD_US`].
pub(crate) fn cpus(text: &str) -> Result<i64> {
    let bad = |why: &str| bad("--cpus", text, why);
    let quota =
        decimal(text, CPU_PERIOD_US).ok_or_else(|| bad("it is not a number such as 0.5"))?;
    match i64::try_from(quota) {
        // The minimum of the kernel (CONFIG_CFS_BANDWIDTH, min_cfs_quota_period).
        Ok(quota) if quota >= 1_000 => Ok(quota),
        Ok(_) => Err(bad("it must be at least 0.01: the minimum of the kernel is 1 ms in 100")),
        Err(_) => Err(bad("it is too large")),
    }
}

/// Parses a signal: `KILL`, `SIGKILL` or `9`.
pub(crate) fn signal(text: &str) -> Result<i32, String> {
    hull_plan::signals::number(text)
        .ok_or_else(|| "it is not the name or number of a signal".into())
}

/// Parses a time, RFC 3339 or seconds since 1970, or a duration before `now_ns` as in `10m` or `1h30m`, into
/// nanoseconds since 1970.
pub(crate) fn time(flag: &'static str, text: &str, now_ns: i64) -> Result<i64> {
    const NANOS: i64 = 1_000_000_000;
    // Without an offset it is UTC, and a day alone begins at midnight.
    let forms = [text.to_owned(), format!("{text}Z"), format!("{text}T00:00:00Z")];
    if let Some(at) = forms.iter().find_map(|form| hull_sys::time::parse_rfc3339(form)) {
        return Ok(at);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(NANOS).ok_or_else(|| bad(flag, text, "it is too large"));
    }
    duration_ns(text).map(|before| now_ns.saturating_sub(before)).map_err(|_| {
        bad(
            flag,
            text,
            "it is neither a time such as 2026-01-02T03:04:05Z or 2026-01-02 nor a duration such as 10m",
        )
    })
}

/// Parses a duration that is more than 0, as in `10m` or `1h30m`.
pub(crate) fn duration(flag: &'static str, text: &str) -> Result<Duration> {
    let nanos = duration_ns(text).map_err(|why| bad(flag, text, why))?;
    match u64::try_from(nanos) {
        Ok(1..) => Ok(Duration::from_nanos(nanos.unsigned_abs())),
        Ok(0) | Err(_) => Err(bad(flag, text, "it must be more than 0")),
    }
}

/// A duration of numbers with the units d, h, m, s and ms, in nanoseconds. The error is a sentence without its subject.
fn duration_ns(text: &str) -> Result<i64, &'static str> {
    const MALFORMED: &str = "it is not a duration such as 10m or 1h30m";
    const LONG: &str = "it is too long: the longest is 106751d";
    let (mut total, mut rest) = (0_i64, text);
    while !rest.is_empty() {
        let digits =
            rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0).ok_or(MALFORMED)?;
        let (number, after) = rest.split_at(digits);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale: i64 = match unit {
            "d" => 86_400_000_000_000,
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            _ => return Err(MALFORMED),
        };
        // Of digits alone: one that is not a number is too large.
        let number = number.parse::<i64>().ok().and_then(|number| number.checked_mul(scale));
        total = number.and_then(|number| total.checked_add(number)).ok_or(LONG)?;
        rest = after;
    }
    if text.is_empty() { Err(MALFORMED) } else { Ok(total) }
}

/// The period of CPU quotas, in microseconds.
pub(crate) const CPU_PERIOD_US: u128 = 100_000;

/// Parses `USER[:GROUP]`, numbers or names. The name of a group is returned: CRI has no field for it.
pub(crate) fn user(
    text: &str,
    into: &mut api::LinuxContainerSecurityContext,
) -> Result<Option<String>> {
    let asked = UserSpec::parse(text).map_err(|err| bad("--user", text, err.to_string()))?;
    let number = |id| Some(api::Int64Value { value: i64::from(id) });
    match asked.user {
        Account::Id(uid) => into.run_as_user = number(uid),
        Account::Name(name) => into.run_as_username = name,
    }
    match asked.group {
        None => Ok(None),
        Some(Account::Id(gid)) => {
            into.run_as_group = number(gid);
            Ok(None)
        }
        Some(Account::Name(name)) => Ok(Some(name)),
    }
}

/// Parses groups, numbers or names. The names are returned, separated by commas: CRI has no field for them.
pub(crate) fn groups(
    texts: &[String],
    into: &mut api::LinuxContainerSecurityContext,
) -> Result<Option<String>> {
    let mut names = Vec::new();
    for text in texts {
        let group = Account::parse(text).map_err(|_| {
            bad("--group-add", text, "it is neither the name nor the number of a group")
        })?;
        match group {
            Account::Id(gid) => into.supplemental_groups.push(i64::from(gid)),
            Account::Name(name) => names.push(name),
        }
    }
    Ok(Some(names.join(",")).filter(|names| !names.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn volumes_are_read_with_their_options() {
        let volume = |rest: &str| super::volume(rest, "/a", rest);
        let mount = volume("/b").unwrap();
        assert!(!mount.readonly && mount.propagation == 0);
        let mount = volume("/b:ro,rslave").unwrap();
        assert!(mount.readonly && !mount.recursive_read_only);
        assert_eq!(mount.propagation(), api::MountPropagation::PropagationHostToContainer);
        let mount = volume("/b:rro").unwrap();
        assert!(mount.readonly && mount.recursive_read_only);
        for bad in ["b", "/b:z", ""] {
            volume(bad).unwrap_err();
        }
    }

    #[test]
    fn variables_come_with_a_value_or_from_our_own() {
        let own = |key: &str| (key == "HOME").then(|| "/root".to_owned());
        assert_eq!(env("A=b=c", own).unwrap().unwrap().value, b"b=c");
        assert_eq!(env("HOME", own).unwrap().unwrap().value, b"/root");
        assert_eq!(env("NONE", own).unwrap(), None);
        assert_eq!(env("A=", own).unwrap().unwrap().value, b"");
        env("=b", own).unwrap_err();
    }

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, bytes) in [
            ("1", 1),
            ("64m", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("10kb", 10 << 10),
            (".5k", 512),
            ("2T", 2 << 40),
        ] {
            assert_eq!(size("--memory", text).unwrap(), bytes, "{text}");
        }
        for text in ["", "m", "0", "1x", "-1", "1.2.3", "9999999999999t", "1e3", "٣"] {
            size("--memory", text).unwrap_err();
        }
    }

    #[test]
    fn the_only_storage_option_is_a_size() {
        let of = |text: &str| layer_size(&[text.to_owned()]);
        assert_eq!(layer_size(&[]).unwrap(), None);
        assert_eq!(of("size=1g").unwrap().as_deref(), Some("1073741824"));
        for (bad, why) in [
            ("1g", "not size=SIZE"),
            ("size=", "not a size such as 64m"),
            ("size=fast", "not a size such as 64m"),
            ("size=-1", "it is less than 0"),
            ("size=0", "it must be more than 0"),
            ("size=1k", "it must be at least 1m"),
            ("size=1x", "its unit is none of"),
            ("mode=1", "not size=SIZE"),
        ] {
            let said = of(bad).unwrap_err().to_string();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }

    #[test]
    fn a_duration_that_cannot_be_used_says_why() {
        assert_eq!(duration("--for", "1h30m").unwrap(), Duration::from_secs(5400));
        for (text, why) in [
            ("0s", "more than 0"),
            ("0", "not a duration"),
            ("s", "not a duration"),
            ("", "not a duration"),
            ("5x", "not a duration"),
            ("200000d", "too long"),
            ("99999999999999999999s", "too long"),
            ("106751d99999h", "too long"),
        ] {
            let said = duration("--for", text).unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn a_limit_that_no_process_can_start_with_is_refused() {
        assert_eq!(memory("512k").unwrap(), 512 << 10);
        for text in ["1", "1k", "4095", "511k"] {
            let said = memory(text).unwrap_err().to_string();
            assert!(said.contains("at least 512k"), "{said}");
        }
        let said = memory("100").unwrap_err().to_string();
        assert!(said.contains("number of bytes: `100m` is 100 MiB"), "{said}");
    }

    #[test]
    fn times_are_points_or_durations() {
        let now = 10_000_000_000_000;
        for (text, at) in [
            ("1970-01-01T00:00:01Z", 1_000_000_000),
            ("1970-01-01T00:00:01", 1_000_000_000),
            ("1970-01-02", 86_400_000_000_000),
            ("5", 5_000_000_000),
            ("10s", now - 10_000_000_000),
            ("1h30m", now - 5_400_000_000_000),
        ] {
            assert_eq!(time("--since", text, now).unwrap(), at, "{text}");
        }
        for text in ["", "x", "10", "1y", "s", "99999999999999999999h", "m5"] {
            assert_eq!(time("--since", text, now).is_ok(), text == "10", "{text}");
        }
    }

    #[test]
    fn a_duration_is_more_than_nothing() {
        assert_eq!(duration("--for", "1h30m").unwrap(), Duration::from_secs(5400));
        for text in ["", "0s", "10", "-1m", "x", "1y"] {
            duration("--for", text).unwrap_err();
        }
    }

    #[test]
    fn a_number_says_what_it_is_a_number_of() {
        let lines = number("lines", 0..=10_u32);
        assert_eq!(lines("10").unwrap(), 10);
        for text in ["", "x", "-1", "11", "1.5", "99999999999999999999"] {
            assert_eq!(lines(text).unwrap_err(), "it is not a number of lines from 0 to 10");
        }
    }

    #[test]
    fn processors_become_quota() {
        assert_eq!(cpus("0.5").unwrap(), 50_000);
        assert_eq!(cpus("2").unwrap(), 200_000);
        assert_eq!(cpus("0.01").unwrap(), 1_000);
        for text in ["", "0", "0.001", "-1", "x", "nan"] {
            cpus(text).unwrap_err();
        }
    }

    #[test]
    fn users_are_numbers_or_names() {
        let read = |text| {
            let mut to = api::LinuxContainerSecurityContext::default();
            user(text, &mut to).map(|_| to)
        };
        assert_eq!(read("1000").unwrap().run_as_user.unwrap().value, 1000);
        let both = read("nginx:101").unwrap();
        assert_eq!(
            (both.run_as_username.as_str(), both.run_as_group.unwrap().value),
            ("nginx", 101)
        );
        assert_eq!(
            user("1:staff", &mut api::LinuxContainerSecurityContext::default()).unwrap(),
            Some("staff".into())
        );
        for text in ["", ":1", "4294967296", "-1", "1:-1"] {
            read(text).unwrap_err();
        }
    }

    #[test]
    fn groups_are_numbers_or_names() {
        let mut to = api::LinuxContainerSecurityContext::default();
        let names = groups(&["7".into(), "video".into(), "audio".into()], &mut to).unwrap();
        assert_eq!(
            (names.as_deref(), to.supplemental_groups.as_slice()),
            (Some("video,audio"), &[7][..])
        );
        for text in ["", "-1", "a,b", "4294967295"] {
            groups(&[text.to_owned()], &mut to).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,40}") {
            let _either = volume(&text, "/a", &text);
            let _either = size("--memory", &text);
            let _either = cpus(&text);
            let _either = user(&text, &mut api::LinuxContainerSecurityContext::default());
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Properties of a scope: those of its limits, and those that annotations set.

use super::message::Value;
use crate::error::{Error, Result};
use hull_cgroup::{CgroupFs, Limits, Version};
use std::collections::BTreeMap;

/// The properties in annotations (`org.systemd.property.NAME`), whose values have the text form of GVariant.
pub(crate) fn of_annotations(
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<(String, Value)>> {
    let mut properties = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix("org.systemd.property.") else { continue };
        // What says whose processes they are, and where, is not the caller's.
        let is_own = matches!(name, "PIDs" | "Slice" | "Delegate" | "CollectMode");
        let is_name = name.len() >= 3 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let value = value_of(text).filter(|_| is_name && !is_own);
        let Some(property) = value.and_then(|value| in_microseconds(name, value)) else {
            let what = format!("annotation {key}={text}");
            return Err(Error::NotSupported { what, hint: "leave this annotation out" });
        };
        properties.push(property);
    }
    Ok(properties)
}

/// The property as systemd takes it over its socket: a time of a unit file, in seconds (`TimeoutStopSec`), is one in
/// microseconds there. As with runc; `None` for a time that is not a number.
fn in_microseconds(name: &str, value: Value) -> Option<(String, Value)> {
    let time =
        name.strip_suffix("Sec").filter(|time| time.ends_with(|of: char| of.is_ascii_lowercase()));
    let Some(time) = time else { return Some((name.to_owned(), value)) };
    let seconds = match value {
        Value::Number(seconds) => seconds,
        Value::Signed(seconds) => u64::try_from(seconds).ok()?,
        Value::Text(_) | Value::Bool(_) | Value::Numbers(_) => return None,
    };
    Some((format!("{time}USec"), Value::Number(seconds.checked_mul(1_000_000)?)))
}

fn value_of(text: &str) -> Option<Value> {
    let text = text.trim();
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some(number) = text.strip_prefix("uint64 ") {
        return number.trim().parse().ok().map(Value::Number);
    }
    for quote in ["'", "\""] {
        let inner = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
        if let Some(inner) = inner {
            return (!inner.contains(['\\', '\'', '"'])).then(|| Value::Text(inner.to_owned()));
        }
    }
    text.parse().ok().map(Value::Signed)
}

fn version() -> Version {
    CgroupFs::detect().map_or(Version::V2, |host| host.version())
}

/// The properties of `systemd.resource-control(5)` for what it writes into the files of a scope.
pub(super) fn of_limits(limits: &Limits) -> Vec<(String, Value)> {
    limits_of_version(limits, version())
}

fn limits_of_version(limits: &Limits, version: Version) -> Vec<(String, Value)> {
    let is_v2 = version == Version::V2;
    let mut properties = Vec::new();
    let mut add = |name: &str, value: u64| properties.push((name.to_owned(), Value::Number(value)));
    let most = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares > 0) {
        if is_v2 {
            add("CPUWeight", hull_cgroup::cpu_weight(shares));
        } else {
            add("CPUShares", shares);
        }
    }
    if let Some(quota) = limits.cpu_quota_us.filter(|quota| *quota != 0) {
        let period = limits.cpu_period_us.filter(|period| *period != 0).unwrap_or(100_000);
        let per_second = u128::from(most(quota)) * 1_000_000 / u128::from(period);
        let per_second =
            if quota < 0 { u64::MAX } else { per_second.try_into().unwrap_or(u64::MAX) };
        add("CPUQuotaPerSecUSec", per_second);
        add("CPUQuotaPeriodUSec", period);
    }
    if let Some(bytes) = limits.memory_bytes.filter(|bytes| *bytes != 0) {
        add(if is_v2 { "MemoryMax" } else { "MemoryLimit" }, most(bytes));
    }
    if let (true, Some(both), Some(memory)) = (is_v2, limits.memory_swap_bytes, limits.memory_bytes)
        && both != 0
        && memory > 0
    {
        add("MemorySwapMax", if both < 0 { u64::MAX } else { most((both - memory).max(0)) });
    }
    if let Some(low) = limits.memory_reservation_bytes.filter(|low| *low > 0 && is_v2) {
        add("MemoryLow", most(low));
    }
    if let Some(pids) = limits.pids.filter(|pids| *pids != 0) {
        add("TasksMax", most(pids));
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_properties_or_refused_by_name() {
        let of = |name: &str, text: &str| {
            of_annotations(&BTreeMap::from([(
                format!("org.systemd.property.{name}"),
                text.to_owned(),
            )]))
        };
        let one = |name: &str, value| vec![(name.to_owned(), value)];
        assert_eq!(
            of("TimeoutStopUSec", "uint64 7").unwrap(),
            one("TimeoutStopUSec", Value::Number(7))
        );
        assert_eq!(of("KillSignal", "15").unwrap(), one("KillSignal", Value::Signed(15)));
        let five = one("TimeoutStopUSec", Value::Number(5_000_000));
        assert_eq!(of("TimeoutStopSec", "5").unwrap(), five);
        assert_eq!(of("TimeoutStopSec", "uint64 5").unwrap(), five);
        for (name, text) in [
            ("Xyz", "[1]"),
            ("Xyz", "'a\\'"),
            ("PIDs", "1"),
            ("Xyz", "99999999999"),
            ("Xy", "1"),
            ("X-yz", "1"),
            ("TimeoutStopSec", "'5s'"),
            ("TimeoutStopSec", "-1"),
        ] {
            assert!(of(name, text).unwrap_err().to_string().contains(name), "{name} {text}");
        }
    }

    #[test]
    fn limits_are_properties_of_each_version() {
        let limits = Limits {
            cpu_shares: Some(1024),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            memory_bytes: Some(1 << 20),
            memory_swap_bytes: Some(3 << 20),
            pids: Some(-1),
            ..Limits::default()
        };
        let of = |version| {
            let all = limits_of_version(&limits, version).into_iter();
            let shown = all.map(|(name, value)| {
                let Value::Number(number) = value else { panic!("{name} is not a number") };
                format!("{name}={number}")
            });
            shown.collect::<Vec<_>>().join(" ")
        };
        let v2 = of(Version::V2);
        assert!(v2.contains("CPUWeight=100 CPUQuotaPerSecUSec=500000"), "{v2}");
        assert!(v2.contains("MemoryMax=1048576 MemorySwapMax=2097152"), "{v2}");
        assert!(v2.ends_with(&format!("TasksMax={}", u64::MAX)), "{v2}");
        let v1 = of(Version::Hybrid);
        assert!(v1.contains("CPUShares=1024") && v1.contains("MemoryLimit=1048576"), "{v1}");
        assert!(!v1.contains("Swap"), "{v1}");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Tables of settings of other runtimes: what becomes of each in Hull.

use super::findings::Findings;
use super::toml_file::is_off;
use toml::Value;

/// The fate of a setting.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// A setting of Hull with the same value.
    Key(&'static str),
    /// A setting of Hull that means the opposite.
    Not(&'static str),
    /// A setting of Hull in seconds or milliseconds, for a duration of Go.
    Seconds(&'static str),
    Milliseconds(&'static str),
    /// Nothing is needed, for this reason.
    Same(&'static str),
    /// There is no counterpart, for this reason.
    Lost(&'static str),
    /// There is no counterpart, which only matters if it is on: not false, zero or empty.
    LostIfOn(&'static str),
}

/// A setting, or all that begin so if it ends with a dot, and its fate.
pub(crate) type Rule = (&'static str, Fate);

/// Applies the first rule for `key`; false if there is none. `shown` is the name of the setting in its file.
pub(crate) fn apply(
    rules: &[Rule],
    key: &str,
    shown: &str,
    value: &Value,
    found: &mut Findings,
) -> bool {
    let matches =
        |(name, _): &&Rule| key == *name || (name.ends_with('.') && key.starts_with(name));
    let Some((_, fate)) = rules.iter().find(matches) else { return false };
    match *fate {
        Fate::Same(why) => found.same(shown, why),
        Fate::Lost(why) => found.lost(shown, why),
        Fate::LostIfOn(why) if !is_off(value) => found.lost(shown, why),
        Fate::LostIfOn(_) => found.same(shown, "it is off, or has no value"),
        // An empty value is the default of the other runtime, and so Hull's.
        Fate::Key(_) if value.as_str() == Some("") => {
            found.same(shown, "it has no value");
        }
        Fate::Key(own) => found.set(shown, own, value),
        Fate::Not(own) => match value.as_bool() {
            Some(on) => found.set(shown, own, &(!on).into()),
            None => found.lost(shown, "its value is not true or false"),
        },
        Fate::Seconds(own) => duration(own, shown, value, 1000, found),
        Fate::Milliseconds(own) => duration(own, shown, value, 1, found),
    }
    true
}

fn duration(own: &str, shown: &str, value: &Value, unit_ms: i64, found: &mut Findings) {
    match value.as_str().and_then(milliseconds) {
        Some(0) => found.same(shown, "it is off, or has no value"),
        Some(ms) => found.set(shown, own, &(ms / unit_ms).max(1).into()),
        None => found.lost(shown, "its value is not a duration such as \"5s\""),
    }
}

/// A duration of Go in milliseconds: `1m30s`, `500ms`, `0`.
pub(crate) fn milliseconds(text: &str) -> Option<i64> {
    if matches!(text, "" | "0") {
        return Some(0);
    }
    let (mut total, mut rest) = (0_i64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let factor = match &rest[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = &rest[unit..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fate_is_carried_out() {
        let rules: &[Rule] = &[
            ("same", Fate::Key("image.concurrent_layers")),
            ("not", Fate::Not("nri.enable")),
            ("ms", Fate::Milliseconds("nri.request_timeout_ms")),
            ("s", Fate::Seconds("runtime.exec_drain_s")),
            ("off", Fate::LostIfOn("no")),
            ("below.", Fate::Lost("none")),
        ];
        let mut found = Findings::default();
        for (key, value) in [
            ("same", Value::from(7)),
            ("not", true.into()),
            ("ms", "3s".into()),
            ("s", "1m1s".into()),
            ("off", false.into()),
            ("below.it", 1.into()),
        ] {
            assert!(apply(rules, key, key, &value, &mut found), "{key}");
        }
        let values: Vec<String> =
            found.settings.iter().map(|(key, of)| format!("{key}={}", of.value)).collect();
        assert_eq!(
            values,
            [
                "image.concurrent_layers=7",
                "nri.enable=false",
                "nri.request_timeout_ms=3000",
                "runtime.exec_drain_s=61",
            ]
        );
        assert_eq!((found.same.len(), found.lost.len()), (1, 1));
        assert!(!apply(rules, "below", "below", &1.into(), &mut found));
        assert!(apply(rules, "off", "off", &true.into(), &mut found));
        assert!(apply(rules, "ms", "ms", &"soon".into(), &mut found));
        assert_eq!(found.lost.len(), 3);
    }

    #[test]
    fn durations_of_go_are_read() {
        for (text, ms) in [
            ("0", Some(0)),
            ("5s", Some(5000)),
            ("1h1m1s1ms", Some(3_661_001)),
            ("5", None),
            ("s", None),
            ("9999999999999999999s", None),
            ("9223372036854775807h", None),
        ] {
            assert_eq!(milliseconds(text), ms, "{text}");
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Values of fields as text. Pure.

use super::super::output::{age, bytes, short};
use super::fields::{Field, Kind};
use hull_sys::time;
use serde_json::Value;

/// A time in nanoseconds since 1970 as the value of a field: RFC 3339, empty if it is not set.
pub(crate) fn time(at_ns: i64) -> Value {
    if at_ns <= 0 {
        return Value::String(String::new());
    }
    Value::String(String::from_utf8_lossy(&time::rfc3339(at_ns)).into_owned())
}

/// A value in full: strings without quotes, lists with commas.
pub(crate) fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            items.iter().map(|item| plain(Some(item))).collect::<Vec<_>>().join(",")
        }
        Some(Value::Object(map)) => map
            .iter()
            .map(|(key, value)| format!("{key}={}", plain(Some(value))))
            .collect::<Vec<_>>()
            .join(","),
        Some(other @ (Value::Bool(_) | Value::Number(_))) => other.to_string(),
    }
}

/// The cell of a table; `-` for a value that is not known.
pub(super) fn text(field: &Field, value: Option<&Value>, no_trunc: bool, now_ns: i64) -> String {
    let Some(value) = value.filter(|value| !value.is_null()) else { return "-".into() };
    match field.kind {
        Kind::Id if !no_trunc => short(&plain(Some(value))),
        Kind::Bytes => value.as_u64().map_or_else(|| "-".into(), bytes),
        Kind::Decimal => value.as_f64().map_or_else(|| "-".into(), |number| format!("{number:.1}")),
        Kind::Time => {
            let at = value.as_str().and_then(time::parse_rfc3339).unwrap_or(0);
            age(at, now_ns)
        }
        Kind::Flag => if value == &Value::Bool(true) { "yes" } else { "" }.into(),
        Kind::Id
        | Kind::Text
        | Kind::Word
        | Kind::Number
        | Kind::List
        | Kind::Map
        | Kind::Object => plain(Some(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_short_and_values_are_whole() {
        let cell = |kind, value: Value| {
            text(&Field::always("k", "K", kind, "K."), Some(&value), false, 61_000_000_000)
        };
        assert_eq!(cell(Kind::Id, json!("sha256:0123456789abcdef")), "0123456789ab");
        assert_eq!(cell(Kind::Bytes, json!(1024)), "1.00 KiB");
        assert_eq!(cell(Kind::Time, time(1_000_000_000)), "1m");
        assert_eq!(cell(Kind::Time, time(0)), "-");
        assert_eq!(cell(Kind::Flag, json!(false)), "");
        assert_eq!(cell(Kind::Number, Value::Null), "-");
        assert_eq!(cell(Kind::List, json!(["a", "b"])), "a,b");
        assert_eq!(plain(Some(&json!({"a": "1", "b": "2"}))), "a=1,b=2");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The kind of value that each setting takes, and messages about other values. Pure.
//!
//! The kind is that of the setting's default, or of its example if it has none: nothing is written twice.

use super::keys::{HANDLERS, KEYS, Key, REGISTRY, in_table, value_at};
use super::settings::Config;
use super::shown::without_account;
use super::size;
use hull_sys::text::shown;
use toml::Spanned;
use toml::de::DeValue;

/// Longest value that is shown in a message, in bytes.
const SHOWN_BYTES: usize = 80;

/// A kind of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Whole,
    Switch,
    Texts,
    /// An entry of `[[image.registry]]`.
    Entry,
}

impl Kind {
    /// A noun with its article, for the setting `key`.
    fn noun(self, key: &str) -> String {
        match self {
            Self::Text => "a string".to_owned(),
            Self::Whole if is_size(key) => {
                "a whole number of bytes, or a size such as \"64m\"".to_owned()
            }
            Self::Whole => format!("a whole number{}", unit(key)),
            Self::Switch => "true or false".to_owned(),
            Self::Texts => "a list of strings".to_owned(),
            Self::Entry => format!("an entry of the list `[[{REGISTRY}]]`"),
        }
    }
}

/// The unit of a number, which the end of its key says.
fn unit(key: &str) -> &'static str {
    if key.ends_with("_ms") {
        " of milliseconds"
    } else if key.ends_with("_s") {
        " of seconds"
    } else {
        ""
    }
}

/// Whether the setting is a number of bytes, which may have a unit.
fn is_size(key: &str) -> bool {
    key.ends_with("_bytes") || key.ends_with("_bytes_max")
}

/// The default of a setting as TOML, or its example; empty for keys that are not settings.
pub(super) fn example(key: &str) -> String {
    if key == REGISTRY {
        return "[{ host = \"registry.example:5000\" }]".to_owned();
    }
    if key == HANDLERS {
        return "{ sandboxed = { user_namespaces = \"always\" } }".to_owned();
    }
    let key = &*in_table(key);
    // A struct of plain values with text keys: there is always a TOML for it.
    let defaults = toml::Table::try_from(Config::default()).unwrap_or_default();
    let of_table = || KEYS.iter().find(|known| known.name == key).map(Key::example);
    value_at(&defaults, key)
        .map_or_else(|| of_table().unwrap_or_default().to_owned(), |of| of.to_string())
}

/// The kind of a setting's values; `None` for keys that are not settings.
pub(super) fn kind(key: &str) -> Option<Kind> {
    if key == REGISTRY {
        return Some(Kind::Entry);
    }
    let parsed = toml::from_str::<toml::Table>(&format!("value = {}", example(key))).ok()?;
    match parsed.get("value")? {
        toml::Value::String(_) => Some(Kind::Text),
        toml::Value::Integer(_) => Some(Kind::Whole),
        toml::Value::Boolean(_) => Some(Kind::Switch),
        toml::Value::Array(_) => Some(Kind::Texts),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// A value of another kind than its setting takes: the message, and where the value begins in its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) why: String,
    pub(super) at: usize,
}

/// Compares a value with the kind that the setting `key` takes.
pub(super) fn mismatch(key: &str, value: &Spanned<DeValue<'_>>) -> Option<Mismatch> {
    let kind = kind(key)?;
    let at = value.span().start;
    let other = |what: String| {
        let why = format!("it is {what}, and must be {}", kind.noun(key));
        Some(Mismatch { why, at })
    };
    match (kind, value.get_ref()) {
        (Kind::Whole, DeValue::Integer(number)) => {
            match i128::from_str_radix(number.as_str(), number.radix()) {
                Ok(..0) => other(format!("{number}, less than 0")),
                // TOML has 64 bits with a sign.
                Ok(of) if i64::try_from(of).is_ok() => None,
                Ok(_) | Err(_) => {
                    other(format!("{}, which is too large", shown(number.to_string(), SHOWN_BYTES)))
                }
            }
        }
        (Kind::Whole, DeValue::String(text)) if is_size(key) => {
            let why = size::parse(text).err()?;
            let what = format!("the string \"{}\"", shown(text.to_string(), SHOWN_BYTES));
            let why = format!("{why}: it is {what}, and must be {}", kind.noun(key));
            Some(Mismatch { why, at })
        }
        (Kind::Text, DeValue::String(_))
        | (Kind::Switch, DeValue::Boolean(_))
        | (Kind::Entry, DeValue::Table(_)) => None,
        (Kind::Texts, DeValue::Array(entries)) => {
            let wrong = entries.iter().enumerate().find(|(_, of)| !of.get_ref().is_str());
            let (number, wrong) = wrong?;
            let what = described(wrong.get_ref());
            let why = format!("its entry {} is {what}, and must be a string", number + 1);
            Some(Mismatch { why, at: wrong.span().start })
        }
        (Kind::Text | Kind::Whole | Kind::Switch | Kind::Texts | Kind::Entry, found) => {
            other(described(found))
        }
    }
}

/// The mismatch of a value in place of the list of registries.
pub(super) fn not_a_list(value: &Spanned<DeValue<'_>>) -> Mismatch {
    let what = described(value.get_ref());
    let why =
        format!("it is {what}, and must be a list of entries, each below a line `[[{REGISTRY}]]`");
    Mismatch { why, at: value.span().start }
}

/// A value with its kind, as in `the string "4"`.
pub(super) fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            format!("the string \"{}\"", shown(without_account(text), SHOWN_BYTES))
        }
        DeValue::Integer(number) => {
            format!("the number {}", shown(number.to_string(), SHOWN_BYTES))
        }
        DeValue::Float(number) => format!("the number {}", shown(number.to_string(), SHOWN_BYTES)),
        DeValue::Boolean(switch) => switch.to_string(),
        DeValue::Datetime(time) => format!("the time {time}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_kind() {
        for key in KEYS {
            let kind = kind(key.name);
            assert!(kind.is_some(), "{}", key.name);
            assert!(!kind.unwrap().noun(key.name).is_empty());
        }
        assert_eq!(kind("network.mtu"), Some(Kind::Whole));
        assert_eq!(kind("image.registry.skip_verify"), Some(Kind::Switch));
        assert_eq!(kind("network.pod_cidr"), Some(Kind::Texts));
        assert_eq!(kind("network.uplink"), Some(Kind::Text));
        assert_eq!(kind("network"), None);
        assert_eq!(kind("runtime.handlers.sandboxed.pids_max"), Some(Kind::Whole));
        assert_eq!(kind("runtime.handlers.sandboxed"), None);
    }
}

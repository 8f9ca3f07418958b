// SPDX-License-Identifier: Apache-2.0
//! Dotted keys: the sections that may be there any number of times, and values by key. Pure.

use std::borrow::Cow;

/// The section of registries, `[[image.registry]]`: keys inside it start with this.
pub(super) const REGISTRY: &str = "image.registry";

/// The section of runtime handlers: keys inside it have the name of the handler after this.
pub(super) const HANDLERS: &str = "runtime.handlers";

/// The same with the word that stands for any name in the table of settings.
pub(super) const ANY_HANDLER: &str = "runtime.handlers.NAME";

/// The setting of a registry's mirrors.
pub(super) const MIRRORS: &str = "image.registry.mirrors";

/// The handler of a dotted key, and the key inside its section; empty for the section itself.
fn in_handler(key: &str) -> Option<(&str, &str)> {
    let inner = key.strip_prefix(HANDLERS)?.strip_prefix('.')?;
    Some(inner.split_once('.').unwrap_or((inner, "")))
}

/// Whether a key is the section of one runtime handler.
pub(super) fn is_handler(key: &str) -> bool {
    in_handler(key).is_some_and(|(_, inner)| inner.is_empty())
}

/// A key as the table of settings has it: with `NAME` for the name of a handler.
pub(super) fn in_table(key: &str) -> Cow<'_, str> {
    match in_handler(key) {
        None => Cow::Borrowed(key),
        Some((_, "")) => Cow::Borrowed(ANY_HANDLER),
        Some((_, inner)) => Cow::Owned(format!("{ANY_HANDLER}.{inner}")),
    }
}

/// The value of a dotted key in a TOML table.
pub(super) fn value_at<'t>(table: &'t toml::Table, key: &str) -> Option<&'t toml::Value> {
    let (first, rest) = match key.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (key, None),
    };
    let value = table.get(first)?;
    match rest {
        Some(rest) => value_at(value.as_table()?, rest),
        None => Some(value),
    }
}

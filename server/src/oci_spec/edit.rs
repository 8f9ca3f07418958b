// SPDX-License-Identifier: Apache-2.0
//! Edits of a runtime spec in its JSON form, by plugins and CDI devices.

use serde_json::{Value, json};

/// The list `key` of an object. It is created if it does not exist.
#[expect(clippy::expect_used, reason = "the lines before make it a list")]
pub(crate) fn list<'v>(of: &'v mut Value, key: &str) -> &'v mut Vec<Value> {
    if !of[key].is_array() {
        of[key] = json!([]);
    }
    of[key].as_array_mut().expect("it was made a list above")
}

/// Whether this is the variable `name`.
pub(crate) fn is_variable(of: &Value, name: &str) -> bool {
    of.as_str().is_some_and(|text| text.split('=').next() == Some(name))
}

/// Sets `NAME=VALUE`: replaces the variable of that name, or appends it.
pub(crate) fn set_variable(have: &mut Vec<Value>, variable: &str) {
    let name = variable.split('=').next().unwrap_or_default();
    match have.iter_mut().find(|of| is_variable(of, name)) {
        Some(place) => *place = variable.into(),
        None => have.push(variable.into()),
    }
}

/// Sorts mounts by the depth of their destinations, so parents come first. Stable.
pub(crate) fn parents_first(mounts: &mut [Value]) {
    mounts.sort_by_key(|of| {
        let path = of["destination"].as_str().unwrap_or_default();
        path.split('/').filter(|part| !part.is_empty()).count()
    });
}

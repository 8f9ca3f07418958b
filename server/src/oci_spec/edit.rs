// SPDX-License-Identifier: Apache-2.0
//! Changes of a runtime spec while it is JSON still, for those who add to it: plugins, devices by name.

use serde_json::{Value, json};

/// A list in an object, which is made when it is not there.
#[expect(clippy::expect_used, reason = "the line before makes it a list")]
pub(crate) fn list<'v>(of: &'v mut Value, key: &str) -> &'v mut Vec<Value> {
    if !of[key].is_array() {
        of[key] = json!([]);
    }
    of[key].as_array_mut().expect("it was made one above")
}

/// Whether this is the variable of that name.
pub(crate) fn is_variable(of: &Value, name: &str) -> bool {
    of.as_str().is_some_and(|text| text.split('=').next() == Some(name))
}

/// Sets `NAME=VALUE`: in place where there is one of the name, else at the end.
pub(crate) fn set_variable(have: &mut Vec<Value>, variable: &str) {
    let name = variable.split('=').next().unwrap_or_default();
    match have.iter_mut().find(|of| is_variable(of, name)) {
        Some(place) => *place = variable.into(),
        None => have.push(variable.into()),
    }
}

/// Parents before what lies in them; otherwise as they were.
pub(crate) fn parents_first(mounts: &mut [Value]) {
    mounts.sort_by_key(|of| {
        let path = of["destination"].as_str().unwrap_or_default();
        path.split('/').filter(|part| !part.is_empty()).count()
    });
}

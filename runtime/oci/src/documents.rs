// SPDX-License-Identifier: Apache-2.0
//! Documents of the runtime spec, read from JSON. Capabilities that this release does not know are left out with a
//! warning, as the spec wants it; everything else that is unknown is an error.

use crate::args::Global;
use crate::error::{Error, Result};
use crate::log;
use oci_spec::runtime::Capability;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::Path;

/// Warns that a capability is left out.
pub(crate) fn unknown_capability(global: &Global, name: &str) {
    log::warn(global, &format!("capability `{name}` is not known, and left out"));
}

/// Reads a document whose process is at this place (a JSON pointer). A process without a user is root's, as with runc.
pub(crate) fn parse<T: DeserializeOwned>(
    global: &Global,
    path: &Path,
    text: &[u8],
    process: &str,
) -> Result<T> {
    let failed = |source| Error::Document { path: path.to_owned(), source };
    let refused = match serde_json::from_slice(text) {
        Ok(document) => return Ok(document),
        Err(refused) => refused,
    };
    // Slower, so only where something is wrong.
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else { return Err(failed(refused)) };
    let Some(process) = value.pointer_mut(process).and_then(Value::as_object_mut) else {
        return Err(failed(refused));
    };
    let unknown = process.get_mut("capabilities").map(leave_out_unknown).unwrap_or_default();
    for name in &unknown {
        unknown_capability(global, name);
    }
    process.entry("user").or_insert_with(|| json!({"uid": 0, "gid": 0}));
    serde_json::from_value(value).map_err(failed)
}

/// Takes unknown names out of all sets; gives each once.
fn leave_out_unknown(sets: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for set in sets.as_object_mut().into_iter().flat_map(|sets| sets.values_mut()) {
        let Some(names) = set.as_array_mut() else { continue };
        names.retain(|name| {
            let is_known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if let (false, Some(name)) = (is_known, name.as_str())
                && !unknown.iter().any(|have| have == name)
            {
                unknown.push(name.to_owned());
            }
            // What is not a name stays, and is refused.
            is_known || !name.is_string()
        });
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_capabilities_are_left_out_of_every_set() {
        let mut sets = json!({
            "bounding": ["CAP_CHOWN", "CAP_FLY", "CAP_KILL"], "effective": ["CAP_FLY"],
            "permitted": ["CAP_SWIM", 7], "ambient": null,
        });
        assert_eq!(leave_out_unknown(&mut sets), ["CAP_FLY", "CAP_SWIM"]);
        assert_eq!(sets["bounding"], json!(["CAP_CHOWN", "CAP_KILL"]));
        assert_eq!((&sets["effective"], &sets["permitted"]), (&json!([]), &json!([7])));
    }
}

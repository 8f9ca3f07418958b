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
    if let Some(flags) = process.get_mut("scheduler").and_then(|of| of.get_mut("flags")) {
        rename_scheduler_flags(flags);
    }
    process.entry("user").or_insert_with(|| json!({"uid": 0, "gid": 0}));
    serde_json::from_value(value).map_err(failed)
}

/// Names of the runtime spec that the crate which reads it spells otherwise.
fn rename_scheduler_flags(flags: &mut Value) {
    for flag in flags.as_array_mut().into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            _ => {}
        }
    }
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
    fn flags_of_a_scheduler_have_the_names_of_the_spec() {
        let all = [
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        ];
        let mut of = json!({"policy": "SCHED_OTHER", "flags": all});
        rename_scheduler_flags(&mut of["flags"]);
        let read: oci_spec::runtime::Scheduler = serde_json::from_value(of).unwrap();
        assert_eq!(read.flags().as_ref().map(Vec::len), Some(7));
    }

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

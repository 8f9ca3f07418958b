// SPDX-License-Identifier: Apache-2.0
//! Documents of the runtime spec, read from JSON. Capabilities that this release does not know are left out with a
//! warning, as the spec wants it; everything else that is unknown is an error.

use crate::args::Global;
use crate::error::{Error, Result};
use crate::log;
use hull_plan::capabilities;
use oci_spec::runtime::Capability;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
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
    let document = serde_json::from_slice(text);
    if document.is_ok() && !names_unknown(text) {
        return document.map_err(failed);
    }
    // Slower, so only where something is wrong.
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else {
        return document.map_err(failed);
    };
    let Some(process) = value.pointer_mut(process).and_then(Value::as_object_mut) else {
        return document.map_err(failed);
    };
    let unknown = process.get_mut("capabilities").map(leave_out_unknown).unwrap_or_default();
    for name in &unknown {
        unknown_capability(global, name);
    }
    if let Some(flags) = process.get_mut("scheduler").and_then(|of| of.get_mut("flags")) {
        rename_scheduler_flags(flags);
    }
    if let Some(lists) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) {
        // As with runc, an empty list is none.
        lists.retain(|_, list| list != "");
    }
    process.entry("user").or_insert_with(|| json!({"uid": 0, "gid": 0}));
    serde_json::from_value(value).map_err(failed)
}

/// The part of a document that names capabilities: of the process, or of the process in it.
#[derive(serde::Deserialize)]
struct Outline {
    process: Option<Box<Outline>>,
    capabilities: Option<BTreeMap<String, Value>>,
}

/// Whether a document names a capability that is not one: the crate which reads it also takes other spellings.
fn names_unknown(text: &[u8]) -> bool {
    let Ok(outline) = serde_json::from_slice::<Outline>(text) else { return false };
    let of_process = outline.process.and_then(|process| process.capabilities);
    let sets = of_process.iter().chain(&outline.capabilities).flat_map(BTreeMap::values);
    let mut names = sets.filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    names.any(|name| capability(name).is_none())
}

/// The capability of this name, spelled as in `CAP_KILL`, as with runc.
pub(crate) fn capability(name: &str) -> Option<Capability> {
    let _number = name.strip_prefix("CAP_").and_then(capabilities::number)?;
    serde_json::from_value(name.into()).ok()
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
            let is_known = name.as_str().is_some_and(|name| capability(name).is_some());
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
            "bounding": ["CAP_CHOWN", "CAP_FLY", "CAP_KILL"], "effective": ["CAP_FLY", "KILL"],
            "permitted": ["CAP_SWIM", 7], "ambient": null,
        });
        assert_eq!(leave_out_unknown(&mut sets), ["CAP_FLY", "KILL", "CAP_SWIM"]);
        assert_eq!(sets["bounding"], json!(["CAP_CHOWN", "CAP_KILL"]));
        assert_eq!((&sets["effective"], &sets["permitted"]), (&json!([]), &json!([7])));
    }

    #[test]
    fn capabilities_are_found_in_a_process_and_in_a_container() {
        for (sets, wanted) in [
            (json!({"bounding": ["CAP_KILL"]}), false),
            (json!({"bounding": ["CAP_KILL"], "ambient": ["KILL"]}), true),
            (json!({"bounding": ["cap_kill"]}), true),
            (json!({"bounding": ["CAP_CAP_KILL"]}), true),
        ] {
            let process = json!({"cwd": "/", "capabilities": sets});
            for document in [process.clone(), json!({"hostname": "x", "process": process})] {
                assert_eq!(names_unknown(document.to_string().as_bytes()), wanted, "{document}");
            }
        }
    }
}

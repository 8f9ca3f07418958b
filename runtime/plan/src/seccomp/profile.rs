// SPDX-License-Identifier: Apache-2.0
//! Localhost profiles: JSON files in the form that docker and the kubelet's users write.

use crate::Error;
use hull_sys::arch::SECCOMP_ARCHITECTURES;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::Value;

/// Largest profile that is read, in bytes.
const PROFILE_BYTES_MAX: usize = 4 << 20;

/// Reads a profile. Docker's `archMap` becomes a list of architectures, a rule's single `name` a
/// list; fields that the OCI form does not have are left out.
pub fn localhost(json: &[u8]) -> Result<LinuxSeccomp, Error> {
    if json.len() > PROFILE_BYTES_MAX {
        return Err(Error::Seccomp {
            why: format!("it has {} bytes, at most {PROFILE_BYTES_MAX} are read", json.len()),
        });
    }
    let mut profile: Value =
        serde_json::from_slice(json).map_err(|source| Error::Profile { source })?;
    if profile.get("architectures").is_none_or(|list| list.as_array().is_some_and(Vec::is_empty)) {
        let native = SECCOMP_ARCHITECTURES[0];
        let of_map = profile.get("archMap").and_then(Value::as_array).into_iter().flatten();
        let mut list = Vec::new();
        for entry in of_map.filter(|entry| entry["architecture"] == native) {
            list.push(entry["architecture"].clone());
            list.extend(entry["subArchitectures"].as_array().cloned().unwrap_or_default());
        }
        if !list.is_empty() {
            profile["architectures"] = Value::Array(list);
        }
    }
    for rule in profile.get_mut("syscalls").and_then(Value::as_array_mut).into_iter().flatten() {
        if let (None, Some(name)) = (rule.get("names"), rule.get("name").cloned()) {
            rule["names"] = Value::Array(vec![name]);
        }
        // Null where the OCI form wants a list or nothing.
        if rule.get("args").is_some_and(Value::is_null)
            && let Some(rule) = rule.as_object_mut()
        {
            rule.remove("args");
        }
    }
    serde_json::from_value(profile).map_err(|source| Error::Profile { source })
}

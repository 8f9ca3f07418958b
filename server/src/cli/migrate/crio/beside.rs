// SPDX-License-Identifier: Apache-2.0
//! Files that CRI-O uses although its configuration does not name them: the rules for signatures, mounts and hooks
//! of all containers.

use super::super::super::error::Result;
use super::super::findings::Findings;
use super::super::root::Root;
use serde_json::Value as Json;
use std::path::Path;
use toml::{Table, Value};

const POLICY: &str = "/etc/containers/policy.json";
const MOUNTS: &str = "/etc/containers/mounts.conf";
/// The directories of hooks, unless `hooks_dir` names others.
const HOOKS: [&str; 2] = ["/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d"];

/// Notes those that are there.
///
/// # Errors
/// One of them cannot be read.
pub(super) fn note(root: &Root, file: &Table, found: &mut Findings) -> Result<()> {
    if let Some(text) = root.text(Path::new(POLICY))? {
        found.sources.push(POLICY.into());
        let parsed: Json = serde_json::from_str(&text)
            .map_err(|err| root.unusable(Path::new(POLICY), &err.to_string()))?;
        if accepts_all(&parsed) {
            found.same(POLICY, "it accepts all images, as Hull does without `image.policy`");
        } else {
            let why = "until its rules are in `image.policy`, Hull accepts all images: docs/security.md has the form";
            found.lost(POLICY, why);
        }
    }
    let mounts = root.text(Path::new(MOUNTS))?.unwrap_or_default();
    let mut lines = mounts.lines().map(str::trim);
    if lines.any(|line| !line.is_empty() && !line.starts_with('#')) {
        found.lost(MOUNTS, "name mounts in the pods, or in a CDI file");
    }
    let runtime = file.get("crio").and_then(|of| of.get("runtime"));
    if runtime.and_then(|of| of.get("hooks_dir")).and_then(Value::as_array).is_none() {
        let mut with_hooks = Vec::new();
        for directory in HOOKS {
            let names = root.names(Path::new(directory))?;
            if names.iter().any(|name| name.ends_with(".json")) {
                with_hooks.push(Value::from(directory));
            }
        }
        if !with_hooks.is_empty() {
            let from = "hooks in the directories that CRI-O reads by default";
            found.set(from, "runtime.hooks_dir", &Value::Array(with_hooks));
        }
    }
    Ok(())
}

/// Whether every rule accepts every image.
fn accepts_all(policy: &Json) -> bool {
    let accepts = |rules: &Json| {
        let rules = rules.as_array().map(Vec::as_slice).unwrap_or_default();
        !rules.is_empty() && rules.iter().all(|rule| rule["type"] == "insecureAcceptAnything")
    };
    let scopes = policy["transports"].as_object().into_iter().flat_map(|of| of.values());
    let mut scopes = scopes.filter_map(Json::as_object).flat_map(|of| of.values());
    accepts(&policy["default"]) && scopes.all(accepts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(files: &[(&str, &str)]) -> Findings {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        for (name, text) in files {
            root.create(Path::new(name), text).unwrap();
        }
        let mut found = Findings::default();
        note(&root, &Table::new(), &mut found).unwrap();
        found
    }

    #[test]
    fn a_policy_is_only_passed_over_if_it_accepts_all() {
        let all = r#"{"default":[{"type":"insecureAcceptAnything"}],
            "transports":{"docker-daemon":{"":[{"type":"insecureAcceptAnything"}]}}}"#;
        let found = noted(&[(POLICY, all)]);
        assert!(found.lost.is_empty() && found.same.len() == 1, "{found:?}");
        for policy in [
            r#"{"default":[{"type":"reject"}]}"#,
            "{}",
            r#"{"default":[{"type":"insecureAcceptAnything"}],
                "transports":{"docker":{"r.example":[{"type":"signedBy"}]}}}"#,
        ] {
            let found = noted(&[(POLICY, policy)]);
            assert_eq!(found.lost.len(), 1, "{policy}");
        }
    }

    #[test]
    fn mounts_and_hooks_of_all_containers_are_named() {
        let hook = "/usr/share/containers/oci/hooks.d/a.json";
        let found = noted(&[(MOUNTS, "# none\n/a:/b\n"), (hook, "{}")]);
        assert_eq!(found.lost.len(), 1, "{found:?}");
        let hooks = &found.settings["runtime.hooks_dir"].value;
        assert_eq!(hooks, "[\"/usr/share/containers/oci/hooks.d\"]");
        let found = noted(&[(MOUNTS, "# none\n\n"), ("/etc/containers/oci/hooks.d/README", "")]);
        assert!(found.lost.is_empty() && found.settings.is_empty(), "{found:?}");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The sections `[runtime.handlers.NAME]`: runtime handlers, which RuntimeClasses name, and the values that they may
//! have. Pure.

use super::key_names::HANDLERS;
use super::size::{LAYER_MIN, Size};
use crate::limits::ulimits::Ulimit;
use hull_sys::text::shown;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, PathBuf};

/// Hull's own handler, which is always there, as is the empty name.
pub(crate) const NATIVE: &str = "hull";
/// Longest name of a handler, in bytes: a label of DNS, as a RuntimeClass has it (RFC 1123).
const NAME_BYTES_MAX: usize = 63;
/// Most handlers of a node: the kubelet copies them into the status of its node.
const HANDLERS_MAX: usize = 64;
/// Longest name of a CNI network, in bytes.
const NETWORK_BYTES_MAX: usize = 255;

/// The settings of a handler, in place of those of `[runtime]`.
///
/// Pods keep them in their records. So no field that a later release adds makes these unreadable: unknown keys of the
/// configuration are refused by the table of settings, and not here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Handler {
    pub(crate) r#type: HandlerType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_seccomp: Option<DefaultSeccomp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seccomp_profile: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cgroup_writable: Option<bool>,
    pub(crate) user_namespaces: UserNamespaces,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shm_bytes: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_ulimits: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pids_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) writable_layer_size: Option<Size>,
}

/// Seccomp profile of containers whose client names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DefaultSeccomp {
    #[serde(rename = "runtime/default")]
    RuntimeDefault,
    #[serde(rename = "unconfined")]
    Unconfined,
}

/// The runtime that runs the containers of a handler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HandlerType {
    /// Hull runs the containers itself.
    #[default]
    Hull,
}

/// Which pods of a handler have a user namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UserNamespaces {
    /// Those that request one.
    #[default]
    Pod,
    /// All of them.
    Always,
}

impl Handler {
    /// Checks the values. The error is the key inside the section, and the reason.
    fn check(&self) -> Result<(), (&'static str, String)> {
        for limit in self.default_ulimits.iter().flatten() {
            Ulimit::parse(limit).map_err(|why| ("default_ulimits", format!("`{limit}`: {why}")))?;
        }
        if let Some(profile) = &self.seccomp_profile {
            let climbs = profile.components().any(|part| part == Component::ParentDir);
            if climbs || profile.file_name().is_none() {
                let why = "it is not a file below `runtime.seccomp_root`, or an absolute path";
                return Err(("seccomp_profile", why.into()));
            }
        }
        if let Some(name) = self.network.as_deref().filter(|name| !is_network(name)) {
            let name = shown(name, NAME_BYTES_MAX);
            let why = format!("`{name}` is neither `none` nor the name of a CNI network");
            return Err(("network", why));
        }
        if let Some(size) = self.writable_layer_size.filter(|size| *size < LAYER_MIN) {
            return Err(("writable_layer_size", format!("{size} is less than {LAYER_MIN}")));
        }
        if self.cgroup_writable == Some(true) && self.user_namespaces != UserNamespaces::Always {
            let why = "it needs `user_namespaces = \"always\"`: the root of the host could raise the limits of its own cgroup from inside";
            return Err(("cgroup_writable", why.into()));
        }
        if self.pids_max == Some(0) {
            return Err(("pids_max", "it must be at least 1".into()));
        }
        Ok(())
    }
}

/// Whether a text may be the name of a CNI network: letters, digits, and in between `.`, `_` and `-`.
fn is_network(name: &str) -> bool {
    name.len() <= NETWORK_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Whether a text may be the name of a handler: the API server accepts no other in a RuntimeClass.
fn is_name(name: &str) -> bool {
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(is_end)
        && name.ends_with(is_end)
        && name.chars().all(|c| is_end(c) || c == '-')
}

/// Checks every handler. The error is the setting, and the reason.
pub(super) fn validate(handlers: &BTreeMap<String, Handler>) -> Result<(), (String, String)> {
    if handlers.len() > HANDLERS_MAX {
        return Err((HANDLERS.into(), format!("it has more than {HANDLERS_MAX} handlers")));
    }
    for (name, handler) in handlers {
        let section = format!("{HANDLERS}.{name}");
        if name == NATIVE {
            let why = "this handler is always there, with the settings of `[runtime]`; choose another name";
            return Err((section, why.into()));
        }
        if !is_name(name) {
            let why = format!(
                "a RuntimeClass cannot name it: a handler has lower-case letters, digits and `-`, at most {NAME_BYTES_MAX}"
            );
            return Err((section, why));
        }
        handler.check().map_err(|(key, why)| (format!("{section}.{key}"), why))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Origin, load};
    use std::fs;

    fn loaded(text: &str) -> Result<crate::config::Loaded, crate::config::Error> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, text).unwrap();
        load(Some(&file), &[])
    }

    #[test]
    fn each_handler_has_its_own_settings_and_its_lines_are_known() {
        let text = "[runtime.handlers.plain]\n[runtime.handlers.strict]\ntype = \"hull\"\n\
                    user_namespaces = \"always\"\nshm_bytes = \"8m\"\ndefault_ulimits = [\"nofile=64:128\"]\n";
        let loaded = loaded(text).unwrap();
        let handlers = &loaded.config.runtime.handlers;
        assert_eq!(handlers["plain"], Handler::default());
        assert_eq!(handlers["strict"].user_namespaces, UserNamespaces::Always);
        assert_eq!(handlers["strict"].shm_bytes, Some(Size::of(8 << 20)));
        let origin = &loaded.origins["runtime.handlers.strict.shm_bytes"];
        assert!(matches!(origin, Origin::File { line: 5, .. }), "{origin:?}");
        // What is shown reads back.
        let again = self::loaded(&loaded.shown()).unwrap();
        assert_eq!(again.config.runtime.handlers, *handlers);
    }

    #[test]
    fn later_files_change_single_settings_of_a_handler() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, "[runtime.handlers.a]\npids_max = 7\nnetwork = \"none\"\n").unwrap();
        let set = ["runtime.handlers.a.network=storage".to_owned()];
        let loaded = load(Some(&file), &set).unwrap();
        let handler = &loaded.config.runtime.handlers["a"];
        assert_eq!((handler.pids_max, handler.network.as_deref()), (Some(7), Some("storage")));
        assert_eq!(loaded.origins["runtime.handlers.a.network"], Origin::Flag);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_line_and_key() {
        for (text, line, words) in [
            ("[runtime.handlers.hull]\n", 1, "`runtime.handlers.hull`: it: always there"),
            ("\n[runtime.handlers.Kata]\npids_max = 1\n", 2, "`runtime.handlers.Kata`: lower-case"),
            (
                "[runtime.handlers.a]\ntype = \"oci\"\n",
                2,
                "handlers.a.type`: `oci`: must be `hull`",
            ),
            ("[runtime.handlers.a]\npids_max = 0\n", 2, "handlers.a.pids_max`: at least 1"),
            ("[runtime.handlers.a]\npids_max = 5000000000\n", 2, "handlers.a.pids_max`: too large"),
            (
                "[runtime.handlers.a]\npids_max = \"many\"\n",
                2,
                "handlers.a.pids_max`: whole number",
            ),
            (
                "[runtime.handlers.a]\npids_mx = 7\n",
                2,
                "unknown setting `runtime.handlers.a.pids_mx`",
            ),
            (
                "[runtime.handlers.a]\nseccomp_profile = \"../x\"\n",
                2,
                "a.seccomp_profile`: seccomp_root",
            ),
            (
                "[runtime.handlers.a]\nseccomp_profile = \"\"\n",
                2,
                "a.seccomp_profile`: seccomp_root",
            ),
            ("[runtime.handlers.a]\nnetwork = \"a/b\"\n", 2, "a.network`: `a/b`: CNI network"),
            ("[runtime.handlers.a]\ndefault_ulimits = [\"x=1\"]\n", 2, "a.default_ulimits`: `x=1`"),
            (
                "[runtime.handlers.a]\nwritable_layer_size = \"1k\"\n",
                2,
                "a.writable_layer_size`: less",
            ),
            ("[runtime.handlers.a]\nuser_namespaces = \"no\"\n", 2, "a.user_namespaces`: `no`"),
            (
                "[runtime.handlers.a]\ncgroup_writable = \"no\"\n",
                2,
                "a.cgroup_writable`: true or false",
            ),
            (
                "[runtime.handlers.a]\ncgroup_writable = true\n",
                2,
                "a.cgroup_writable`: user_namespaces",
            ),
            ("[runtime.handlers]\na = 7\n", 2, "`runtime.handlers.a`: name of a section"),
            ("[runtime]\nhandlers = 7\n", 2, "`runtime.handlers`: name of a section"),
        ] {
            let err = loaded(text).unwrap_err();
            let said = err.to_string();
            assert!(said.contains(&format!("config.toml:{line}: ")), "{text}: {said}");
            for word in words.split(": ") {
                assert!(said.contains(word), "{word:?} of {text}: {said}");
            }
            assert!(err.hint().is_some(), "{text}");
        }
        let misspelt = loaded("[runtime.handlers.a]\npids_mx = 7\n").unwrap_err();
        assert!(misspelt.hint().unwrap().contains("runtime.handlers.NAME.pids_max"));
        let many: String = (0..65).map(|n| format!("[runtime.handlers.h{n}]\n")).collect();
        assert!(loaded(&many).unwrap_err().to_string().contains("more than 64"));
    }
}

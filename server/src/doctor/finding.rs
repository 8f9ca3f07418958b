// SPDX-License-Identifier: Apache-2.0
//! One finding, as it is sent to the command line.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Something that is not as it was recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Finding {
    /// `leak` or `mismatch`.
    pub(crate) class: String,
    /// The kind of object: `cgroup`, `network`, `monitor` and the like.
    pub(crate) subject: String,
    /// Its path or id.
    pub(crate) name: String,
    /// The pod or container that it belongs to or belonged to, by name where that is known.
    pub(crate) owner: String,
    /// The finding, a clause.
    pub(crate) found: String,
    pub(crate) hint: String,
    /// `left`, `removed`, or why it could not be removed.
    pub(crate) outcome: String,
}

/// The name of an owner, with its id; the id alone if nothing else is known.
pub(super) fn owner(id: &str, names: &BTreeMap<String, String>) -> String {
    let short: String = id.chars().take(12).collect();
    names.get(id).map_or_else(|| short.clone(), |name| format!("{name} ({short})"))
}

// SPDX-License-Identifier: Apache-2.0
//! The scale of findings: how far each one reaches.

use serde::Serialize;

/// How far an attacker who controls the container gets through one finding alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reach {
    /// Not out of the container, but one layer of defence is missing.
    None,
    /// The other containers of its pod.
    Pod,
    /// Other pods of the node, or resources that all pods share.
    Node,
    /// Root on the host.
    Host,
}

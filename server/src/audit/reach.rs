// SPDX-License-Identifier: Apache-2.0
//! How far a finding reaches: the scale of all of them.

use serde::Serialize;

/// How far somebody who has broken into the container gets by one finding alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reach {
    /// Not out of the container: one line of defence less.
    None,
    /// The other containers of its pod.
    Pod,
    /// Other pods of the node, or what all of them share.
    Node,
    /// Root on the host.
    Host,
}

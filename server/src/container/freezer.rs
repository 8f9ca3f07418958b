// SPDX-License-Identifier: Apache-2.0
//! Containers that the freezer holds: by `hull pause`, or by a tool of the node that froze a cgroup above them.

use crate::node::Node;
use hull_cgroup::Cgroup;

/// A container whose new processes would be frozen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frozen {
    /// The path of the cgroup that is frozen, if it is not the container's own.
    pub(crate) above: Option<String>,
}

/// Whether new processes of a container would be frozen, and by which cgroup; not if that cannot be read.
pub(crate) fn frozen(node: &Node, cgroup: &str) -> Option<Frozen> {
    let own = Cgroup::at(&node.cgroups, cgroup).ok()?;
    let frozen = own.frozen_above().ok()??;
    Some(Frozen { above: Some(frozen).filter(|path| *path != own.shown()) })
}

// SPDX-License-Identifier: Apache-2.0
//! The end of all processes in a cgroup, and the cgroup's removal.

use super::ContainerRecord;
use crate::error::Error;
use crate::limits::waits;
use crate::node::Node;
use crate::pod;

/// Clears the cgroup of a container, in the pod's cgroup `pod`.
pub(crate) fn clear_cgroup_of(
    node: &Node,
    record: &ContainerRecord,
    pod: &str,
) -> Result<(), Error> {
    let cleared = clear_cgroup(&node.cgroups, &record.cgroup, pod);
    cleared.map_err(|source| Error::Parts {
        doing: "clear a container of",
        source: pod::Error::ClearCgroup { source },
    })
}

/// Kills what is in a cgroup, also what is frozen in it or by its pod's cgroup `pod`; waits until it is empty,
/// and removes it. A path that cannot be a cgroup's never was one: there is nothing to be cleared.
pub(crate) fn clear_cgroup(
    host: &hull_cgroup::CgroupFs,
    path: &str,
    pod: &str,
) -> Result<(), hull_cgroup::Error> {
    use hull_cgroup::Cgroup;
    let Ok(cgroup) = Cgroup::at(host, path) else {
        tracing::warn!(path, "recorded path is not a cgroup's; nothing to clear");
        return Ok(());
    };
    if !cgroup.exists()? {
        return Ok(());
    }
    match Cgroup::at(host, pod) {
        Ok(pod) => cgroup.kill_and_remove_within(&pod, waits::EMPTY_MAX),
        Err(_) => cgroup.kill_and_remove(waits::EMPTY_MAX),
    }
}

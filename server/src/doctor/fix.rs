// SPDX-License-Identifier: Apache-2.0
//! Removes leaks, by the same functions as the recovery of a daemon.

use super::cgroups;
use super::leaks::Leak;
use crate::container::cgroup::clear_cgroup;
use crate::error::Chain;
use crate::history::Kind;
use crate::node::Node;
use crate::pod::recover;
use crate::storage::blocking;
use hull_cgroup::Cgroup;
use hull_proto::id::PodId;
use rustix::mount::{UnmountFlags, unmount};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tracing::info;

/// Removes a leak, or returns the reason, a clause.
pub(super) async fn remove(node: &Arc<Node>, leak: Leak) -> Result<(), String> {
    info!(leak = ?leak, "leak is removed by request");
    match leak {
        Leak::PodCgroup { pod, path } => {
            let (shared, id) = (Arc::clone(node), pod.clone());
            blocking(move || check_is_ours(&shared, &id, &path)).await?;
            take_down(node, &pod).await
        }
        Leak::Directory { pod, .. } | Leak::Monitor { pod } => take_down(node, &pod).await,
        Leak::ContainerCgroup { path, pod_path, .. } => {
            let shared = Arc::clone(node);
            let cleared = blocking(move || clear_cgroup(&shared.cgroups, &path, &pod_path)).await;
            cleared.map_err(|err| format!("cannot clear it: {}", Chain(&err)))
        }
        Leak::Network { pod } => {
            let shared = Arc::clone(node);
            let released = blocking(move || shared.network.release(&pod)).await;
            released.map_err(|err| format!("cannot release it: {}", Chain(&err)))
        }
        Leak::Netns { path, .. } => blocking(move || detach(&path)).await,
        Leak::WritableLayer { container } | Leak::Plan { container } => {
            if recover::remove_container(node, &container).await {
                Ok(())
            } else {
                Err("it could not be removed: the daemon's log says why".into())
            }
        }
    }
}

/// Refuses a cgroup with processes whose pod Hull does not remember: anybody can give a cgroup this name.
fn check_is_ours(node: &Node, pod: &PodId, path: &str) -> Result<(), String> {
    let cgroup = Cgroup::at(&node.cgroups, path).map_err(|err| Chain(&err).to_string())?;
    let is_populated = cgroup.is_populated().map_err(|err| Chain(&err).to_string())?;
    let all = node.history.all().unwrap_or_default();
    if !is_populated || all.iter().any(|of| of.id == pod.as_str() || of.pod == pod.as_str()) {
        return Ok(());
    }
    Err("processes run in it that hull does not know: end them first (systemd-cgls, cgroup.procs)"
        .into())
}

/// All that a pod without a record has. A part that is not there counts as removed, so it may run once for each. Its
/// cgroups are searched for by name, because the record that said where they are is gone.
async fn take_down(node: &Arc<Node>, pod: &PodId) -> Result<(), String> {
    let (shared, id) = (Arc::clone(node), pod.to_string());
    let cleared = blocking(move || {
        let all = shared.history.all().unwrap_or_default();
        let containers = all.into_iter().filter(|of| of.kind == Kind::Container && of.pod == id);
        let mut names: BTreeSet<String> = containers.map(|of| of.id).collect();
        names.extend([format!("pod{id}"), format!("hull-{id}.scope"), id]);
        let found = cgroups::named(&shared.cgroups, &names);
        found.iter().try_for_each(|path| clear_cgroup(&shared.cgroups, path, path))
    });
    cleared.await.map_err(|err| format!("cannot clear its cgroups: {}", Chain(&err)))?;
    if recover::sweep_pod(node, pod).await {
        Ok(())
    } else {
        Err("it could not be removed: the daemon's log says why".into())
    }
}

/// Detaches a mount in a directory that only root can change. Links in its path are not followed.
fn detach(path: &Path) -> Result<(), String> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    unmount(path, flags).map_err(|errno| format!("umount2({}): {errno}", path.display()))
}

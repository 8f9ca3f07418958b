// SPDX-License-Identifier: Apache-2.0
//! The sweep: removes everything with Hull's name that has no record.

use super::records::{Containers, Recorded};
use super::remove::{clear, remove_container, remove_hooks};
use super::wait::wait_until;
use crate::container::ContainerRecord;
use crate::container::cgroup::clear_cgroup;
use crate::container::checkpoint::directory;
use crate::error::Chain;
use crate::monitors;
use crate::node::Node;
use crate::pod::{PodRecord, State, teardown};
use crate::storage::blocking;
use hull_proto::id::{ContainerId, PodId};
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

/// Takes away whatever of ours has no record.
pub(super) async fn sweep(
    node: &Arc<Node>,
    recorded: &Recorded,
    orphans: Containers,
    until: tokio::time::Instant,
) {
    let views = node.registry.views();
    let Recorded { pods, containers } = recorded;

    // Whatever is to go is listed now: what is made later is not ours to sweep.
    let mut work = JoinSet::new();
    for (id, record) in orphans {
        let node = Arc::clone(node);
        work.spawn(async move { sweep_orphan(&node, &id, &record).await });
    }
    let dirs = [node.run_dir(), node.pod_files_dir()];
    // After a boot there is only the latter.
    let names: BTreeSet<String> = dirs.iter().flat_map(|dir| names_in(dir)).collect();
    for name in names {
        match PodId::parse(&name) {
            Ok(id) if !pods.contains(id.as_str()) => {
                let node = Arc::clone(node);
                work.spawn(async move {
                    let removed = sweep_pod(&node, &id).await;
                    node.metrics.swept("pod", removed);
                });
            }
            _ => {}
        }
    }
    wait_until(until, &mut work).await;
    // A stopped pod has no network; but what it had is given back only when the kernel has taken its links
    // away, and the last daemon may have ended before that.
    let networked = views
        .iter()
        .filter(|view| !matches!(view.record.state, State::Stopped) && !view.record.host_network());
    let networked: BTreeSet<_> = networked.map(|view| view.id.to_string()).collect();
    let seen: BTreeSet<_> = views.iter().map(|view| view.id.to_string()).collect();
    // The teardown of a half-made pod detaches it.
    let half_made: BTreeSet<_> = pods.difference(&seen).cloned().collect();
    for id in node.network.attachments() {
        if !networked.contains(&id) && !half_made.contains(&id) {
            let node = Arc::clone(node);
            // A network plugin may hang; the recovery does not wait for it.
            work.spawn(async move { sweep_network(&node, id).await });
        }
    }
    sweep_layers(node, containers).await;
    for id in node.bundles.left(containers) {
        warn!(container_id = %id, "hooks without a container swept");
        let node = Arc::clone(node);
        // Its poststop hooks may take their time.
        work.spawn(async move {
            let removed = remove_hooks(&node, &id).await;
            node.metrics.swept("hooks", removed);
        });
    }
    let (shared, known) = (Arc::clone(node), containers.clone());
    blocking(move || shared.plans.sweep(&known)).await;
    sweep_checkpoints(node);
    sweep_cgroups(node, pods, &mut work);
    wait_until(until, &mut work).await;
}

/// The writable layers of containers without a record.
async fn sweep_layers(node: &Arc<Node>, containers: &BTreeSet<String>) {
    for name in node.images.rootfs_ids() {
        if let Ok(id) = ContainerId::parse(&name)
            && !containers.contains(id.as_str())
        {
            warn!(container_id = %id, "writable layer without a container swept");
            let removed = remove_container(node, &id).await;
            node.metrics.swept("writable layer", removed);
        }
    }
}

/// The directories of checkpoints that earlier daemons were making: each when its CRIU has ended, which nobody waits
/// for.
fn sweep_checkpoints(node: &Arc<Node>) {
    for path in directory::left(&node.checkpoints_dir()) {
        tokio::task::spawn_blocking(move || directory::sweep(&path));
    }
}

/// A container whose pod has no record, and what its pod had beside it.
async fn sweep_orphan(node: &Arc<Node>, id: &ContainerId, record: &ContainerRecord) {
    warn!(container_id = %id, "container without a pod swept");
    node.metrics.leak("container");
    let above = record.cgroup.rsplit_once('/').filter(|(_, name)| *name == id.as_str());
    if let Some((pod, _)) = above {
        clear(node, record, pod).await;
        if PodId::parse(&record.pod).is_ok() {
            let pause =
                ContainerRecord { cgroup: format!("{pod}/{}", record.pod), ..record.clone() };
            clear(node, &pause, pod).await;
        }
    }
    let removed = remove_container(node, id).await;
    node.metrics.leak_removed("container", removed);
}

async fn sweep_network(node: &Arc<Node>, id: String) {
    info!(pod_id = %id, "network of a pod that has none any more swept");
    node.metrics.leak("network");
    let shared = Arc::clone(node);
    let released = blocking(move || shared.network.release(&id)).await;
    node.metrics.leak_removed("network", released.is_ok());
    if let Err(err) = released {
        error!(error = %Chain(&err), "left network not taken away");
    }
}

/// A pod whose record could not be read, or was never written: its monitor ends it. Whether nothing of it is left.
pub(crate) async fn sweep_pod(node: &Arc<Node>, id: &PodId) -> bool {
    warn!(pod_id = %id, "pod without a record swept");
    let record = PodRecord {
        id: id.to_string(),
        config: hull_proto::cri::PodSandboxConfig::default(),
        assigned_userns: None,
        handler: String::new(),
        handler_settings: None,
        created_ns: 0,
        cgroup: node.driver.default_path(id),
        cgroup_is_ours: true,
        state: State::Stopping,
        last_ready: None,
        restarts_cancelled: std::collections::BTreeSet::new(),
    };
    let taken = teardown::take_down(node, id, &record, Vec::new(), None).await;
    if let Err(err) = &taken {
        error!(pod_id = %id, error = %Chain(err), "left pod not taken away; tried again at the next start");
    }
    taken.is_ok()
}

fn sweep_cgroups(node: &Arc<Node>, pods: &BTreeSet<String>, work: &mut JoinSet<()>) {
    let parent = node.driver.default_parent();
    let names = match hull_cgroup::children(&node.cgroups, &parent) {
        Ok(names) => names,
        Err(err) => {
            error!(error = %Chain(&err), "own cgroups not listed");
            return;
        }
    };
    // A daemon with the same parent may be down for a moment; its pods run on.
    let of_others = monitors::elsewhere(&node.run_dir());
    for name in names {
        let Some(id) = node.driver.pod_of(&name) else { continue };
        if pods.contains(id.as_str()) {
            continue;
        }
        if of_others.contains(&id) {
            error!(
                cgroup = %name,
                hint = "give each daemon its own `cgroup.parent`",
                "cgroup of another daemon's pod left alone"
            );
            continue;
        }
        warn!(cgroup = %name, "cgroup without a pod swept");
        node.metrics.leak("pod cgroup");
        let (shared, path) = (Arc::clone(node), format!("{parent}/{name}"));
        work.spawn(async move {
            let metrics = Arc::clone(&shared.metrics);
            let cleared = blocking(move || clear_cgroup(&shared.cgroups, &path, &path)).await;
            metrics.leak_removed("pod cgroup", cleared.is_ok());
            if let Err(err) = cleared {
                error!(error = %Chain(&err), "left cgroup not cleared");
            }
        });
    }
}

fn names_in(dir: &std::path::Path) -> Vec<String> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(err) => {
            error!(dir = %dir.display(), error = %err, "directory not listed");
            return Vec::new();
        }
    };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

// SPDX-License-Identifier: Apache-2.0
//! Lists the objects on the host that have a name of Hull's, with the pod or container that each belongs to.

use super::finding::{Finding, owner};
use crate::history::Timeline;
use crate::monitors;
use crate::node::Node;
use crate::pod::State;
use hull_network::cni;
use hull_proto::id::{ContainerId, PodId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Something on the host, with the id that its name has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leak {
    /// A directory of a pod.
    Directory { pod: PodId, path: PathBuf },
    /// The monitor of a pod.
    Monitor { pod: PodId },
    /// The cgroup of a pod.
    PodCgroup { pod: PodId, path: String },
    /// The cgroup of a container, in that of its pod.
    ContainerCgroup { container: ContainerId, path: String, pod_path: String },
    /// Addresses, links or a record of plugins.
    Network { pod: String },
    /// The network namespace that was pinned for plugins.
    Netns { pod: PodId, path: PathBuf },
    /// The layer that a container writes to.
    WritableLayer { container: ContainerId },
    /// The plan that was resolved when a container was made.
    Plan { container: ContainerId },
    /// The limit of a writable layer that is gone, by the number of its project.
    Quota { project: u32 },
}

/// The ids of what has a record.
#[derive(Debug)]
pub(super) struct Known {
    pods: BTreeSet<String>,
    containers: BTreeSet<String>,
    /// Pods that are to have a network.
    networked: BTreeSet<String>,
}

impl Known {
    /// The objects of the registry, and those that only have a file: pods of an earlier daemon that could not be taken
    /// down.
    pub(super) fn of(node: &Node) -> Self {
        let views = node.registry.views();
        let dir = |name: &str| names_in(&node.config.current().state_dir.join(name));
        let recorded = |name: &str| {
            let names = dir(name).into_iter();
            names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect()
        };
        let (mut pods, mut containers): (BTreeSet<String>, BTreeSet<String>) =
            (recorded("pods"), recorded("containers"));
        let only_recorded: BTreeSet<String> = pods
            .iter()
            .filter(|id| !views.iter().any(|view| view.id.as_str() == *id))
            .cloned()
            .collect();
        for view in &views {
            pods.insert(view.id.to_string());
            containers.extend(view.containers.keys().map(ToString::to_string));
        }
        let has_network = |state: &State| !matches!(state, State::Stopped);
        let networked = views
            .iter()
            .filter(|view| has_network(&view.record.state) && !view.record.host_network())
            .map(|view| view.id.to_string())
            .chain(only_recorded)
            .collect();
        Self { pods, containers, networked }
    }

    /// Whether it belongs to something that has a record.
    pub(super) fn has(&self, leak: &Leak) -> bool {
        match leak {
            Leak::Directory { pod, .. } | Leak::Monitor { pod } | Leak::PodCgroup { pod, .. } => {
                self.pods.contains(pod.as_str())
            }
            Leak::Network { pod } => self.networked.contains(pod),
            Leak::Netns { pod, .. } => self.networked.contains(pod.as_str()),
            // Sandboxes of one pod may have one parent, where the pause process of another has its cgroup.
            Leak::ContainerCgroup { container, .. } => {
                self.containers.contains(container.as_str())
                    || self.pods.contains(container.as_str())
            }
            Leak::WritableLayer { container } | Leak::Plan { container } => {
                self.containers.contains(container.as_str())
            }
            // Only those without a file are listed.
            Leak::Quota { .. } => false,
        }
    }
}

impl Leak {
    /// The kind of the leak, as metrics count it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "directory",
            Self::Monitor { .. } => "monitor",
            Self::PodCgroup { .. } => "pod cgroup",
            Self::ContainerCgroup { .. } => "container cgroup",
            Self::Network { .. } => "network",
            Self::Netns { .. } => "network namespace",
            Self::WritableLayer { .. } => "writable layer",
            Self::Plan { .. } => "plan",
            Self::Quota { .. } => "quota",
        }
    }

    pub(super) fn finding(&self, names: &BTreeMap<String, String>) -> Finding {
        let shown = |path: &Path| path.display().to_string();
        let (subject, name, id) = match self {
            Self::Directory { pod, path } => ("directory", shown(path), pod.as_str()),
            Self::Monitor { pod } => ("monitor", format!("hull-monitor {pod}"), pod.as_str()),
            Self::PodCgroup { pod, path } => ("cgroup", path.clone(), pod.as_str()),
            Self::ContainerCgroup { container, path, .. } => {
                ("cgroup", path.clone(), container.as_str())
            }
            Self::Network { pod } => ("network", pod.clone(), pod.as_str()),
            Self::Netns { pod, path } => ("mount", shown(path), pod.as_str()),
            Self::WritableLayer { container } => {
                ("writable layer", container.to_string(), container.as_str())
            }
            Self::Plan { container } => ("plan", container.to_string(), container.as_str()),
            Self::Quota { project } => ("quota", format!("project {project}"), ""),
        };
        let kind = match self {
            Self::ContainerCgroup { .. }
            | Self::WritableLayer { .. }
            | Self::Plan { .. }
            | Self::Quota { .. } => "container",
            Self::Directory { .. }
            | Self::Monitor { .. }
            | Self::PodCgroup { .. }
            | Self::Network { .. }
            | Self::Netns { .. } => "pod",
        };
        Finding {
            class: "leak".into(),
            subject: subject.into(),
            name,
            owner: owner(id, names),
            found: format!("its {kind} has no record any more"),
            hint: "`hull doctor --fix` removes it".into(),
            outcome: "left".into(),
        }
    }
}

/// Everything on the host that has the name of a pod or container, and is proven to be Hull's: by the directory where
/// it lies, which is Hull's alone, or by `proof`, ids that Hull has given.
pub(super) fn on_host(node: &Node, proof: &BTreeSet<String>) -> Vec<Leak> {
    let mut found = Vec::new();
    for dir in [node.run_dir(), node.pod_files_dir()] {
        let of_pods = names_in(&dir).into_iter().filter_map(|name| PodId::parse(&name).ok());
        found.extend(of_pods.map(|pod| Leak::Directory { path: dir.join(pod.as_str()), pod }));
    }
    let monitors = monitors::running(&node.run_dir()).into_iter();
    found.extend(monitors.map(|pod| Leak::Monitor { pod }));
    found.extend(cgroups(node, proof));
    found.extend(node.network.attachments().into_iter().map(|pod| Leak::Network { pod }));
    found.extend(pinned(&node.config.current().network.cni.netns_dir, proof));
    let layers = node.images.rootfs_ids().into_iter();
    let layers = layers.filter_map(|name| ContainerId::parse(&name).ok());
    found.extend(layers.map(|container| Leak::WritableLayer { container }));
    found.extend(node.plans.ids().into_iter().map(|container| Leak::Plan { container }));
    found.extend(node.images.leaked_quotas().into_iter().map(|project| Leak::Quota { project }));
    found
}

/// The ids that Hull has given to pods and containers, as far as `past` and plans have them.
pub(super) fn proof(node: &Node, past: &[Timeline]) -> BTreeSet<String> {
    let remembered = past.iter().map(|of| of.id.clone());
    remembered.chain(node.plans.ids().iter().map(ToString::to_string)).collect()
}

/// The cgroups of pods that named no parent, and those of containers in the cgroups of known pods. A cgroup that
/// Hull has not made is the kubelet's: containers of other runtimes may lie there.
fn cgroups(node: &Node, proof: &BTreeSet<String>) -> Vec<Leak> {
    let parent = node.driver.default_parent();
    let children = |path: &str| hull_cgroup::children(&node.cgroups, path).unwrap_or_default();
    let of_others = monitors::elsewhere(&node.run_dir());
    let mut found: Vec<Leak> = children(&parent)
        .into_iter()
        .filter_map(|name| {
            let pod = node.driver.pod_of(&name).filter(|pod| !of_others.contains(pod))?;
            Some(Leak::PodCgroup { pod, path: format!("{parent}/{name}") })
        })
        .collect();
    for view in node.registry.views() {
        let pod_path = view.record.cgroup.clone();
        for name in children(&pod_path) {
            if let Ok(container) = ContainerId::parse(&name)
                && (view.record.cgroup_is_ours || proof.contains(&name))
            {
                let (path, pod_path) = (format!("{pod_path}/{name}"), pod_path.clone());
                found.push(Leak::ContainerCgroup { container, path, pod_path });
            }
        }
    }
    found
}

/// The network namespaces that are pinned in `netns_dir`, and files of interrupted pins: with the id of a pod in their
/// name that Hull has given. The directory is not Hull's alone.
fn pinned(netns_dir: &Path, proof: &BTreeSet<String>) -> Vec<Leak> {
    let ours = cni::pins(netns_dir).into_iter().filter(|(pod, _)| proof.contains(pod));
    ours.filter_map(|(pod, path)| Some(Leak::Netns { pod: PodId::parse(&pod).ok()?, path }))
        .collect()
}

/// The names in a directory; none if it cannot be read.
fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(pods: &[&PodId], containers: &[&ContainerId], networked: &[&PodId]) -> Known {
        Known {
            pods: pods.iter().map(ToString::to_string).collect(),
            containers: containers.iter().map(ToString::to_string).collect(),
            networked: networked.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn only_what_has_no_record_is_a_leak() {
        let (pod, other) = (PodId::from_random([1; 32]), PodId::from_random([2; 32]));
        let container = ContainerId::from_random([3; 32]);
        let known = known(&[&pod], &[&container], &[]);
        assert!(known.has(&Leak::Monitor { pod: pod.clone() }));
        assert!(!known.has(&Leak::Monitor { pod: other.clone() }));
        assert!(!known.has(&Leak::Network { pod: pod.to_string() }), "a stopped pod has none");
        assert!(known.has(&Leak::Plan { container: container.clone() }));
        let own = |id: &str| ContainerId::parse(id).unwrap();
        let cgroup = |id: &str| {
            let (path, pod_path) = (String::new(), String::new());
            Leak::ContainerCgroup { container: own(id), path, pod_path }
        };
        assert!(known.has(&cgroup(container.as_str())));
        assert!(known.has(&cgroup(pod.as_str())), "the pause process of another sandbox");
        assert!(!known.has(&cgroup(other.as_str())));
    }

    #[test]
    fn only_pins_with_the_id_of_a_known_pod_are_hulls() {
        let (pod, other) = (PodId::from_random([1; 32]), PodId::from_random([2; 32]));
        let dir = tempfile::tempdir().unwrap();
        let names = ["cni-1234", "hull-odd", "x", "odd"].map(str::to_owned);
        let of_pods = [format!("hull-{pod}"), format!("hull-{other}"), pod.to_string()];
        for name in names.iter().chain(&of_pods) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let proof = BTreeSet::from([pod.to_string(), "odd".to_owned()]);
        let path = dir.path().join(format!("hull-{pod}"));
        assert_eq!(pinned(dir.path(), &proof), [Leak::Netns { pod, path }]);
        assert!(pinned(&dir.path().join("none"), &proof).is_empty());
    }

    #[test]
    fn a_leak_names_its_owner() {
        let pod = PodId::from_random([1; 32]);
        let names = BTreeMap::from([(pod.to_string(), "ns/web".to_owned())]);
        let finding = Leak::Network { pod: pod.to_string() }.finding(&names);
        assert!(finding.owner.starts_with("ns/web (") && finding.owner.contains(pod.short()));
        assert_eq!((&*finding.subject, &*finding.outcome), ("network", "left"));
        let unknown = Leak::Monitor { pod: pod.clone() }.finding(&BTreeMap::new());
        assert!(unknown.owner.starts_with(pod.short()));
    }
}

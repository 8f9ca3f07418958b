// SPDX-License-Identifier: Apache-2.0
//! Records of what is not there, or is not as recorded.

use super::finding::{Finding, owner};
use crate::container::{ContainerSnapshot, State as ContainerState};
use crate::error::Chain;
use crate::node::Node;
use crate::pod::{PodSnapshot, State};
use crate::storage::blocking;
use hull_cgroup::Cgroup;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Directories of records, where those that cannot be used are set aside.
const RECORDS: [&str; 6] = ["pods", "containers", "node", "network", "history", "history/ended"];

/// How long all network plugins together may take.
const PLUGINS_MAX: Duration = Duration::from_secs(10);

/// How long a monitor may take to answer here: it needs less than a millisecond.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Something that a record promises and the host does not have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mismatch {
    subject: &'static str,
    /// The pod or container.
    id: String,
    name: String,
    found: &'static str,
    hint: &'static str,
}

impl Mismatch {
    pub(super) fn finding(&self, names: &BTreeMap<String, String>) -> Finding {
        Finding {
            owner: owner(&self.id, names),
            ..mismatch(self.subject, self.name.clone(), self.found.into(), self.hint.into())
        }
    }
}

fn mismatch(subject: &str, name: String, found: String, hint: String) -> Finding {
    Finding {
        class: "mismatch".into(),
        subject: subject.into(),
        name,
        owner: String::new(),
        found,
        hint,
        outcome: "left".into(),
    }
}

/// The mismatches of all pods and containers. A pod that this daemon has not adopted yet has no connection; what is
/// known of it is that of the last daemon.
pub(super) fn of(node: &Node) -> BTreeSet<Mismatch> {
    let attached: BTreeSet<String> = node.network.attachments().into_iter().collect();
    let layers: BTreeSet<String> = node.images.rootfs_ids().into_iter().collect();
    let mut found = BTreeSet::new();
    for view in node.registry.views().iter().filter(|view| view.client.is_some()) {
        if let State::Ready { pause_pid, ips } = &view.record.state {
            // Without a network, or on the host's, a pod has no addresses of its own.
            let is_attached = ips.is_empty() || attached.contains(view.id.as_str());
            of_pod(node, view, *pause_pid, is_attached, &mut found);
        }
        for container in view.containers.values() {
            of_container(node, container, &layers, &mut found);
        }
    }
    found
}

fn of_pod(
    node: &Node,
    view: &PodSnapshot,
    pause_pid: i32,
    is_attached: bool,
    found: &mut BTreeSet<Mismatch>,
) {
    let mut add = |subject, name: String, text, hint| {
        found.insert(Mismatch { subject, id: view.id.to_string(), name, found: text, hint });
    };
    let again = "delete the pod: its controller makes it again";
    let cgroup = format!("{}/{}", view.record.cgroup, view.id);
    if !has_process(node, &cgroup, pause_pid) {
        add("process", format!("pause, {pause_pid}"), "it is not in the cgroup of the pod", again);
    }
    if !is_attached {
        add("network", view.id.to_string(), "the pod has no addresses on record", again);
    }
}

/// Whether the pod is ready now: what was found of one that goes is nothing.
fn is_ready(node: &Node, view: &PodSnapshot) -> bool {
    node.registry.pod(view.id.as_str()).is_some_and(|pod| pod.view().record.state.is_ready())
}

/// The monitors that do not answer.
pub(super) async fn unresponsive(node: &Arc<Node>) -> Vec<Mismatch> {
    let ask = |view: Arc<PodSnapshot>| async move {
        let client = view.client.clone().filter(|_| view.record.state.is_ready())?;
        let answered = tokio::time::timeout(ANSWER_MAX, client.is_alive()).await;
        if matches!(answered, Ok(Ok(()))) || !is_ready(node, &view) {
            return None;
        }
        Some(Mismatch {
            subject: "monitor",
            id: view.id.to_string(),
            name: view.id.to_string(),
            found: "it does not answer",
            hint: "see why the process does not run (stopped, or stuck on storage); stopping the pod ends it",
        })
    };
    let asked = futures_util::future::join_all(node.registry.views().into_iter().map(ask));
    asked.await.into_iter().flatten().collect()
}

fn of_container(
    node: &Node,
    view: &ContainerSnapshot,
    layers: &BTreeSet<String>,
    found: &mut BTreeSet<Mismatch>,
) {
    let record = &view.record;
    let mut add = |subject, name: String, text, hint| {
        found.insert(Mismatch { subject, id: view.id.to_string(), name, found: text, hint });
    };
    let again = "remove the container: the kubelet makes it again";
    let has_layer = match &record.state {
        ContainerState::Running { pid, .. } => {
            if !has_process(node, &record.cgroup, *pid) {
                add("process", pid.to_string(), "it is not in the cgroup of its container", again);
            }
            true
        }
        ContainerState::Created | ContainerState::Exited { .. } => true,
        ContainerState::Creating | ContainerState::Removing => false,
    };
    if has_layer && !layers.contains(record.id.as_str()) {
        add("writable layer", record.id.clone(), "it is not there", again);
    }
}

fn has_process(node: &Node, cgroup: &str, pid: i32) -> bool {
    let processes = Cgroup::at(&node.cgroups, cgroup).and_then(|cgroup| cgroup.procs());
    processes.is_ok_and(|all| all.contains(&pid))
}

/// The pods whose attachment network plugins do not confirm (CNI CHECK), asked side by side.
pub(super) async fn refused_by_plugins(node: &Arc<Node>) -> Vec<Finding> {
    let attached: BTreeSet<String> = node.network.attachments_by_plugins().into_iter().collect();
    let until = Instant::now() + PLUGINS_MAX;
    let ask = |view: Arc<PodSnapshot>| async move {
        let (shared, id) = (Arc::clone(node), view.id.clone());
        let checked = blocking(move || shared.network.check_pod(id.as_str()));
        let (found, hint) = match timeout_at(until, checked).await {
            Ok(Ok(())) => return None,
            Ok(Err(err)) => (Chain(&err).to_string(), err.hint().unwrap_or_default()),
            Err(_) => {
                let hint = "see whether the network plugin and its agent answer";
                ("not checked: the plugins took too long".to_owned(), hint.to_owned())
            }
        };
        let name = view.record.full_name();
        is_ready(node, &view).then(|| mismatch("network", name, found, hint))
    };
    let views = node.registry.views().into_iter();
    let views =
        views.filter(|view| view.record.state.is_ready() && attached.contains(view.id.as_str()));
    futures_util::future::join_all(views.map(ask)).await.into_iter().flatten().collect()
}

/// The mismatches of the node as a whole: they do not come and go with pods.
pub(super) fn of_node(node: &Node) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Ok(false) = node.network.has_rules() {
        let text = "rules of pods were removed by somebody else";
        let name = format!("nftables table {}", node.config.network.table);
        let hint = "the next status of the node writes them again; find out what flushes the node's rules, such as \
                    a restart of a firewall";
        found.push(mismatch("rules", name, text.into(), hint.into()));
    }
    for image in node.images.list() {
        if !node.images.is_whole(&image) {
            let name = image.repo_tags.first().unwrap_or(&image.id).clone();
            let hint = "`hull images verify --repair` pulls its broken layers again";
            found.push(mismatch("image", name, "a layer of it is broken".into(), hint.into()));
        }
    }
    for dir in RECORDS.map(|name| node.config.state_dir.join(name)) {
        found.extend(set_aside(&dir));
    }
    found
}

fn set_aside(dir: &Path) -> Vec<Finding> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let bad = entries.filter(|path| path.extension().is_some_and(|end| end == "bad"));
    bad.map(|path| {
        let hint =
            "what it stood for was swept; read it if you want to know what that was, and remove it";
        let found = "a record that could not be used was set aside";
        mismatch("record", path.display().to_string(), found.into(), hint.into())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_were_set_aside_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.bad"), "x").unwrap();
        fs::write(dir.path().join("b.json"), "x").unwrap();
        let found = set_aside(dir.path());
        assert_eq!(found.len(), 1);
        assert!(found[0].name.ends_with("a.bad") && found[0].class == "mismatch", "{found:?}");
        assert!(set_aside(&dir.path().join("none")).is_empty());
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Records of what is not there, or is not as recorded.

use super::finding::{Finding, owner};
use crate::container::{ContainerSnapshot, State as ContainerState};
use crate::diagnostics::links;
use crate::error::Chain;
use crate::node::Node;
use crate::pod::{PodSnapshot, State};
use crate::storage::blocking;
use futures_util::{StreamExt as _, stream};
use hull_cgroup::Cgroup;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Directories of records, where those that cannot be used are set aside.
const RECORDS: [&str; 6] = ["pods", "containers", "node", "network", "history", "history/ended"];

/// How long all network plugins together may take.
const PLUGINS_MAX: Duration = Duration::from_secs(10);

/// Most pods whose plugins run at the same time: each call is a program on the node.
const PLUGINS_AT_ONCE: usize = 4;

const PLUGINS_LATE: &str = "see whether the network plugin and its agent answer";

/// Something that a record promises and the host does not have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mismatch {
    subject: &'static str,
    /// The pod or container.
    id: String,
    name: String,
    found: &'static str,
    hint: Cow<'static, str>,
}

impl Mismatch {
    pub(super) fn finding(&self, names: &BTreeMap<String, String>) -> Finding {
        Finding {
            owner: owner(&self.id, names),
            ..mismatch(self.subject, self.name.clone(), self.found.into(), self.hint.clone().into())
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
    let mut add = |subject, name: String, text, hint: Cow<'static, str>| {
        found.insert(Mismatch { subject, id: view.id.to_string(), name, found: text, hint });
    };
    let again = Cow::Borrowed("delete the pod: its controller makes it again");
    let cgroup = format!("{}/{}", view.record.cgroup, view.id);
    if !has_process(node, &cgroup, pause_pid) {
        add(
            "process",
            format!("pause, {pause_pid}"),
            "it is not in the cgroup of the pod",
            again.clone(),
        );
    }
    if !is_attached {
        add("network", view.id.to_string(), "the pod has no addresses on record", again);
    } else if let Some((found, hint)) = links::fault(node, &view.record) {
        add("network", view.id.to_string(), found, hint.into());
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
        if client.is_alive().await.is_ok() || !is_ready(node, &view) {
            return None;
        }
        Some(Mismatch {
            subject: "monitor",
            id: view.id.to_string(),
            name: view.id.to_string(),
            found: "it does not answer",
            hint: "see why the process does not run (stopped, or stuck on storage); stopping the pod ends it".into(),
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
    let mut add = |subject, name: String, text| {
        let hint = Cow::Borrowed("remove the container: the kubelet makes it again");
        found.insert(Mismatch { subject, id: view.id.to_string(), name, found: text, hint });
    };
    let has_layer = match &record.state {
        ContainerState::Running { pid, .. } => {
            if !has_process(node, &record.cgroup, *pid) {
                add("process", pid.to_string(), "it is not in the cgroup of its container");
            }
            true
        }
        ContainerState::Created | ContainerState::Exited { .. } => true,
        ContainerState::Creating | ContainerState::Removing => false,
    };
    if has_layer && !layers.contains(record.id.as_str()) {
        add("writable layer", record.id.clone(), "it is not there");
    }
}

fn has_process(node: &Node, cgroup: &str, pid: i32) -> bool {
    let processes = Cgroup::at(&node.cgroups, cgroup).and_then(|cgroup| cgroup.procs());
    processes.is_ok_and(|all| all.contains(&pid))
}

/// The pods whose attachment network plugins do not confirm (CNI CHECK), and how many were not checked.
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
                ("not checked: the plugins took too long".to_owned(), PLUGINS_LATE.to_owned())
            }
        };
        let name = view.record.full_name();
        is_ready(node, &view).then(|| mismatch("network", name, found, hint))
    };
    let views = node.registry.views().into_iter();
    let views =
        views.filter(|view| view.record.state.is_ready() && attached.contains(view.id.as_str()));
    let (answers, not_asked) = ask_until(until, views, ask).await;
    let mut found: Vec<Finding> = answers.into_iter().flatten().collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    let not_asked = not_asked.iter().filter(|view| is_ready(node, view)).count();
    found.extend(not_checked(not_asked));
    found
}

/// Asks about each of them, [`PLUGINS_AT_ONCE`] at the same time, and about no further one from `until` on. Returns
/// the answers as they come, and those that were not asked about.
async fn ask_until<T, A: Future>(
    until: Instant,
    all: impl Iterator<Item = T>,
    ask: impl Fn(T) -> A,
) -> (Vec<A::Output>, Vec<T>) {
    let ask = &ask;
    let all = stream::iter(all)
        .map(|of| async move { if Instant::now() < until { Ok(ask(of).await) } else { Err(of) } });
    let mut all = pin!(all.buffer_unordered(PLUGINS_AT_ONCE));
    let (mut answers, mut not_asked) = (Vec::new(), Vec::new());
    while let Some(asked) = all.next().await {
        match asked {
            Ok(answer) => answers.push(answer),
            Err(of) => not_asked.push(of),
        }
    }
    (answers, not_asked)
}

fn not_checked(pods: usize) -> Option<Finding> {
    let found = match pods {
        0 => return None,
        1 => "1 pod was not checked: the plugins took too long".to_owned(),
        pods => format!("{pods} pods were not checked: the plugins took too long"),
    };
    Some(mismatch("network", "plugins".into(), found, PLUGINS_LATE.into()))
}

/// The mismatches of the node as a whole: they do not come and go with pods.
pub(super) fn of_node(node: &Node) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Ok(false) = node.network.has_rules() {
        let text = "rules of pods were removed by somebody else";
        let name = format!("nftables table {}", node.config.current().network.table);
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
    found.extend(RECORDS.iter().flat_map(|name| set_aside(&node.config.current().state_dir, name)));
    found
}

/// The records that were set aside in the directory `name` of `state_dir`.
fn set_aside(state_dir: &Path, name: &str) -> Vec<Finding> {
    let hint = if name.starts_with("history") {
        "only what `hull explain` knows of the past is lost; remove it"
    } else {
        "what it stood for was swept; read it if you want to know what that was, and remove it"
    };
    let entries = fs::read_dir(state_dir.join(name)).into_iter().flatten().flatten();
    let entries = entries.map(|entry| entry.path());
    let bad = entries.filter(|path| path.extension().is_some_and(|end| end == "bad"));
    bad.map(|path| {
        let found = "a record that could not be used was set aside";
        mismatch("record", path.display().to_string(), found.into(), hint.into())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn records_that_were_set_aside_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for (name, lost) in [("pods", "was swept"), ("history/ended", "of the past is lost")] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("a.bad"), "x").unwrap();
            fs::write(dir.path().join(name).join("b.json"), "x").unwrap();
            let found = set_aside(dir.path(), name);
            assert_eq!(found.len(), 1);
            assert!(found[0].name.ends_with("a.bad") && found[0].class == "mismatch", "{found:?}");
            assert!(found[0].hint.contains(lost), "{found:?}");
        }
        assert!(set_aside(dir.path(), "none").is_empty());
    }

    #[tokio::test]
    async fn pods_are_asked_about_a_few_at_a_time_until_the_time_is_over() {
        let (now, most) = (Cell::new(0), Cell::new(0));
        let ask = |pod: usize| {
            let (now, most) = (&now, &most);
            async move {
                now.set(now.get() + 1);
                most.set(most.get().max(now.get()));
                tokio::task::yield_now().await;
                now.set(now.get() - 1);
                pod
            }
        };
        let later = Instant::now() + Duration::from_secs(600);
        let (mut answers, not_asked) = ask_until(later, 0..20, ask).await;
        answers.sort_unstable();
        assert_eq!((answers, not_asked), ((0..20).collect(), vec![]));
        assert_eq!(most.get(), PLUGINS_AT_ONCE);
        let (answers, not_asked) = ask_until(Instant::now(), 0..20, ask).await;
        assert_eq!((answers, not_asked), (vec![], (0..20).collect()));
        let one = not_checked(20).unwrap();
        assert_eq!(one.found, "20 pods were not checked: the plugins took too long");
        assert!(not_checked(1).unwrap().found.starts_with("1 pod was") && !one.hint.is_empty());
        assert_eq!(not_checked(0), None);
    }
}

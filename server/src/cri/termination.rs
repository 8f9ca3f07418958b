// SPDX-License-Identifier: Apache-2.0
//! The message of an exit, beside the program's own termination message.
//!
//! A kubelet joins both, Hull's first: `out of memory: …: what the program wrote`. Programs, controllers and tests
//! expect their own text there and nothing else. So the status of a container has no message if its kubelet will find
//! text of the program: in the file at `terminationMessagePath`, or in the log where the policy says so. The
//! explanation is in the verbose info then, and the reason is always given.

use super::convert;
use crate::container::{ContainerSnapshot, State};
use crate::diagnostics::running;
use crate::node::Node;
use crate::pod::PodSnapshot;
use crate::storage::blocking;
use hull_proto::cri as api;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Annotations by which a kubelet notes how it finds the termination message of a container.
const PATH: &str = "io.kubernetes.container.terminationMessagePath";
const POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// The policy by which the end of the log counts as the message of a container that failed.
const FROM_LOG: &str = "FallbackToLogsOnError";

/// The status of a container for a client; a `verbose` one may cost more.
pub(super) async fn container_status(
    node: &Arc<Node>,
    pod: &PodSnapshot,
    view: &ContainerSnapshot,
    verbose: bool,
) -> api::ContainerStatus {
    let mut status = convert::container_status(node, view);
    if !status.message.is_empty() && has_own_message(node, &status).await {
        status.message.clear();
    }
    if matches!(view.record.state, State::Running { .. }) {
        status.message = of_running(node, pod, view, verbose).await;
    }
    status
}

/// The faults of a container that runs. No kubelet joins them to a message of the program, which has not ended.
async fn of_running(
    node: &Arc<Node>,
    pod: &PodSnapshot,
    view: &ContainerSnapshot,
    verbose: bool,
) -> String {
    let (node, pod, record) = (Arc::clone(node), Arc::clone(&pod.record), Arc::clone(&view.record));
    let faults = blocking(move || running::faults(&node, &pod, &record, verbose)).await;
    let texts: Vec<_> = faults.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// The statuses of all containers of a pod for a client.
pub(super) async fn container_statuses(
    node: &Arc<Node>,
    pod: &PodSnapshot,
) -> Vec<api::ContainerStatus> {
    let mut statuses = Vec::with_capacity(pod.containers.len());
    for view in pod.containers.values() {
        statuses.push(container_status(node, pod, view, false).await);
    }
    statuses
}

/// Whether a kubelet will find text of the program. A file system that does not answer counts as text: the message
/// of the program must stay as it is.
async fn has_own_message(node: &Node, status: &api::ContainerStatus) -> bool {
    for path in message_files(status) {
        let directory = Path::new(&path).parent().unwrap_or(Path::new("/"));
        let directory = directory.to_string_lossy().into_owned();
        let look = move || has_text(&path);
        let found = node.storage.within("look for a termination message", &directory, look);
        if found.await.unwrap_or(true) {
            return true;
        }
    }
    false
}

fn has_text(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// The files of the host in which the kubelet looks for the program's message.
fn message_files(status: &api::ContainerStatus) -> Vec<String> {
    let Some(inside) = status.annotations.get(PATH) else { return Vec::new() };
    let mount = status.mounts.iter().find(|mount| mount.container_path == *inside);
    let file = mount.map(|mount| mount.host_path.clone());
    let from_log = status.annotations.get(POLICY).is_some_and(|policy| policy == FROM_LOG);
    let log = (from_log && status.exit_code != 0).then(|| status.log_path.clone());
    file.into_iter().chain(log).filter(|path| !path.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_looks_into_the_mounted_file_and_into_the_log_of_a_failure() {
        let with = |annotations: &[(&str, &str)], exit_code| api::ContainerStatus {
            annotations: annotations.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            mounts: vec![api::Mount {
                container_path: "/dev/termination-log".into(),
                host_path: "/kubelet/file".into(),
                ..Default::default()
            }],
            log_path: "/logs/0.log".into(),
            exit_code,
            ..Default::default()
        };
        let path = (PATH, "/dev/termination-log");
        assert!(message_files(&with(&[], 1)).is_empty(), "not of a kubelet");
        assert_eq!(message_files(&with(&[path, (POLICY, "File")], 1)), ["/kubelet/file"]);
        let both = [path, (POLICY, FROM_LOG)];
        assert_eq!(message_files(&with(&both, 1)), ["/kubelet/file", "/logs/0.log"]);
        assert_eq!(message_files(&with(&both, 0)), ["/kubelet/file"]);
        let elsewhere = [(PATH, "/tmp/message"), (POLICY, "File")];
        assert!(message_files(&with(&elsewhere, 1)).is_empty(), "no such mount");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Which verb waits for which part of the node, and how long: the bounds of [`super`], added up. Only
//! docs/security.md and the tests that hold it against the code need the list.

use super::{
    ANSWER_MAX, DIE_MAX, EMPTY_MAX, EXEC_KILLED_MAX, LOST_MAX, PAUSE_MAX, RECOVER_MAX,
    SHUTDOWN_MAX, STORAGE_MAX,
};
use std::time::Duration;

/// One or several verbs, a part that hangs under them, and what comes of it.
#[derive(Debug)]
struct Wait {
    verbs: &'static str,
    part: &'static str,
    /// The fixed bounds that are added up.
    fixed: &'static [Duration],
    /// Settings, and fields of the request, that come on top.
    settings: &'static [&'static str],
    then: &'static str,
    reads: &'static str,
}

const fn wait(
    (verbs, part): (&'static str, &'static str),
    fixed: &'static [Duration],
    settings: &'static [&'static str],
    then: &'static str,
    reads: &'static str,
) -> Wait {
    Wait { verbs, part, fixed, settings, then, reads }
}

/// Its time limit, or its grace period.
const TIMEOUT: &str = "timeout";
const LAUNCH: &str = "runtime.launch_timeout_s";
const STALL: &str = "image.stall_s";
const PLUGIN: &str = "network.cni.plugin_timeout_s";
const NRI: &str = "nri.request_timeout_ms";

const BY_CGROUP: &str = "the monitor is killed and the cgroups are cleared by the daemon";
const AT_ONCE: &str = "it is not waited for";

const WAITS: &[Wait] = &[
    wait(
        ("StartContainer, ExecSync without a timeout", "monitor"),
        &[ANSWER_MAX, ANSWER_MAX],
        &[],
        "the container counts as not started",
        "UNAVAILABLE",
    ),
    wait(
        ("ExecSync", "monitor"),
        &[EXEC_KILLED_MAX],
        &[TIMEOUT],
        "the command is killed once the monitor takes that",
        "DEADLINE_EXCEEDED",
    ),
    wait(("ReopenContainerLog", "monitor"), &[ANSWER_MAX], &[], "nothing", "UNAVAILABLE"),
    wait(
        ("StopContainer", "monitor"),
        &[ANSWER_MAX, DIE_MAX, LOST_MAX],
        &[TIMEOUT],
        BY_CGROUP,
        "OK",
    ),
    wait(
        ("RemoveContainer", "monitor"),
        &[ANSWER_MAX, DIE_MAX, LOST_MAX, ANSWER_MAX],
        &[],
        BY_CGROUP,
        "OK",
    ),
    wait(
        ("StopPodSandbox, RemovePodSandbox", "monitor"),
        &[SHUTDOWN_MAX, ANSWER_MAX, EMPTY_MAX],
        &[],
        BY_CGROUP,
        "OK",
    ),
    wait(("PodSandboxStats", "monitor"), &[PAUSE_MAX], &[], "the pod's network is left out", "OK"),
    wait(
        (
            "CreateContainer, UpdateContainerResources, ContainerStatus, ContainerStats, ListContainers, Exec, Attach",
            "monitor",
        ),
        &[],
        &[],
        AT_ONCE,
        "OK",
    ),
    wait(
        ("StopPodSandbox, RemovePodSandbox", "pause process"),
        &[SHUTDOWN_MAX],
        &[],
        "it is killed",
        "OK",
    ),
    wait(
        (
            "CreateContainer, StartContainer, ExecSync, ExecSync without a timeout, UpdateContainerResources, ReopenContainerLog, ContainerStatus, ContainerStats, PodSandboxStats, ListContainers, StopContainer, RemoveContainer, Exec, Attach",
            "pause process",
        ),
        &[],
        &[],
        AT_ONCE,
        "OK",
    ),
    wait(
        ("ExecSync, ExecSync without a timeout, Exec, Attach", "frozen container"),
        &[],
        &[],
        "it is refused; a command that runs already ends at its `timeout`, killed when it thaws with cgroup v1",
        "FAILED_PRECONDITION",
    ),
    wait(
        ("StopContainer", "frozen container"),
        &[DIE_MAX, DIE_MAX],
        &[TIMEOUT],
        "it is killed and thawed",
        "OK",
    ),
    wait(
        ("RemoveContainer, StopPodSandbox, RemovePodSandbox", "frozen container"),
        &[DIE_MAX, DIE_MAX],
        &[],
        "it is killed and thawed",
        "OK",
    ),
    wait(
        (
            "CreateContainer, UpdateContainerResources, ReopenContainerLog, ContainerStatus, ContainerStats, PodSandboxStats, ListContainers",
            "frozen container",
        ),
        &[],
        &[],
        AT_ONCE,
        "OK",
    ),
    wait(
        ("CreateContainer", "storage of a volume"),
        &[STORAGE_MAX],
        &[],
        "further calls about that path are refused at once until it answers",
        "OK, or UNAVAILABLE",
    ),
    wait(
        ("StartContainer, ExecSync without a timeout", "storage of a volume"),
        &[],
        &[LAUNCH],
        "the process is killed, which ends it unless the server of that file system has its request",
        "DEADLINE_EXCEEDED",
    ),
    wait(
        ("ExecSync", "storage of a volume"),
        &[EXEC_KILLED_MAX],
        &[TIMEOUT],
        "the process is killed in the same way",
        "DEADLINE_EXCEEDED",
    ),
    wait(
        ("StopPodSandbox, RemovePodSandbox", "storage of a volume"),
        &[SHUTDOWN_MAX, ANSWER_MAX, EMPTY_MAX],
        &[],
        "tried again after 1 s to 64 s until what hangs has ended",
        "OK, or UNKNOWN with the cgroup that is not empty",
    ),
    wait(
        (
            "UpdateContainerResources, ReopenContainerLog, ContainerStatus, ContainerStats, PodSandboxStats, ListContainers, Exec, Attach",
            "storage of a volume",
        ),
        &[],
        &[],
        AT_ONCE,
        "OK",
    ),
    wait(
        ("StartContainer, ReopenContainerLog", "storage of the logs"),
        &[STORAGE_MAX],
        &[],
        "further calls about that directory are refused at once until it answers",
        "UNAVAILABLE",
    ),
    wait(
        (
            "CreateContainer, ExecSync, UpdateContainerResources, ContainerStatus, ContainerStats, PodSandboxStats, ListContainers, StopContainer, RemoveContainer, StopPodSandbox, RemovePodSandbox, Exec, Attach",
            "storage of the logs",
        ),
        &[],
        &[],
        AT_ONCE,
        "OK",
    ),
    wait(
        ("RunPodSandbox", "network plugin in ADD"),
        &[],
        &[PLUGIN],
        "the plugin is killed, DEL is called, the pod is taken away",
        "UNKNOWN",
    ),
    wait(
        ("StopPodSandbox, RemovePodSandbox", "network plugin in DEL"),
        &[],
        &[PLUGIN],
        "the plugin is killed; tried again after 1 s to 64 s, 100 times at most",
        "UNKNOWN",
    ),
    wait(
        ("Status", "network plugin in STATUS"),
        &[hull_network::limits::SURVEY_S.time()],
        &[],
        "the plugin is killed, NetworkReady is false",
        "OK",
    ),
    wait(
        (
            "RunPodSandbox, CreateContainer, StartContainer, UpdateContainerResources, StopContainer, RemoveContainer, StopPodSandbox, RemovePodSandbox",
            "NRI plugin",
        ),
        &[],
        &[NRI],
        "the plugin is disconnected and the verb goes on without it; one that is required fails it",
        "OK",
    ),
    wait(
        ("PullImage", "registry or token server"),
        &[],
        &[STALL],
        "tried again as far as \"Registries\" says, then the next host",
        "UNKNOWN",
    ),
    wait(("ImageStatus, ListImages, Status", "registry or token server"), &[], &[], AT_ONCE, "OK"),
    wait(
        ("every verb", "monitor at a daemon's start"),
        &[RECOVER_MAX],
        &[],
        "verbs about that pod wait 10 s, then it is ended",
        "OK",
    ),
];

/// The table for docs/security.md.
pub(crate) fn table() -> String {
    let mut table = String::from(
        "| Verb | What hangs | At most | Then | The caller reads |\n|---|---|---|---|---|\n",
    );
    for Wait { verbs, part, fixed, settings, then, reads } in WAITS {
        let fixed: Duration = fixed.iter().sum();
        let mut bounds: Vec<String> =
            settings.iter().map(|setting| format!("`{setting}`")).collect();
        if bounds.is_empty() || !fixed.is_zero() {
            bounds.push(format!("{} s", fixed.as_secs()));
        }
        let bounds = bounds.join(" + ");
        table.push_str(&format!("| {verbs} | {part} | {bounds} | {then} | {reads} |\n"));
    }
    table
}

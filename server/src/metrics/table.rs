// SPDX-License-Identifier: Apache-2.0
//! Every metric of the daemon: its name, its type, its labels and its meaning. docs/metrics.md is generated from it,
//! and the board and the alerts in charts/hull/files may use no other names.

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows, until the daemon starts again. Its name ends with `_total`.
    Counter,
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// A metric of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

macro_rules! table {
    ($($ident:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub(crate) const $ident: Known = Known {
                name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help,
            };
        )*
        /// All metrics, in the order in which they are documented.
        #[cfg(test)]
        pub(crate) const ALL: &[Known] = &[$($ident),*];
    };
}

table! {
    CALL_SECONDS = Histogram "hull_grpc_call_seconds" ["interface", "verb"] "Time from a call to its answer, by interface (`cri`, `hull`, `containerd`) and verb; of a stream, to the beginning of the answer";
    CALL_ERRORS = Counter "hull_grpc_errors_total" ["interface", "verb", "code", "cause"] "Calls that ended with an error, by gRPC code and by the part of the node or of the request that the error is about; of a stream, also with an error at its end; `client`: the caller left before the answer";
    CALLS_IN_FLIGHT = Gauge "hull_grpc_calls_in_flight" ["interface", "verb"] "Calls that have no answer yet";
    OPERATION_SECONDS = Histogram "hull_operation_seconds" ["operation"] "Time of the work behind a verb, which continues when its caller leaves: `start pod`, `stop pod`, `create container`, `start container`, `stop container`, `remove container`, `pull`";
    OPERATION_ERRORS = Counter "hull_operation_errors_total" ["operation"] "Such work that failed";
    STAGE_SECONDS = Histogram "hull_stage_seconds" ["operation", "stage"] "Time of a stage of that work, as `hull trace` names it: `monitor`, `network namespace`, `network`, `cgroup`, `pause`, `writable layer`, `launch` and others; `exec` has the stage `launch`";
    STAGE_ERRORS = Counter "hull_stage_errors_total" ["operation", "stage"] "Stages that failed";
    OPERATIONS_IN_PROGRESS = Gauge "hull_operations_in_progress" ["operation"] "Work that is not finished";
    OPERATION_OLDEST_SECONDS = Gauge "hull_operation_oldest_seconds" ["operation"] "Age of the oldest work that is not finished: a stuck one grows older and older";
    STAGE_OLDEST_SECONDS = Gauge "hull_stage_oldest_seconds" ["operation", "stage"] "Age of the oldest stage that is not finished: where the stuck work is";
    PODS = Gauge "hull_pods" ["state"] "Pods by state";
    CONTAINERS = Gauge "hull_containers" ["state"] "Containers by state";
    CONTAINER_EXITS = Counter "hull_container_exits_total" ["how"] "Containers that ended: with exit code 0 (`success`), with another one (`error`), by a signal (`signal`), or unseen with their monitor (`unknown`)";
    OOM_KILLS = Counter "hull_oom_kills_total" [] "Processes of containers that the kernel killed because a memory limit was reached";
    DENIALS = Counter "hull_denials_total" ["module", "of"] "Denials by AppArmor, SELinux and seccomp that the kernel reported, of processes in containers, or of processes that had gone before they were looked at (`unknown`)";
    EVICTIONS = Counter "hull_evictions_total" [] "Containers that NRI plugins had stopped";
    LOG_LOST_BYTES = Counter "hull_log_lost_bytes_total" [] "Bytes of containers' output that could not be written to their logs";
    LEAKS_FOUND = Counter "hull_leaks_found_total" ["kind"] "Objects without a record, found by the start of the daemon or by `hull doctor`, each time that they are found";
    LEAKS_REMOVED = Counter "hull_leaks_removed_total" ["kind"] "Such objects that were removed";
    MONITORS = Gauge "hull_monitors" [] "Monitors that run: one for each pod";
    MONITORS_STARTED = Counter "hull_monitors_started_total" [] "Monitors that were started";
    MONITORS_LOST = Counter "hull_monitors_lost_total" [] "Monitors that ended before their pods. A monitor is not started again: its pod becomes NOTREADY, and the kubelet replaces it";
    PULLS = Counter "hull_image_pulls_total" ["result"] "Pulls that ended, by result: `success`, or the kind of the error; `interrupted`: the caller left, and the pull continues";
    PULLS_IN_PROGRESS = Gauge "hull_image_pulls_in_progress" [] "Pulls that are not finished";
    PULL_BYTES = Counter "hull_image_pull_bytes_total" ["source"] "Bytes of layers received, as compressed as they came, from registries and from their mirrors";
    PULL_OBJECTS = Counter "hull_image_pull_objects_total" ["source", "result"] "Manifests, configs and layers requested from registries and from their mirrors";
    PULL_RETRIES = Counter "hull_image_pull_retries_total" [] "Requests to registries that were sent again after a failure";
    PULL_STAGE_SECONDS = Counter "hull_image_pull_stage_seconds_total" ["stage"] "Time spent in the stages of pulls: `resolve` (manifest and config), `layers` (download and unpack), `record` (make durable)";
    BREAKERS = Gauge "hull_image_breakers" ["state"] "Registries and mirrors by the state of their circuit breakers: `open` ones are left alone for a while";
    IMAGES = Gauge "hull_images" [] "Images in the store";
    SESSIONS = Gauge "hull_stream_sessions" ["kind"] "Open sessions of exec, attach and port-forward";
    SESSIONS_OPENED = Counter "hull_stream_sessions_opened_total" ["kind"] "Sessions that were opened";
    EXECS = Counter "hull_execs_total" ["result"] "Commands launched in containers, probes among them, by whether their programs started";
    NRI_PLUGINS = Gauge "hull_nri_plugins" [] "Connected NRI plugins";
    NRI_CALLS = Counter "hull_nri_calls_total" ["method", "result"] "Calls of NRI plugins";
    NRI_CALL_SECONDS = Counter "hull_nri_call_seconds_total" ["method"] "Time spent in calls of NRI plugins, with the wait for the plugin's turn";
    CNI_CALLS = Counter "hull_cni_calls_total" ["command", "result"] "Calls of CNI plugins";
    CNI_CALL_SECONDS = Counter "hull_cni_call_seconds_total" ["command"] "Time spent in calls of CNI plugins";
    FDS = Gauge "hull_process_open_fds" [] "Open file descriptors of the daemon";
    FDS_MAX = Gauge "hull_process_max_fds" [] "File descriptors that the daemon may open";
    MEMORY = Gauge "hull_process_resident_memory_bytes" [] "Resident memory of the daemon, pages of its program included";
    CPU_SECONDS = Counter "hull_process_cpu_seconds_total" [] "CPU time of the daemon";
    THREADS = Gauge "hull_process_threads" [] "Threads of the daemon";
    START_TIME = Gauge "hull_process_start_time_seconds" [] "When the daemon started, in seconds since the epoch";
    MONITORS_MEMORY = Gauge "hull_monitors_memory_bytes" [] "Memory of all monitors together; pages that several share count once (PSS)";
    SCRAPES = Counter "hull_scrapes_total" ["by"] "Answers with these metrics, by the way they were asked for";
    BUILD_INFO = Gauge "hull_build_info" ["version", "commit", "target"] "Always 1; its labels describe the program";
}

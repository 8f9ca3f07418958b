// SPDX-License-Identifier: Apache-2.0
//! Limits on what clients and containers may cost the daemon, each with its name, in one list. The constants in use
//! come from here, and so do the tables under "Budgets" in docs/security.md.
//!
//! How long verbs wait for parts of the node that hang is in [`crate::limits::waits`].

pub(crate) mod call_memory;
pub(crate) mod ulimits;
pub(crate) mod waits;

use hull_sys::budget::{Budget, Unit};

const REFUSED: &str = "the request is refused (INVALID_ARGUMENT)";
const EXHAUSTED: &str = "RESOURCE_EXHAUSTED; a command that writes beyond it is killed";
const CLOSED: &str = "the connection is closed";

/// The largest message that the clients in the kubelet and crictl accept.
pub(crate) const MESSAGE_BYTES: Budget = Budget::fixed(
    "message_bytes_max",
    "bytes of a request or an answer",
    (16 << 20, Unit::Bytes),
    "the request is refused; an answer of ExecSync is cut, its exit code kept",
);
/// Of one ExecSync.
pub(crate) const EXEC_OUTPUT_BYTES: Budget = Budget::setting(
    "runtime",
    "exec_output_bytes_max",
    "bytes of one stream of an ExecSync",
    (16 << 20, Unit::Bytes),
    "cut, with a line at the end that says so; the exit code is kept",
);
/// Of one ExecSync.
pub(crate) const EXEC_DRAIN_S: Budget = Budget::setting(
    "runtime",
    "exec_drain_s",
    "time that output is awaited after the command of an ExecSync has ended",
    (5, Unit::Seconds),
    "what came is the answer",
);
/// Each has a process, pipes and buffers.
pub(crate) const EXEC_SYNCS: Budget = Budget::setting(
    "runtime",
    "exec_syncs_max",
    "ExecSyncs at a time; half of that in one container",
    (1024, Unit::Number),
    "RESOURCE_EXHAUSTED",
);
/// From the request to its `execve`: mounts of the container may be on storage that is slow.
pub(crate) const LAUNCH_S: Budget = Budget::setting(
    "runtime",
    "launch_timeout_s",
    "time of the launch of a process, by a monitor that answers",
    (240, Unit::Seconds),
    "the process is killed (DEADLINE_EXCEEDED)",
);
/// All at a time.
pub(crate) const CALL_MEMORY_BYTES: Budget = Budget::setting(
    "runtime",
    "call_memory_bytes_max",
    "bytes that requests and output of ExecSync hold at a time, each counted twice",
    (64 << 20, Unit::Bytes),
    EXHAUSTED,
);
/// So that small calls are never refused.
pub(crate) const CALL_FREE_BYTES: Budget = Budget::fixed(
    "call_free_bytes",
    "bytes at the beginning of each request and stream that are not counted",
    (16 << 10, Unit::Bytes),
    "counted",
);
/// The length of names.
pub(crate) const NAME_BYTES: Budget = Budget::fixed(
    "name_bytes_max",
    "bytes of a pod's or container's name",
    (1024, Unit::Bytes),
    REFUSED,
);
/// The kernel's own limit.
pub(crate) const GROUPS: Budget = Budget::fixed(
    "groups_max",
    "supplemental groups of a container",
    (65_536, Unit::Number),
    REFUSED,
);
/// Read from the image.
pub(crate) const ACCOUNTS_BYTES: Budget = Budget::fixed(
    "accounts_bytes_max",
    "bytes of an image's passwd or group file",
    (1 << 20, Unit::Bytes),
    "the container is refused",
);
/// Of all device files.
pub(crate) const CDI_FILE_BYTES: Budget = Budget::fixed(
    "cdi_file_bytes_max",
    "bytes of a CDI device file",
    (4 << 20, Unit::Bytes),
    "the file is not used",
);
/// In a directory of hooks.
pub(crate) const HOOK_FILE_BYTES: Budget = Budget::fixed(
    "hook_file_bytes_max",
    "bytes of a hook file",
    (1 << 20, Unit::Bytes),
    "containers are refused",
);
/// Of a CDI device, an NRI plugin or a hook file.
pub(crate) const HOOK_S: Budget = Budget::fixed(
    "hook_timeout_s",
    "time of a hook that has no timeout of its own",
    (30, Unit::Seconds),
    "it is killed with all that it started; a start fails (FAILED_PRECONDITION)",
);
/// Kept for clients that come later or read slowly.
pub(crate) const EVENTS: Budget = Budget::fixed(
    "events_max",
    "events that wait for a client",
    (2048, Unit::Number),
    "the client is disconnected, and asks again",
);
/// While no client reads them.
pub(crate) const EVENTS_BYTES: Budget = Budget::fixed(
    "events_bytes_max",
    "bytes of the configs in events that are kept while no client reads",
    (16 << 20, Unit::Bytes),
    "the oldest are dropped",
);
/// While no client reads them.
pub(crate) const EVENTS_KEPT_S: Budget = Budget::fixed(
    "events_kept_s",
    "time that events are kept while no client reads",
    (30, Unit::Seconds),
    "the oldest are dropped",
);
/// For the whole node.
pub(crate) const WALKERS: Budget = Budget::fixed(
    "walkers_max",
    "threads that measure what containers have written",
    (2, Unit::Number),
    "further ones wait; answers do not",
);
/// For one answer.
pub(crate) const WALK_MS: Budget = Budget::fixed(
    "walk_ms",
    "time that an answer waits for such a measurement",
    (500, Unit::Milliseconds),
    "the previous value is reported, with its time",
);
/// Storage that hangs keeps a thread each.
pub(crate) const STORAGE_CALLS: Budget = Budget::fixed(
    "storage_calls_max",
    "calls to storage of others (logs, devices) that hang at a time; one per directory",
    (64, Unit::Number),
    "UNAVAILABLE at once",
);

/// Until its head has come.
pub(crate) const HEAD_S: Budget = Budget::fixed(
    "head_s",
    "time of a connection to the streaming port until it has shown a token",
    (5, Unit::Seconds),
    CLOSED,
);
/// Proxies hand on their clients' tokens and cookies.
pub(crate) const HEAD_BYTES: Budget = Budget::fixed(
    "head_bytes_max",
    "bytes of a request's head there",
    (64 << 10, Unit::Bytes),
    CLOSED,
);
/// They have not shown a token.
pub(crate) const WAITING: Budget = Budget::fixed(
    "waiting_max",
    "connections there without a token, at a time",
    (256, Unit::Number),
    "the oldest is closed",
);
/// Of exec, attach and port-forward.
pub(crate) const SESSIONS: Budget = Budget::fixed(
    "sessions_max",
    "sessions of exec, attach and port-forward at a time",
    (512, Unit::Number),
    "503, and the URL stays good",
);
/// Of one container or pod.
pub(crate) const SESSIONS_EACH: Budget = Budget::fixed(
    "sessions_each_max",
    "of those, with one container or pod",
    (256, Unit::Number),
    "503, and the URL stays good",
);
/// The life of a URL for a session.
pub(crate) const TOKEN_S: Budget = Budget::fixed(
    "token_s",
    "time that a URL of Exec, Attach or PortForward is good for",
    (60, Unit::Seconds),
    "404",
);
/// URLs that wait for their clients.
pub(crate) const TOKENS: Budget = Budget::fixed(
    "tokens_max",
    "such URLs that wait for their clients",
    (1000, Unit::Number),
    "RESOURCE_EXHAUSTED",
);
/// The streams of a session.
pub(crate) const OPENING_S: Budget = Budget::fixed(
    "opening_s",
    "time of a client to open the streams of its session",
    (30, Unit::Seconds),
    "the session ends",
);
/// So that a process starts with the size of its client's terminal.
pub(crate) const FIRST_SIZE_MS: Budget = Budget::fixed(
    "first_size_ms",
    "time that an exec with a terminal waits for the first size from its client",
    (250, Unit::Milliseconds),
    "the process starts, and the size is set when it comes",
);
/// Of one client of port-forward.
pub(crate) const FORWARDS: Budget = Budget::fixed(
    "forwards_max",
    "connections of one port-forward session",
    (256, Unit::Number),
    "the stream is refused",
);
/// Of one client of port-forward.
pub(crate) const HALVES: Budget = Budget::fixed(
    "halves_max",
    "of those, that wait for their second stream",
    (128, Unit::Number),
    "the stream is refused",
);
/// Into the pod.
pub(crate) const FORWARD_CONNECT_S: Budget = Budget::fixed(
    "forward_connect_s",
    "time of such a connection to be made inside the pod",
    (10, Unit::Seconds),
    "an error on its stream",
);

#[cfg(test)]
const CALLS: &[&Budget] = &[
    &MESSAGE_BYTES,
    &EXEC_OUTPUT_BYTES,
    &EXEC_DRAIN_S,
    &EXEC_SYNCS,
    &LAUNCH_S,
    &CALL_MEMORY_BYTES,
    &CALL_FREE_BYTES,
    &NAME_BYTES,
    &GROUPS,
    &ACCOUNTS_BYTES,
    &CDI_FILE_BYTES,
    &HOOK_FILE_BYTES,
    &HOOK_S,
    &EVENTS,
    &EVENTS_BYTES,
    &EVENTS_KEPT_S,
    &WALKERS,
    &WALK_MS,
    &STORAGE_CALLS,
];

#[cfg(test)]
const STREAMING: &[&Budget] = &[
    &HEAD_S,
    &HEAD_BYTES,
    &WAITING,
    &SESSIONS,
    &SESSIONS_EACH,
    &TOKEN_S,
    &TOKENS,
    &OPENING_S,
    &FIRST_SIZE_MS,
    &FORWARDS,
    &HALVES,
    &FORWARD_CONNECT_S,
];

#[cfg(test)]
mod tests {
    use super::*;
    use hull_sys::budget::table;

    #[test]
    fn the_tables_of_the_docs_are_those_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md");
        let docs = std::fs::read_to_string(path).unwrap();
        for (at, table) in [
            ("Calls", table(CALLS)),
            ("Sessions", table(STREAMING)),
            ("What verbs wait for", crate::limits::waits::table::table()),
        ] {
            assert!(docs.contains(&table), "put this under \"{at}\" in {path}:\n{table}");
        }
    }
}

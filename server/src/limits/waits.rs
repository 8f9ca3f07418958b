// SPDX-License-Identifier: Apache-2.0
//! Time limits of a verb for each part of the node that hangs, and what the verb does then. The bounds that the code uses
//! stand here once; `table` adds them up for each verb, and docs/security.md shows that list. A test of the node
//! reads it there, hangs each part under each verb, and holds the verb to its bound.
//!
//! ```text
//! StopPodSandbox    kill (ANSWER) ─▶ containers' ends (DIE) ─▶ shutdown (SHUTDOWN, ANSWER) ─▶ monitor killed ─▶ cgroups cleared (EMPTY each)
//! StopContainer     grace ─▶ kill (ANSWER) ─▶ end (DIE) ─▶ cgroup killed from here, monitor killed (LOST)
//! ExecSync          its own limit, launch included ─▶ process killed (EXEC_KILLED)
//! CreateContainer   each volume (STORAGE)
//! StartContainer    log (STORAGE) ─▶ `runtime.launch_timeout_s`, or ANSWER once the monitor answers nothing ─▶ killed and forgotten
//! all else          ANSWER ─▶ UNAVAILABLE
//! ```

#[cfg(test)]
pub(crate) mod table;

use std::time::Duration;

/// A monitor's answer to what it does at once. Also how long it may take to say that it is alive while
/// something else of it is waited for. It needs less than a millisecond unless the machine is starved.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A killed process's end. Past that it hangs in the kernel, or its monitor does not tell.
pub(crate) const DIE_MAX: Duration = Duration::from_secs(10);

/// The end of a pod by its monitor: it only kills and reaps. Then the daemon does it without the monitor.
pub(crate) const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

/// A killed cgroup's last process. Then the verb ends with an error and the work is tried again later.
pub(crate) const EMPTY_MAX: Duration = Duration::from_secs(10);

/// The word that the connection to a monitor that was killed is gone, and what follows from that.
pub(crate) const LOST_MAX: Duration = Duration::from_secs(5);

/// The end of a command that was killed at its time limit. One that is stuck, or frozen, does not keep its
/// caller any longer.
pub(crate) const EXEC_KILLED_MAX: Duration = Duration::from_secs(2);

/// The pause process, for statistics of a pod's network. Without it they are left out.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A file system that is not the node's own, such as that of a pod's logs: see [`crate::storage`].
pub(crate) const STORAGE_MAX: Duration = Duration::from_secs(10);

/// A checkpoint whose caller names no limit: as long as a kubelet waits for a call without one of its own.
pub(crate) const CHECKPOINT_MAX: Duration = Duration::from_secs(120);

/// A checkpoint whose caller names a limit, in seconds: longer ones are cut to a day.
pub(crate) const CHECKPOINT_S_MAX: u64 = 86_400;

/// At the start of a daemon: how long it waits for all monitors together, and for what it sweeps, before it
/// serves. Those that take longer keep their own pods waiting, and no other.
pub(crate) const RECOVER_MAX: Duration = Duration::from_secs(1);

/// At the start of a daemon: for the state that one monitor reports. Then its pod is ended.
pub(crate) const HELLO_MAX: Duration = Duration::from_secs(10);

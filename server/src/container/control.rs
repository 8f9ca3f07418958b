// SPDX-License-Identifier: Apache-2.0
//! Signals to a running container, and its freezer: for the command line, CRI has neither.
//!
//! Neither changes a container's state: a frozen one counts as running, and whatever stops it thaws it.

use super::ContainerRecord;
use super::exec::running;
use crate::error::Error;
use crate::monitors::{self, Client};
use crate::node::Node;
use crate::pod::Pod;
use crate::storage::blocking;
use hull_cgroup::Cgroup;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Command, Target};
use std::sync::Arc;
use std::time::Duration;

const SIGKILL: i32 = 9;
const SENDING: &str = "send the signal";
/// Time for all processes of a container to freeze; then they are thawed again.
const FREEZE_MAX: Duration = Duration::from_secs(10);

/// Whether a signal by a person ends a container for good, whatever its restart policy says: SIGKILL, or the signal
/// that stops it. Others may mean something else to its program.
pub(crate) fn is_final(record: &ContainerRecord, signal: i32) -> bool {
    signal == SIGKILL || record.stop_signal == signal
}

/// Sends a signal to the container's first process; to all of its processes if it is SIGKILL.
pub(crate) async fn send(client: Client, id: ContainerId, signal: i32) -> Result<(), Arc<Error>> {
    let target = if signal == SIGKILL { Target::ContainerAll(id) } else { Target::Container(id) };
    let sent = client.command(Command::Signal { target, signal }, Vec::new()).await;
    sent.map_err(|source| Arc::new(Error::Monitor { doing: SENDING, source }))
}

/// The error of a signal to a container whose monitor is gone.
pub(crate) fn no_monitor() -> Arc<Error> {
    Arc::new(Error::Monitor { doing: SENDING, source: monitors::Error::Lost })
}

/// Freezes or thaws all processes of the container.
pub(crate) async fn freeze(
    node: &Arc<Node>,
    pod: &Pod,
    id: &ContainerId,
    frozen: bool,
) -> Result<(), Arc<Error>> {
    let shown = running(&pod.view(), id, if frozen { "pause" } else { "unpause" })?;
    let (node, path) = (Arc::clone(node), shown.record.cgroup.clone());
    let done = blocking(move || {
        let cgroup = Cgroup::at(&node.cgroups, &path)?;
        if frozen { cgroup.freeze(FREEZE_MAX) } else { cgroup.thaw() }
    });
    done.await.map_err(|source| Arc::new(Error::Freezer { container: id.to_string(), source }))
}

/// Whether all processes of a container are frozen; not if that cannot be read, as of one that has ended.
pub(crate) fn is_frozen(node: &Node, cgroup: &str) -> bool {
    Cgroup::at(&node.cgroups, cgroup).and_then(|cgroup| cgroup.is_frozen()).unwrap_or(false)
}

// SPDX-License-Identifier: Apache-2.0
//! Poststop hooks of containers whose monitor was lost before it could run them.

use crate::error::Error;
use crate::node::{Node, now_ns};
use std::os::fd::AsFd as _;
use tracing::warn;

/// Runs the poststop hooks of a container if they have not run; waits for a monitor that runs them. Their failure is
/// only logged. Blocks.
pub(crate) fn run_owed(node: &Node, id: &str) -> Result<(), Error> {
    let Some(dir) = node.bundles.owed(id) else { return Ok(()) };
    let began = now_ns();
    let failed = node.monitors.run_poststop(dir.as_fd()).map_err(|source| Error::Monitor {
        doing: "run the poststop hooks of the container",
        source,
    })?;
    let took_ms = (now_ns() - began) / 1_000_000;
    warn!(
        container = id,
        took_ms,
        failed,
        "poststop hooks were still to run when the container was removed or started again"
    );
    Ok(())
}

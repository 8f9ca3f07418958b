// SPDX-License-Identifier: Apache-2.0
//! A bounded wait for work that goes on after it.

use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tracing::warn;

/// Waits for all of this work, but serves others when the time is up: it goes on.
pub(super) async fn wait_until(until: tokio::time::Instant, work: &mut JoinSet<()>) {
    while let Ok(Some(_)) = timeout_at(until, work.join_next()).await {}
    if !work.is_empty() {
        warn!(left = work.len(), "pods are still being looked at; serving meanwhile");
    }
    work.detach_all();
}

// SPDX-License-Identifier: Apache-2.0
//! The published snapshot of a pod. Statuses and lists read it and never wait for the pod's task.

use super::record::PodRecord;
use super::state::State;
use crate::container::ContainerSnapshot;
use crate::error::Error;
use crate::limits::waits;
use hull_proto::id::{ContainerId, PodId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A pod as statuses and lists show it. Published whole at every change.
#[derive(Debug, Clone)]
pub(crate) struct PodSnapshot {
    pub(crate) id: PodId,
    pub(crate) record: Arc<PodRecord>,
    /// But for those that are still being made.
    pub(crate) containers: BTreeMap<ContainerId, Arc<ContainerSnapshot>>,
    /// The ids of all images that its containers need, also of those that are being made.
    pub(crate) images: BTreeSet<String>,
    /// Why it could not be built; set before it disappears.
    pub(crate) failure: Option<Arc<Error>>,
    /// Speaks to its monitor, while there is one.
    pub(crate) client: Option<crate::monitors::Client>,
    /// Its record is gone: this is the last view of it.
    pub(crate) gone: bool,
}

impl PodSnapshot {
    /// Gets hold of the pause process, for what is read of the pod without waiting. One that has ended
    /// meanwhile is not held: there is nothing to read.
    pub(crate) async fn hold_pause(&self) {
        if let (Some(client), State::Ready { pause_pid, .. }) = (&self.client, &self.record.state)
            && !self.record.host_network()
            && !client.hangs()
        {
            // One that hangs does not keep the numbers of others.
            let held = tokio::time::timeout(waits::PAUSE_MAX, client.pause(*pause_pid)).await;
            if !matches!(held, Ok(Ok(_))) {
                tracing::debug!(pod_id = %self.id.short(), ?held, "pause process not held");
            }
        }
    }

    /// The pod's network namespace, when its pause process is held and runs.
    pub(crate) fn netns(&self) -> Option<std::os::fd::OwnedFd> {
        self.client.as_ref()?.known_pause()?.netns().ok()
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The published snapshot of a container, a part of its pod's.

use super::cached_plan::ExecTemplate;
use super::record::ContainerRecord;
use hull_proto::id::{ContainerId, PodId};
use std::sync::Arc;

/// A container as statuses and lists show it.
#[derive(Debug, Clone)]
pub(crate) struct ContainerSnapshot {
    pub(crate) id: ContainerId,
    pub(crate) pod: PodId,
    pub(crate) record: Arc<ContainerRecord>,
    pub(crate) execs: ExecTemplate,
    /// It has exited, and is about to be started again.
    pub(crate) restarting: bool,
}

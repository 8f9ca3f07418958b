// SPDX-License-Identifier: Apache-2.0
//! The published snapshot of a container, a part of its pod's.

use super::cached_plan::Execs;
use super::record::ContainerRecord;
use hull_proto::id::{ContainerId, PodId};
use std::sync::Arc;

/// What is shown of a container.
#[derive(Debug, Clone)]
pub(crate) struct ContainerView {
    pub(crate) id: ContainerId,
    pub(crate) pod: PodId,
    pub(crate) record: Arc<ContainerRecord>,
    pub(crate) execs: Execs,
}

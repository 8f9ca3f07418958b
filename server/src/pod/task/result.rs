// SPDX-License-Identifier: Apache-2.0
//! Results of the work that a pod's task hands out.

use crate::container::SignalRecord;
use crate::container::create;
use crate::container::stop::Stopped;
use crate::error::Error;
use crate::pod::{self, Reply, Sizes, setup};
use hull_nri::PluginSet;
use hull_plan::Limits;
use hull_proto::cri;
use hull_proto::id::ContainerId;
use hull_proto::monitor::Started;
use hull_proto::nri::LinuxResources;
use std::sync::Arc;

/// The result of work that was handed out.
#[derive(Debug)]
pub(super) enum WorkResult {
    Built(std::result::Result<setup::Sandbox, pod::Error>, Arc<PluginSet>),
    ContainersEnded,
    TornDown(std::result::Result<(), pod::Error>),
    PluginsNotifiedOfRemoval,
    Created(ContainerId, std::result::Result<create::Created, Error>),
    Started(ContainerId, std::result::Result<Started, Error>, Arc<PluginSet>),
    Stopped(ContainerId, u64, std::result::Result<Stopped, Error>),
    Killed(ContainerId, std::result::Result<Stopped, Error>),
    Removed(ContainerId, std::result::Result<(), Error>),
    UpdateDecided(ContainerId, u64, std::result::Result<Box<Decision>, Error>),
    Updated(ContainerId, u64, Box<Decision>, std::result::Result<(), Error>),
    ResizeAllowed(Box<Resize>, std::result::Result<(), Error>),
    /// A signal that was recorded as requested could not be sent.
    SignalNotSent(ContainerId, SignalRequest),
    /// The back-off of a container that is restarted is over: its turn.
    RestartDue(ContainerId, u64),
    /// The rest of the exited run of a container that starts again is cleared, or could not be.
    Cleared(ContainerId, std::result::Result<(), Error>),
    /// A container was started again, or could not be.
    Restarted(ContainerId, crate::error::Result<()>),
    /// The wait after a failed teardown is over; the number of failures in a row that it followed.
    RetryTeardown(u32),
    /// The work has answered its callers itself.
    Nothing,
}

/// A signal that a person has requested, and what was recorded before.
#[derive(Debug, Clone)]
pub(super) struct SignalRequest {
    pub(super) before: SignalRecord,
    /// When this one was recorded.
    pub(super) at_ns: i64,
    /// It ended the restarts of the container.
    pub(super) cancels: bool,
}

/// The limits that an update sets.
#[derive(Debug)]
pub(super) struct Decision {
    /// The kubelet's request, as plugins changed it.
    pub(super) kubelets: cri::LinuxContainerResources,
    /// The same as an NRI message, if plugins were called.
    pub(super) plugins: Option<LinuxResources>,
    pub(super) limits: Limits,
    /// The plugins to notify once the limits are set.
    pub(super) plugin_set: Option<Arc<PluginSet>>,
}

/// The requested resources, the caller, and the plugins that receive the event.
#[derive(Debug)]
pub(super) struct Resize {
    pub(super) sizes: Sizes,
    pub(super) reply: Reply<()>,
    pub(super) plugin_set: Arc<PluginSet>,
}

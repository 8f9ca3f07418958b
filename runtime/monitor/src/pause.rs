// SPDX-License-Identifier: Apache-2.0
//! The pod's pause process.

use crate::pending_start::PendingStart;
use hull_cgroup::Cgroup;
use hull_init::PodProcfs;
use hull_proto::monitor::{Exit, ProcessState, Started};
use std::os::fd::OwnedFd;

/// The pause process.
#[derive(Debug)]
pub(crate) struct Pause {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) pending: Option<PendingStart>,
    pub(crate) started: Option<Started>,
    pub(crate) exit: Option<Exit>,
    pub(crate) cgroup: Cgroup,
    /// The procfs of a pid namespace that the containers share.
    pub(crate) procfs: Option<PodProcfs>,
}

impl Pause {
    pub(crate) fn process_state(&self) -> ProcessState {
        match (self.started, self.exit) {
            (Some(started), Some(exit)) => ProcessState::Exited(started, exit),
            (Some(started), None) => ProcessState::Running(started),
            (None, _) => ProcessState::Starting,
        }
    }

    /// Whether its program runs. Before that its root is the host's.
    pub(crate) fn is_running(&self) -> bool {
        self.started.is_some() && self.exit.is_none()
    }
}

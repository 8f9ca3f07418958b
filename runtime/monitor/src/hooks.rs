// SPDX-License-Identifier: Apache-2.0
//! The hooks of a container, and the processes that run them; see [`hook_runs`](crate::hook_runs).

use crate::connection::RequestId;
use hull_init::Hooks;
use hull_proto::id::ContainerId;
use hull_proto::monitor::Started;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// The hooks of a container, and the directory that knows whether its poststop hooks have run.
#[derive(Debug, Clone)]
pub(crate) struct ContainerHooks {
    pub(crate) hooks: Rc<Hooks>,
    pub(crate) dir: Rc<OwnedFd>,
}

/// A process that runs hooks of a container.
#[derive(Debug)]
pub(crate) struct HookRun {
    pub(crate) container: ContainerId,
    /// Reads the failures, in words. Its end is that of the process.
    pub(crate) output: OwnedFd,
    pub(crate) token: u64,
    pub(crate) text: Vec<u8>,
    pub(crate) next: Next,
}

/// The step that follows hooks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Next {
    /// The start is answered.
    Answer(RequestId, Started),
    Nothing,
}

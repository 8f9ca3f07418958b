// SPDX-License-Identifier: Apache-2.0
//! The commands that a pod's task takes.

use crate::error::Result;
use crate::tracer::SpanPlace;
use hull_proto::id::ContainerId;
use hull_proto::{cri, nri};
use std::sync::Arc;
use tokio::sync::oneshot;

/// The pod-level resources, as the kubelet computes them. It writes the pod's cgroup itself.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    pub(crate) overhead: Option<cri::LinuxContainerResources>,
    pub(crate) resources: Option<cri::LinuxContainerResources>,
}

/// Where the answer to a command goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// A command with the span that it is a part of, if it is traced.
#[derive(Debug)]
pub(crate) struct Requested {
    pub(crate) command: Command,
    pub(crate) span: Option<SpanPlace>,
}

/// A command to a pod's task.
#[derive(Debug)]
pub(crate) enum Command {
    Create {
        config: Box<cri::ContainerConfig>,
        reply: Reply<ContainerId>,
    },
    Start {
        id: ContainerId,
        reply: Reply<()>,
    },
    /// Starts a container for a person, also one that has exited.
    StartAgain {
        id: ContainerId,
        reply: Reply<()>,
    },
    Stop {
        id: ContainerId,
        grace_s: u64,
        reply: Reply<()>,
    },
    Remove {
        id: ContainerId,
        reply: Reply<()>,
    },
    Update {
        id: ContainerId,
        resources: Box<cri::LinuxContainerResources>,
        reply: Reply<()>,
    },
    /// Other limits, as a plugin asks for them.
    Limit {
        id: ContainerId,
        resources: Box<nri::LinuxResources>,
        reply: Reply<()>,
    },
    /// Excludes a start and a removal of a container that does not run, for as long as the answer lives.
    Hold {
        id: ContainerId,
        reply: Reply<Arc<()>>,
    },
    /// Sends a signal for a person. No restart follows the exit that one which ends the container causes.
    Signal {
        id: ContainerId,
        signal: i32,
        reply: Reply<()>,
    },
    ReopenLog {
        id: ContainerId,
        reply: Reply<()>,
    },
    UpdatePod {
        sizes: Box<Sizes>,
        reply: Reply<()>,
    },
    StopPod {
        reply: Reply<()>,
    },
    RemovePod {
        reply: Reply<()>,
    },
}

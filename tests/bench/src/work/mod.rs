// SPDX-License-Identifier: Apache-2.0
//! The kinds of work, one file each: what is asked of a target, and what of it is timed.
//!
//! A work begins with a target that has no pods of ours and need not clean up: `run` does, also after
//! one that failed.

mod context;
mod exec;
mod growth;
mod idle;
mod lists;
mod logs;
mod memory;
mod parallel;
mod pods;
mod pull;
mod restart;
mod stream;

use crate::Result;
use crate::samples::Sink;
use crate::target::Network;
pub use context::Context;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// A pod's life, verb by verb.
    Pods,
    /// A pod's life on the node's network.
    HostPods,
    /// Pods started and ended eight at a time.
    Parallel,
    /// ExecSync, one after the other and eight at a time.
    Exec,
    /// Memory of all that the runtime adds.
    Memory,
    /// Lists and statistics.
    Lists,
    /// The daemon restarted beneath running pods.
    Restart,
    /// A pull of an image that is not there.
    Pull,
    /// A container that logs a lot.
    Logs,
    /// An exec that streams a lot.
    Stream,
    /// Pods that are up while nothing is asked for.
    Idle,
    /// One more pod beside many.
    Growth,
}

impl Work {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 12] = [
        Self::Pods,
        Self::HostPods,
        Self::Parallel,
        Self::Exec,
        Self::Memory,
        Self::Lists,
        Self::Restart,
        Self::Pull,
        Self::Logs,
        Self::Stream,
        Self::Idle,
        Self::Growth,
    ];

    /// As it is named on the command line and in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::HostPods => "host-pods",
            Self::Parallel => "parallel",
            Self::Exec => "exec",
            Self::Memory => "memory",
            Self::Lists => "lists",
            Self::Restart => "restart",
            Self::Pull => "pull",
            Self::Logs => "logs",
            Self::Stream => "stream",
            Self::Idle => "idle",
            Self::Growth => "growth",
        }
    }

    /// Does it once.
    ///
    /// # Errors
    /// The first thing that the target did not do; what was measured before it stands.
    pub async fn run(self, context: &Context<'_>, sink: &mut Sink<'_>) -> Result<()> {
        let Context { target, size, .. } = context;
        match self {
            Self::Pods => pods::run(target, size, Network::Pod, sink).await,
            Self::HostPods => pods::run(target, size, Network::Host, sink).await,
            Self::Parallel => parallel::run(target, size, sink).await,
            Self::Exec => exec::run(target, size, sink).await,
            Self::Memory => memory::run(target, size, sink).await,
            Self::Lists => lists::run(target, size, sink).await,
            Self::Restart => restart::run(target, size, sink).await,
            Self::Pull => pull::run(context, sink).await,
            Self::Logs => logs::run(target, size, sink).await,
            Self::Stream => stream::run(target, size, sink).await,
            Self::Idle => idle::run(target, size, sink).await,
            Self::Growth => growth::run(target, size, sink).await,
        }
    }
}

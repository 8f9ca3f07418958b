// SPDX-License-Identifier: Apache-2.0
//! A plan in, a process out: namespaces, mounts, cgroups, exec.
//!
//! ```text
//! spawn ─ cgroup ─ clone3 ─┬─ parent: Starting{pid, pidfd, status pipe} ─ poll
//!                          └─ child: join, mounts, identity, seccomp, execve
//!                                       └─ a failed step goes over the status pipe as StepError
//! ```
//!
//! Callers are single-threaded: the child of a clone runs ordinary code. Knows no Kubernetes, no
//! JSON, no tokio. What to do was decided before, in a [`Plan`].

mod apply;
mod between;
mod child;
mod copy_up;
mod cover;
mod device;
mod filter;
pub mod gate;
pub mod hooks;
mod ids;
mod image;
mod launch;
mod mount;
mod namespaces;
mod pause;
mod places;
pub mod plan;
mod process;
mod procfs;
mod rootfs;
mod sources;
mod starting;
mod streams;
mod sysctl;

pub use child::{ExecTarget, exec, launch, launch_exec, spawn};
pub use hooks::{Hook, HookKind, Hooks};
pub use launch::Launch;
pub use namespaces::Processes;
pub use pause::{StartedPause, pause, pod_shm};
pub use plan::{PausePlan, Plan, Process, Step, StepError};
pub use procfs::PodProcfs;
pub use sources::try_user_namespaces;
pub use starting::Starting;
pub use streams::Io;

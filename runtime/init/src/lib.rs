// SPDX-License-Identifier: Apache-2.0
//! A plan in, a process out: namespaces, mounts, cgroups, exec.
//!
//! ```text
//! spawn ─ cgroup ─ clone3 ─┬─ parent: PendingProcess{pid, pidfd, status pipe} ─ poll
//!                          └─ child: join, mounts, identity, seccomp, execve
//!                                       └─ a failed step goes over the status pipe as StepError
//! ```
//!
//! Callers are single-threaded: the child of a clone runs ordinary code. It does not know Kubernetes,
//! JSON or tokio. All decisions were made before, in a [`Plan`].

mod apply;
mod attributes;
mod bind;
mod change_root;
mod clone;
mod copy_up;
mod cover;
mod decode_exact;
mod defined_volume;
mod device;
pub mod filter;
mod filter_place;
mod hierarchies;
mod hook_children;
pub mod hook_process;
mod hook_sync;
pub mod hooks;
mod id_maps;
mod ids;
mod image_volume;
mod injected_init;
mod inside_maps;
mod intermediate_process;
mod kernel_mounts;
mod launch;
mod mount;
mod mount_sources;
mod namespaces;
mod options;
mod pause;
mod pending_process;
mod places;
pub mod plan;
mod process;
mod procfs;
mod rootfs;
mod scheduling;
pub mod start_socket;
mod streams;
mod sysctl;
mod terminal;
mod tmpfs;

pub use filter_place::{FilterPlace, Phase};
pub use hooks::{Hook, HookKind, Hooks};
pub use id_maps::{maps_of_namespace, to_host_id};
pub use launch::{ExecTarget, exec, launch, launch_exec, spawn};
pub use mount_sources::try_user_namespaces;
pub use namespaces::Processes;
pub use options::{LaunchOptions, Prepare, WriteMaps};
pub use pause::{StartedPause, pause, pod_shm};
pub use pending_process::PendingProcess;
pub use plan::{PausePlan, Plan, Process, Step, StepError};
pub use procfs::PodProcfs;
pub use scheduling::{MemoryPolicy, Scheduling};
pub use streams::Io;
pub use terminal::NewTerminal;

// SPDX-License-Identifier: Apache-2.0
//! Cgroups: limits, devices, counters, killing; on v2, v1 and hybrid hosts.
//!
//! A [`Cgroup`] is a path such as `/kubepods/besteffort/pod1/0123…` in every hierarchy the host has:
//! one on v2, several on v1, those and a controller-less v2 tree on hybrid hosts, where the v2 tree
//! serves for what only it can do (placing a process at its birth, killing all at once, telling when
//! all are gone, pressure).
//!
//! The rule: a requested limit is set, or is an error that names it; it is never dropped silently. Not here:
//! choosing limits, keeping state.

mod cgroup;
mod cgroupfs;
mod counters;
mod devices;
mod errno;
mod error;
mod events;
mod files;
mod freeze;
mod further;
mod hint;
mod kill;
mod lifecycle;
mod limits;
mod memory_in_use;
mod oom;
mod out_of_memory;
mod stats;
mod update;
mod v1;
mod v2;

pub use cgroup::Cgroup;
pub use cgroupfs::{CgroupFs, Hierarchy, Version};
pub use counters::{Counters, ExitCounters, HugePages, Io};
pub use error::Error;
pub use events::Events;
pub use further::{DeviceLimit, DeviceLimitKind, FurtherLimits, RdmaLimit};
pub use lifecycle::{children, move_to};
pub use limits::{DeviceKind, DeviceRule, HugepageLimit, Limits};
pub use oom::OomEvents;
pub use out_of_memory::ReachedLimit;
pub use stats::{Psi, PsiLine, Stats};
pub use v2::{DEPTH_MAX, DESCENDANTS_MAX, cpu_weight};

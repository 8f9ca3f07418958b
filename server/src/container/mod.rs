// SPDX-License-Identifier: Apache-2.0
//! Containers: their records and snapshots, and the work of creating, starting, stopping and removing them.
//!
//! The pod's task owns them: it decides by [`state`], records, and hands out the work below. The work itself
//! changes no state.

pub(crate) mod again;
mod cached_plan;
pub(crate) mod cgroup;
pub(crate) mod checkpoint;
pub(crate) mod control;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod exit_details;
pub(crate) mod freezer;
pub(crate) mod hooks;
mod host_paths;
pub(crate) mod log;
pub(crate) mod log_loss;
pub(crate) mod logging;
pub(crate) mod oom_score;
pub(crate) mod plans;
pub(crate) mod poststop;
mod propagation;
pub(crate) mod quota;
mod record;
mod remarks;
pub(crate) mod remove;
mod snapshot;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod stop;
pub(crate) mod volumes;

pub(crate) use cached_plan::{CachedPlan, ExecTemplate};
pub(crate) use record::{ContainerRecord, SignalRecord, User};
pub(crate) use remarks::layer as remark_layer;
pub(crate) use snapshot::ContainerSnapshot;
pub(crate) use state::State;

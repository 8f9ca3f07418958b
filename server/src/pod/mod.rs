// SPDX-License-Identifier: Apache-2.0
//! Pods: their records, their snapshots, and the task that owns each.
//!
//! ```text
//! verb ──Command──▶ task (one per pod, the only writer) ──▶ record on disk, then the host
//!   ▲                 │ publishes
//!   └── snapshot ◀────┘   statuses and lists read the snapshot and never wait for the task
//! ```

pub(crate) mod auto_remove;
mod command;
pub(crate) mod driver;
mod error;
pub(crate) mod files;
mod handle;
pub(crate) mod handler;
pub(crate) mod host_dns;
mod pause_plan;
mod pending_ids;
mod record;
pub(crate) mod recover;
pub(crate) mod registry;
pub(crate) mod run_pods;
mod setup;
mod snapshot;
mod state;
pub(crate) mod task;
mod teardown;
pub(crate) mod timeline;
pub(crate) mod user_namespace;

pub(crate) use command::{Command, Reply, Requested, Sizes};
pub(crate) use error::Error;
pub(crate) use handle::Pod;
pub(crate) use pause_plan::pause_plan;
pub(crate) use record::PodRecord;
pub(crate) use setup::Sandbox;
pub(crate) use snapshot::PodSnapshot;
pub(crate) use state::State;

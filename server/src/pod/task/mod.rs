// SPDX-License-Identifier: Apache-2.0
//! The task that owns a pod: the only writer of its record, its containers' records and its snapshot.
//!
//! It never waits for anything but its own records: longer work is handed out ([`work`]) and comes back as a
//! [`WorkResult`](result::WorkResult), so a container that refuses to stop cannot delay requests for other containers. A caller
//! that disconnects (the kubelet's deadline) changes nothing: the work goes on, and the next caller with the
//! same request waits for the same result.

mod build;
mod containers;
mod data;
mod entry;
mod logs;
mod operation;
mod plugins;
mod removal;
mod resize;
mod restart;
mod result;
mod run;
mod signal;
mod start;
mod teardown;
mod teardown_state;
mod timeline;
mod update;
mod work;

pub(crate) use start::{Start, monitor_events, prepare};

// SPDX-License-Identifier: Apache-2.0
//! The ways in which the node reports what happens on it: events, usage, metrics of pods and of the daemon, and the log. All of them read; none
//! changes a pod.

pub(crate) mod account;
pub(crate) mod event_log;
pub(crate) mod events;
pub(crate) mod load;
mod log_json;
pub(crate) mod log_level;
pub(crate) mod logging;
pub(crate) mod metrics;
mod process;
pub(crate) mod scrape;
pub(crate) mod stats;

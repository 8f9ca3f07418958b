// SPDX-License-Identifier: Apache-2.0
//! NRI plugins and the daemon's pods: calls of verbs to plugins, and adjustments of plugins, applied.
//!
//! The rules: a verb holds the plugin set that it began with until its result is visible. The adjustments of a
//! new container are kept in its record, so its spec can be built again at any time. No adjustment is dropped:
//! it is applied, or the verb fails and names it.
//!
//! `hull-nri` connects to plugins, orders them and merges their answers.

mod adjust;
mod error;
mod messages;
pub(crate) mod resources;
mod service;
mod validate;
pub(crate) mod verbs;

pub(crate) use adjust::{cgroup, spec as adjusted_spec};
pub(crate) use error::Error;
pub(crate) use service::start;
pub(crate) use verbs::Adjustment;

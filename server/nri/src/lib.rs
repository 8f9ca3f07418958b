// SPDX-License-Identifier: Apache-2.0
//! The node resource interface (NRI): plugins that receive events of pods and containers, and adjust them.
//!
//! ```text
//! plugin ──socket──▶ wire (frames, ttrpc) ─▶ connection ─▶ session (registers, is synchronized)
//!                                                             │
//! verb ─▶ Plugins::current ─▶ calls (each plugin, in order) ─▶ merge (which plugin set which field)
//! ```
//!
//! This crate does not know the daemon's pods: the daemon passes messages of the interface, and applies the
//! result. A plugin's own requests reach the daemon as [`PluginRequest`].

mod calls;
mod connection;
mod counters;
mod error;
mod host;
mod launch;
pub mod limits;
mod merge;
mod method;
mod plugin;
mod plugin_set;
mod session;
mod types;
mod wire;

pub use counters::CallFigures;
pub use error::Error;
pub use host::{Host, prepare};
pub use launch::{START_PLUGIN, exec_plugin};
pub use merge::{Created, Updated, overlay, owner, owners_of};
pub use plugin_set::{PluginSet, Plugins};
pub use types::{LiveTimeouts, PluginRequest, Settings, State, Timeouts};

#[cfg(test)]
mod tests;

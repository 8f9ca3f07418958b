// SPDX-License-Identifier: Apache-2.0
//! The configuration: what can be set, its defaults, and where each value comes from.
//!
//! ```text
//! embedded defaults  <  FILE  <  FILE.d/*.toml, by name  <  flags of `hull serve`
//! ```
//!
//! The rule: an unknown key is an error that names file, line and the nearest known key, because a
//! misspelt setting that is ignored is noticed only in production. Each key is described once, in
//! [`keys`], with how a new value takes effect; `hull config default` and docs/config.md are generated from there.
//!
//! Not here: what the parts of the daemon do with their settings. [`parts`] gives each part its own.

#[cfg(test)]
mod chart_schema;
mod diff;
mod error;
mod handlers;
mod key_names;
mod keys;
mod kinds;
mod layers;
mod live;
pub(crate) mod log_filter;
pub(crate) mod logs;
mod origin;
mod parts;
mod reference;
mod settings;
mod shown;
pub(crate) mod size;
#[cfg(test)]
mod tests;
mod validate;

pub(crate) use diff::{Change, changes, taken_over};
pub(crate) use error::Error;
pub(crate) use handlers::{DefaultSeccomp, Handler, NATIVE, UserNamespaces};
#[cfg(test)]
pub(crate) use keys::KEYS;
pub(crate) use keys::Takes;
pub(crate) use layers::{Loaded, Source, drop_ins, is_drop_in, load};
pub(crate) use live::LiveConfig;
#[cfg(test)]
pub(crate) use origin::Origin;
pub(crate) use reference::default_file;
#[cfg(test)]
pub(crate) use settings::Network;
pub(crate) use settings::{
    Cgroup, Config, Driver, Log, LogFormat, Metrics, NetworkMode, Runtime, Tracing, Userns,
};
pub(crate) use size::{LAYER_MIN, Size, decimal};

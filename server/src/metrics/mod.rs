// SPDX-License-Identifier: Apache-2.0
//! The daemon's own metrics: what is counted while it works.
//!
//! ```text
//! verbs, stages, sessions, sweeps ──add──▶ Metrics ──┐
//!                                                    ├─▶ OpenMetrics text, when somebody asks (observe/scrape)
//! pods, pulls, plugins, processes ──read on request──┘
//! ```
//!
//! The rule: a metric is in [`table`], with its labels, and label values are constants of the program: never a name of
//! a pod, container, image or host. So the number of series is bounded, and counting costs a lookup and an addition.
//!
//! Not here: metrics of pods and containers, which kubelets pass on ([`crate::observe::metrics`]).

mod counted;
mod families;
pub(crate) mod table;

#[cfg(test)]
mod tests;

pub(crate) use counted::{EndedWork, Exemplars, Metrics};
pub(crate) use families::{Level, Scraped};

// SPDX-License-Identifier: Apache-2.0
//! User namespaces that Hull assigns by itself, for pods whose kubelet maps none (`runtime.userns`).
//!
//! ```text
//! request ─▶ policy::decide ─▶ subids::read ─▶ subids::pick ─▶ record of the pod
//!            (whose ids?)      (/etc/subuid)   (a free range)
//! ```
//!
//! The rule: a pod's author may ask for a user namespace and for its size, never for ids of the host. Ranges come from
//! the host's files alone, and none is assigned while another pod has a part of it.

mod error;
mod ids;
mod policy;
mod subids;

pub(crate) use error::Error;
pub(crate) use ids::IDS;
pub(crate) use policy::{Decision, Question, decide, size};
pub(crate) use subids::{Files, overlap};

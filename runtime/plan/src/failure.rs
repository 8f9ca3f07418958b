// SPDX-License-Identifier: Apache-2.0
//! Why a start failed: the form of its explanation.

use hull_init::StepError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// The part of the system that a failure belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layer {
    /// The program itself.
    Process,
    /// Files and mounts.
    Filesystem,
    /// Namespaces and the network.
    Namespace,
    /// Cgroups and their limits.
    Cgroup,
    /// Capabilities, seccomp, security modules.
    Security,
    /// Pulling and images.
    Image,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The part of the system that it belongs to.
    pub layer: Layer,
    /// The stage of the start, in a word or two.
    pub stage: String,
    /// The sentence that says what failed.
    pub what: String,
    /// Observations that support it.
    pub evidence: Vec<String>,
    /// The change that fixes it.
    pub hint: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for seen in &self.evidence {
            write!(f, "; {seen}")?;
        }
        Ok(())
    }
}

/// A failure without evidence.
pub(crate) fn failure(layer: Layer, stage: &str, what: String, hint: Option<&str>) -> Failure {
    Failure {
        layer,
        stage: stage.into(),
        what,
        evidence: Vec::new(),
        hint: hint.map(str::to_owned),
    }
}

/// The errno in words.
pub(crate) fn reason(error: &StepError) -> String {
    let text = io::Error::from_raw_os_error(error.errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    if error.call.is_empty() { text } else { format!("{text} [{}]", error.call) }
}

pub(crate) const ENOENT: i32 = 2;
pub(crate) const ESRCH: i32 = 3;
pub(crate) const E2BIG: i32 = 7;
pub(crate) const ERANGE: i32 = 34;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const ECHILD: i32 = 10;
pub(crate) const ENOMEM: i32 = 12;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOSYS: i32 = 38;
pub(crate) const ENFILE: i32 = 23;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const ENODEV: i32 = 19;
pub(crate) const ENOTDIR: i32 = 20;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EROFS: i32 = 30;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const EXDEV: i32 = 18;
pub(crate) const ELOOP: i32 = 40;

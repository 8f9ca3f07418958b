// SPDX-License-Identifier: Apache-2.0
//! Findings: what is open, how far somebody who has broken in would get by it alone, and the smallest
//! change that closes it. Pure.
//!
//! One finding per thing to change, the farthest reach first. What a container that asks for nothing has
//! by default is told as well: the reader decides.

mod devices;
mod kernel;
mod rights;
mod shares;

use super::facts::{Facts, Reach};
use serde::Serialize;

pub(super) use kernel::{paths as kernel_paths, unmasked as unmasked_proc};
pub(super) use rights::{is_container_type, is_unconfined};

/// One thing that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Stable, for programs.
    pub(crate) id: &'static str,
    /// What is open, with what was seen.
    pub(crate) what: String,
    /// How far it leads.
    pub(crate) reach: Reach,
    /// The smallest change that closes it.
    pub(crate) fix: String,
}

/// What takes away everything that `privileged: true` gives.
const NOT_PRIVILEGED: &str = "securityContext.privileged: false";

/// All findings, the farthest reach first.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    rights::judge(facts, &mut all);
    shares::judge(facts, &mut all);
    devices::judge(facts, &mut all);
    kernel::judge(facts, &mut all);
    all.sort_by_key(|finding| std::cmp::Reverse(finding.reach));
    all
}

/// The first of a list, and how many more there are.
pub(super) fn some_of(list: &[String], most: usize) -> String {
    let first = list.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    match list.len().saturating_sub(most) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

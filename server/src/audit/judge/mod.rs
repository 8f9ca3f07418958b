// SPDX-License-Identifier: Apache-2.0
//! Findings: gaps in the isolation, how far an attacker inside the container gets through each one alone, and the
//! smallest change that closes it. Pure.
//!
//! One finding per change, the farthest reach first. Gaps that every container has by default are
//! reported, too: the reader decides.

mod devices;
mod finding;
mod kernel;
mod rights;
mod shares;

use super::facts::Facts;

pub(crate) use finding::Finding;
pub(super) use finding::some_of;
pub(super) use kernel::{paths as kernel_paths, unmasked as unmasked_proc};
pub(super) use rights::{is_container_type, is_unconfined};

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

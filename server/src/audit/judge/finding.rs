// SPDX-License-Identifier: Apache-2.0
//! One finding of `hull audit`, and what several judges write into theirs.

use crate::audit::reach::Reach;
use serde::Serialize;

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
pub(super) const NOT_PRIVILEGED: &str = "securityContext.privileged: false";

/// The first of a list, and how many more there are.
pub(in crate::audit) fn some_of(list: &[String], most: usize) -> String {
    let first = list.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    match list.len().saturating_sub(most) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

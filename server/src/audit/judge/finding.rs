// SPDX-License-Identifier: Apache-2.0
//! A finding of `hull audit`, and the texts that several judges share.

use crate::audit::reach::Reach;
use serde::Serialize;

/// One gap in the isolation of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Stable identifier, for programs.
    pub(crate) id: &'static str,
    /// Description of the gap, with the observed facts.
    pub(crate) what: String,
    /// How far an attacker gets through this gap alone.
    pub(crate) reach: Reach,
    /// The smallest change that closes it. Programs read it as `fix`.
    #[serde(rename = "fix")]
    pub(crate) hint: String,
}

/// The hint that revokes everything that `privileged: true` grants.
pub(super) const NOT_PRIVILEGED: &str = "securityContext.privileged: false";

/// The first `most` items of a list, and the number of the others.
pub(in crate::audit) fn some_of(list: &[String], most: usize) -> String {
    let first = list.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    match list.len().saturating_sub(most) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The hosts that were tried for one object, in which order, and what became of it.
//!
//! ```text
//! round 1: every host once, without waiting; the last one with all its tries
//! round 2: those of round 1 that failed for the moment, with all their tries
//! ```
//!
//! The rule: a host that fails costs no waiting while another one may serve; and where all fail, the error says what
//! each of them answered.

use super::endpoint::Endpoint;
use super::retry::Patience;
use crate::error::Cause;

/// The tries of all rounds. `endpoints` are in the order of their use.
pub(super) fn rounds<'a>(
    endpoints: &'a [&'a Endpoint],
) -> impl Iterator<Item = (&'a Endpoint, Patience)> {
    let others = endpoints.len().saturating_sub(1);
    let first = endpoints.iter().take(others).map(|of| (*of, Patience::Once));
    let last = endpoints.iter().skip(others).map(|of| (*of, Patience::Full));
    let again = endpoints.iter().take(others).map(|of| (*of, Patience::Full));
    first.chain(last).chain(again)
}

/// The failure of one host.
#[derive(Debug)]
struct Failure {
    api: String,
    host: String,
    is_registry: bool,
    cause: Cause,
}

/// The failures of all hosts so far, one for each.
#[derive(Debug, Default)]
pub(super) struct Failures {
    list: Vec<Failure>,
}

impl Failures {
    /// Whether the host may be tried: for the first time, or again because it failed for the moment.
    pub(super) fn allows(&self, endpoint: &Endpoint) -> bool {
        self.list.iter().find(|of| of.api == endpoint.api).is_none_or(|of| of.cause.is_transient())
    }

    /// Records a failure, in place of an earlier one of the same host.
    pub(super) fn add(&mut self, endpoint: &Endpoint, cause: Cause) {
        self.list.retain(|of| of.api != endpoint.api);
        self.list.push(Failure {
            api: endpoint.api.clone(),
            host: endpoint.host.clone(),
            is_registry: endpoint.is_registry,
            cause,
        });
    }

    /// The registry's own error, beside those of its mirrors; none if nothing failed.
    pub(super) fn into_cause(mut self) -> Option<Cause> {
        let of_registry = self.list.iter().rposition(|of| of.is_registry);
        let at = of_registry.or(self.list.len().checked_sub(1))?;
        let upstream = self.list.remove(at).cause;
        if self.list.is_empty() {
            return Some(upstream);
        }
        let mirrors = self.list.into_iter().map(|of| (of.host, of.cause)).collect();
        Some(Cause::Mirrors { upstream: Box::new(upstream), mirrors })
    }
}

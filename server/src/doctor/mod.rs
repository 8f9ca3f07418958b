// SPDX-License-Identifier: Apache-2.0
//! `hull doctor`: compares what Hull has recorded with what is on the host.
//!
//! ```text
//! leak      something with Hull's name, and no record of what it belongs to     --fix removes it
//! mismatch  a record of something that is not there, or not as recorded         the owner has to be made again
//! ```
//!
//! The rule: pods come and go meanwhile. The host is listed first and the records after it, and what was found is looked
//! for again until it is gone or [`CONFIRM_MAX`] is over: what is still there then is neither on its way in nor out.
//! Only names that follow from ids of Hull's are taken for Hull's, so `--fix` takes nothing away from others.

mod cgroups;
mod finding;
mod fix;
mod leaks;
mod mismatches;

pub(crate) use finding::Finding;

use crate::node::Node;
use crate::storage::blocking;
use leaks::Leak;
use mismatches::Mismatch;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a finding may take to go by itself: the kernel takes links away some time after their processes.
const CONFIRM_MAX: Duration = Duration::from_secs(2);
/// How often is looked meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// Everything that was found at one moment.
#[derive(Debug, Clone, Default)]
struct Survey {
    leaks: BTreeSet<Leak>,
    mismatches: BTreeSet<Mismatch>,
}

impl Survey {
    fn of(node: &Node) -> Self {
        Self { leaks: leaks_of(node), mismatches: mismatches::of(node) }
    }

    /// The findings that both have.
    fn confirmed(self, later: &Self) -> Self {
        Self {
            leaks: self.leaks.intersection(&later.leaks).cloned().collect(),
            mismatches: self.mismatches.intersection(&later.mismatches).cloned().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.leaks.is_empty() && self.mismatches.is_empty()
    }
}

/// The leaks at this moment.
fn leaks_of(node: &Node) -> BTreeSet<Leak> {
    let listed = leaks::on_host(node, &leaks::proof(node));
    let known = leaks::Known::of(node);
    listed.into_iter().filter(|leak| !known.has(leak)).collect()
}

/// Looks for leaks and mismatches; with `fix`, removes leaks. One caller at a time, and to the end also if the caller
/// disconnects: a removal is not left halfway.
pub(crate) async fn examine(node: &Arc<Node>, fix: bool) -> Vec<Finding> {
    let node = Arc::clone(node);
    let examined = tokio::spawn(async move {
        // It is never closed.
        let _turn = node.doctor.acquire().await;
        examine_alone(&node, fix).await
    });
    match examined.await {
        Ok(findings) => findings,
        // The runtime only gives it up when it is being dropped itself.
        Err(err) => std::panic::resume_unwind(err.into_panic()),
    }
}

async fn examine_alone(node: &Arc<Node>, fix: bool) -> Vec<Finding> {
    let survey = || {
        let node = Arc::clone(node);
        blocking(move || Survey::of(&node))
    };
    let until = Instant::now() + CONFIRM_MAX;
    let mut found = survey().await;
    while !found.is_empty() && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        found = found.confirmed(&survey().await);
    }
    let names = names(node).await;
    let mut findings = Vec::new();
    for leak in found.leaks {
        let mut finding = leak.finding(&names);
        if fix {
            finding.outcome = removed(node, leak).await;
        }
        findings.push(finding);
    }
    findings.extend(found.mismatches.into_iter().map(|of| of.finding(&names)));
    findings.extend(mismatches::unresponsive(node).await.into_iter().map(|of| of.finding(&names)));
    findings.extend(mismatches::refused_by_plugins(node).await);
    let shared = Arc::clone(node);
    findings.extend(blocking(move || mismatches::of_node(&shared)).await);
    findings
}

/// Removes a leak that is still one. Removing another one may have taken it along.
async fn removed(node: &Arc<Node>, leak: Leak) -> String {
    let (shared, looked_for) = (Arc::clone(node), leak.clone());
    if !blocking(move || leaks_of(&shared).contains(&looked_for)).await {
        return "removed".into();
    }
    fix::remove(node, leak).await.map_or_else(|why| why, |()| "removed".into())
}

/// Full names by id, of what is there and of what is gone.
async fn names(node: &Arc<Node>) -> BTreeMap<String, String> {
    let history = Arc::clone(&node.history);
    let all = blocking(move || history.all()).await.unwrap_or_default();
    all.into_iter().map(|of| (of.id.clone(), of.full_name())).collect()
}

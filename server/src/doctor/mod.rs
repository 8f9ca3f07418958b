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

use crate::history::Timeline;
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
/// The outcome of a leak that was removed.
const REMOVED: &str = "removed";
/// How often is looked meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// Everything that was found at one moment.
#[derive(Debug, Clone, Default)]
struct Survey {
    leaks: BTreeSet<Leak>,
    mismatches: BTreeSet<Mismatch>,
}

impl Survey {
    fn of(node: &Node, proof: &BTreeSet<String>) -> Self {
        Self { leaks: leaks_of(node, proof), mismatches: mismatches::of(node) }
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

/// The leaks at this moment. `proof` holds ids that Hull has given; leaks of younger objects are found the next time.
fn leaks_of(node: &Node, proof: &BTreeSet<String>) -> BTreeSet<Leak> {
    let listed = leaks::on_host(node, proof);
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
    // Read once: it is up to a thousand files.
    let shared = Arc::clone(node);
    let (past, proof) = blocking(move || {
        let past = shared.history.all().unwrap_or_default();
        let proof = leaks::proof(&shared, &past);
        (past, Arc::new(proof))
    })
    .await;
    let survey = || {
        let (node, proof) = (Arc::clone(node), Arc::clone(&proof));
        blocking(move || Survey::of(&node, &proof))
    };
    let until = Instant::now() + CONFIRM_MAX;
    let mut found = survey().await;
    while !found.is_empty() && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        found = found.confirmed(&survey().await);
    }
    let names = names(node, &past);
    let mut findings = Vec::new();
    for leak in found.leaks {
        let mut finding = leak.finding(&names);
        let kind = leak.kind();
        node.metrics.leak(kind);
        if fix {
            finding.outcome = removed(node, leak, &past, &proof).await;
            node.metrics.leak_removed(kind, finding.outcome == REMOVED);
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
async fn removed(
    node: &Arc<Node>,
    leak: Leak,
    past: &[Timeline],
    proof: &Arc<BTreeSet<String>>,
) -> String {
    let (shared, looked_for, proof) = (Arc::clone(node), leak.clone(), Arc::clone(proof));
    if !blocking(move || leaks_of(&shared, &proof).contains(&looked_for)).await {
        return REMOVED.into();
    }
    fix::remove(node, leak, past).await.map_or_else(|why| why, |()| REMOVED.into())
}

/// Full names by id, of what is gone and of what is there now.
fn names(node: &Node, past: &[Timeline]) -> BTreeMap<String, String> {
    let present = node.history.all_present();
    past.iter().chain(&present).map(|of| (of.id.clone(), of.full_name())).collect()
}

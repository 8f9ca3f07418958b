// SPDX-License-Identifier: Apache-2.0
//! Containers that see each other's processes: a container that controls a neighbour gets as far as the neighbour
//! does. Pure.

use super::facts::Facts;
use super::judge::{Finding, findings, some_of};
use super::reach::Reach;
use hull_sys::text::shown;
use std::collections::BTreeMap;

/// Longest name that is shown, in bytes.
const NAME_MAX: usize = 64;

/// Findings about running containers of the same pod, by name, whose processes this container sees.
pub(super) fn judge(facts: &Facts, all: &[(String, Facts)]) -> Vec<Finding> {
    let mut by = BTreeMap::<Reach, Vec<String>>::new();
    for (name, of) in controlled(facts, all) {
        // As far as itself, and as the containers that it controls in turn.
        let further = controlled(of, all).into_iter().map(|(_, of)| of).chain([of]);
        let reach = further.map(own_reach).max().unwrap_or(Reach::None).max(Reach::Pod);
        by.entry(reach).or_default().push(shown(name, NAME_MAX));
    }
    let finding = |(reach, names): (Reach, Vec<String>)| {
        Finding {
        id: "neighbours",
        what: format!(
            "it sees and can control processes of {} (/proc/<pid>/root, ptrace): it gets as far as they do",
            some_of(&names, 4)
        ),
        reach,
        hint: "spec.shareProcessNamespace: false, no debug container that targets another; or capabilities.drop: \
              [SYS_PTRACE] and a user of its own"
            .into(),
    }
    };
    by.into_iter().rev().map(finding).collect()
}

fn own_reach(facts: &Facts) -> Reach {
    findings(facts).iter().map(|finding| finding.reach).max().unwrap_or(Reach::None)
}

fn controlled<'f>(facts: &Facts, all: &'f [(String, Facts)]) -> Vec<(&'f str, &'f Facts)> {
    let held = facts.acquirable_capabilities();
    let is_controlled = |of: &Facts| {
        let sees = of.pid != facts.pid
            && !of.pid_namespace.is_empty()
            && of.pid_namespace == facts.pid_namespace;
        // ptrace(2): the capability, or the same user and no capability that this one lacks.
        let same_user = of.threads.iter().any(|theirs| {
            let within = theirs.permitted.0 & !held.0 == 0;
            within && facts.threads.iter().any(|ours| !ours.uids.is_disjoint(&theirs.uids))
        });
        sees && (held.has("SYS_PTRACE") || same_user)
    };
    all.iter().filter(|(_, of)| is_controlled(of)).map(|(name, of)| (name.as_str(), of)).collect()
}

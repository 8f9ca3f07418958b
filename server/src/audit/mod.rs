// SPDX-License-Identifier: Apache-2.0
//! `hull audit`: the isolation of running containers, from the state of the kernel instead of their specs.
//!
//! ```text
//! gather  /proc, the container's mount table, its /dev, device rules ─→ Facts
//! judge   Facts ─→ Findings: gap, how far an attacker gets through it, hint         (pure)
//! pss     Facts ─→ the Pod Security level, and the obstacle to the next one         (pure)
//! report  a table for people, JSON for programs
//! ```
//!
//! The rule: the container is hostile. The audit opens only directories below its `/dev`, beneath
//! descriptors, without symlinks, and only on filesystems that the kernel serves by itself. Text from it is
//! escaped and shortened where it becomes a message. Only the kernel and the daemon's records are trusted.

mod caps;
mod error;
mod facts;
mod gather;
mod judge;
mod listeners;
mod mount_view;
mod mounts;
mod neighbours;
mod origin;
mod procfs;
mod pss;
mod reach;
mod report;
mod sockets;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use error::Error;
pub(crate) use facts::{DaemonFacts, Facts};
pub(crate) use gather::gather;
pub(crate) use report::{Audited, NotAudited, Report};

/// Judges the facts about one container. `all` has the facts about every running container of the pod, by name.
pub(crate) fn audited(id: String, name: String, facts: &Facts, all: &[(String, Facts)]) -> Audited {
    let mut findings = judge::findings(facts);
    findings.extend(neighbours::judge(facts, all));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.reach));
    let standard = pss::judge(facts);
    Audited::new(id, name, facts, findings, standard)
}

// SPDX-License-Identifier: Apache-2.0
//! `hull audit`: how a running container is isolated, as the kernel has it and not as its spec asked.
//!
//! ```text
//! gather  /proc, the container's mount table, its /dev, device rules ─→ Facts
//! judge   Facts ─→ Findings: what, how far a break-in would reach, what closes it   (pure)
//! pss     Facts ─→ the Pod Security level, and what keeps it from the next          (pure)
//! report  a table for people, JSON for programs
//! ```
//!
//! The rule: the container is hostile. Nothing of it is opened but directories below its `/dev`, each by
//! descriptor, without links, and only on filesystems that answer by themselves; text of it is escaped
//! and bounded where it becomes a message. Only the kernel and the daemon's record are believed.

mod caps;
mod error;
mod facts;
mod gather;
mod inside;
mod judge;
mod listeners;
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
pub(crate) use facts::{Facts, Given};
pub(crate) use gather::gather;
pub(crate) use report::{Audited, NotAudited, Report};

/// Judges the facts about one container. `all` are those of the running containers of its pod, by name.
pub(crate) fn audited(id: String, name: String, facts: &Facts, all: &[(String, Facts)]) -> Audited {
    let mut findings = judge::findings(facts);
    findings.extend(neighbours::judge(facts, all));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.reach));
    let standard = pss::judge(facts);
    Audited::new(id, name, facts, findings, standard)
}

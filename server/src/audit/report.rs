// SPDX-License-Identifier: Apache-2.0
//! The report of `hull audit`, as a table for people and as JSON for programs. Field names are stable;
//! docs/security.md describes them.

use super::facts::{DeviceNode, DeviceRules, Facts, HostMount, IdRange, Lsm, NamespaceOwner};
use super::judge::{Finding, some_of};
use super::pss::{Obstacle, Standard};
use super::reach::Reach;
use hull_sys::text::shown;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Version of the JSON document; increased when a field is removed or changes its meaning.
const VERSION: u32 = 1;
/// Longest printed name, in bytes.
const NAME_MAX: usize = 253;
/// Longest printed reason, in bytes.
const REASON_MAX: usize = 1024;

/// A pod and its audited containers.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    version: u32,
    pod: Pod,
    containers: Vec<Audited>,
    not_audited: Vec<NotAudited>,
}

/// A running container that could not be audited.
#[derive(Debug, Serialize)]
pub(crate) struct NotAudited {
    id: String,
    name: String,
    reason: String,
}

impl NotAudited {
    pub(crate) fn new(id: String, name: &str, reason: &str) -> Self {
        Self { id, name: shown(name, NAME_MAX), reason: shown(reason, REASON_MAX) }
    }
}

#[derive(Debug, Serialize)]
struct Pod {
    id: String,
    name: String,
    namespace: String,
}

/// The result for one container.
#[derive(Debug, Serialize)]
pub(crate) struct Audited {
    id: String,
    name: String,
    pid: i32,
    level: super::pss::Level,
    next: Option<Obstacle>,
    reach: Reach,
    findings: Vec<Finding>,
    facts: Shown,
}

/// The facts as JSON shows them.
#[derive(Debug, Serialize)]
struct Shown {
    namespaces: BTreeMap<&'static str, NamespaceOwner>,
    user_namespace: bool,
    uid_map: Vec<IdRange>,
    gid_map: Vec<IdRange>,
    users: Vec<User>,
    capabilities: Capabilities,
    seccomp: Seccomp,
    no_new_privs: bool,
    lsm: Lsm,
    devices: Devices,
    host_mounts: Vec<HostMount>,
    listening: Vec<String>,
    threads: usize,
    all_threads: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct User {
    inside: Option<u32>,
    host: u32,
}

#[derive(Debug, Serialize)]
struct Capabilities {
    effective: Vec<String>,
    permitted: Vec<String>,
    bounding: Vec<String>,
    ambient: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Seccomp {
    mode: &'static str,
    filters: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Devices {
    nodes: Vec<DeviceNode>,
    rules: DeviceRules,
    unseen: Vec<String>,
}

impl Audited {
    pub(super) fn new(
        id: String,
        name: String,
        facts: &Facts,
        findings: Vec<Finding>,
        standard: Standard,
    ) -> Self {
        let reach = findings.iter().map(|finding| finding.reach).max().unwrap_or(Reach::None);
        Self {
            id,
            name: shown(&name, NAME_MAX),
            pid: facts.pid,
            level: standard.level,
            next: standard.next,
            reach,
            findings,
            facts: Shown::new(facts),
        }
    }
}

impl Shown {
    fn new(facts: &Facts) -> Self {
        let widest = facts.widest();
        let host: BTreeSet<u32> =
            facts.threads.iter().flat_map(|thread| thread.uids.iter().copied()).collect();
        let users = host.into_iter().map(|host| User { inside: facts.inside(host), host });
        let mode = match widest.seccomp {
            0 => "off",
            1 => "strict",
            _ => "filter",
        };
        Self {
            namespaces: facts.namespaces.clone(),
            user_namespace: facts.is_mapped(),
            uid_map: facts.uid_map.clone(),
            gid_map: facts.gid_map.clone(),
            users: users.collect(),
            capabilities: Capabilities {
                effective: widest.effective.names(),
                permitted: widest.permitted.names(),
                bounding: widest.bounding.names(),
                ambient: widest.ambient.names(),
            },
            seccomp: Seccomp { mode, filters: widest.filters },
            no_new_privs: widest.no_new_privs,
            lsm: facts.lsm.clone(),
            devices: Devices {
                nodes: facts.nodes.clone(),
                rules: facts.rules.clone(),
                unseen: facts.unseen.clone(),
            },
            host_mounts: facts.host_mounts.clone(),
            listening: facts.listening.clone(),
            threads: facts.threads.len(),
            all_threads: !facts.more_threads,
        }
    }

    fn lines(&self, out: &mut String) {
        let list =
            |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
        let mut line = |what: &str, said: String| {
            // Writing to a String cannot fail.
            let _infallible = writeln!(out, "  {what:<15} {said}");
        };
        let of_whom = |whose| {
            let kinds =
                self.namespaces.iter().filter(|(_, of)| **of == whose).map(|(kind, _)| *kind);
            Some(kinds.collect::<Vec<_>>().join(" "))
                .filter(|kinds| !kinds.is_empty())
                .unwrap_or("none".into())
        };
        line(
            "namespaces",
            format!(
                "of the host: {}; of the pod: {}; its own: {}",
                of_whom(NamespaceOwner::Host),
                of_whom(NamespaceOwner::Pod),
                of_whom(NamespaceOwner::Own)
            ),
        );
        let users: Vec<String> = self.users.iter().map(User::shown).collect();
        line("users", some_of(&users, 8));
        line("capabilities", format!("effective: {}", list(&self.capabilities.effective)));
        line("", format!("bounding: {}", list(&self.capabilities.bounding)));
        if !self.capabilities.ambient.is_empty() {
            line("", format!("ambient: {}", list(&self.capabilities.ambient)));
        }
        let filters = self
            .seccomp
            .filters
            .map_or(String::new(), |count| format!(", filters per thread: at least {count}"));
        line("seccomp", format!("{}{filters}", self.seccomp.mode));
        line("no_new_privs", if self.no_new_privs { "yes".into() } else { "no".into() });
        line("module", self.lsm.shown());
        let rules = match &self.devices.rules {
            DeviceRules::V1(rules) => format!("{} rules", rules.len()),
            DeviceRules::Ebpf => "rules in eBPF".into(),
        };
        line("devices", format!("{} nodes, {rules}", self.devices.nodes.len()));
        for unseen in &self.devices.unseen {
            line("", format!("not audited: {unseen}"));
        }
        if !self.all_threads {
            line("threads", format!("only the first {} were audited", self.threads));
        }
    }
}

impl User {
    fn shown(&self) -> String {
        match self.inside {
            Some(inside) if inside == self.host => inside.to_string(),
            Some(inside) => format!("{inside} ({} on the host)", self.host),
            None => format!("{} of the host, not mapped into the container", self.host),
        }
    }
}

impl Lsm {
    fn shown(&self) -> String {
        match self {
            Self::None => "none on this host".into(),
            Self::AppArmor(label) => format!("AppArmor {label}"),
            Self::SELinux(label) => format!("SELinux {label}"),
        }
    }
}

impl Reach {
    /// The column REACH of the table.
    fn shown(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Host => "HOST",
        }
    }
}

impl Report {
    /// A report about containers of one pod.
    pub(crate) fn new(
        id: String,
        name: &str,
        namespace: &str,
        containers: Vec<Audited>,
        not_audited: Vec<NotAudited>,
    ) -> Self {
        let (name, namespace) = (shown(name, NAME_MAX), shown(namespace, NAME_MAX));
        Self { version: VERSION, pod: Pod { id, name, namespace }, containers, not_audited }
    }

    /// The report as a JSON document.
    pub(crate) fn json(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(self)
    }

    /// The containers that were audited, as POD/NAME.
    pub(crate) fn names(&self) -> Vec<String> {
        self.containers.iter().map(|of| format!("{}/{}", self.pod.name, of.name)).collect()
    }

    /// The report as text.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for (index, of) in self.containers.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            let short: String = of.id.chars().take(12).collect();
            let _infallible =
                writeln!(out, "container {short} ({}/{}), pid {}", self.pod.name, of.name, of.pid);
            let _infallible = write!(out, "  {:<15} {}", "pod security", of.level.name());
            let _infallible = match &of.next {
                Some(next) => writeln!(
                    out,
                    "; not {}: {} (hint: {})",
                    next.level.name(),
                    next.reason,
                    next.hint
                ),
                None => writeln!(out),
            };
            of.facts.lines(&mut out);
            out.push('\n');
            out.push_str(&of.table());
        }
        for NotAudited { id, name, reason } in &self.not_audited {
            let short: String = id.chars().take(12).collect();
            let _infallible = writeln!(
                out,
                "container {short} ({}/{name}), not audited: cannot {reason}",
                self.pod.name
            );
        }
        out
    }
}

impl Audited {
    fn table(&self) -> String {
        let mut out = String::from("  REACH  FINDING\n");
        for Finding { id, what, reach, hint } in &self.findings {
            let _infallible =
                writeln!(out, "  {:<5}  {id}: {what}\n         hint: {hint}", reach.shown());
        }
        if self.findings.is_empty() {
            out.push_str("  -      nothing\n");
        }
        out
    }
}

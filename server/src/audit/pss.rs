// SPDX-License-Identifier: Apache-2.0
//! Which level of the Pod Security Standards a container meets, by what the kernel has. Pure.
//!
//! The standards speak of fields of a pod's spec; here each is judged by what it leaves behind, as of
//! version 1.37 (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>). Where a field that is
//! not set and one that is forbidden leave the same behind, it counts as not set: seccomp off at Baseline,
//! NET_RAW of the default set. Host ports and sysctls are those of the daemon's record. Volume types,
//! host names in probes and Windows cannot be seen here.

use super::facts::{Facts, Lsm, NamespaceOwner};
use super::judge::{Finding, findings, some_of, unmasked_proc};
use super::judge::{is_container_type, is_unconfined};
use super::reach::Reach;
use serde::Serialize;

/// Sysctls that a pod may set at Baseline.
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// A level of the Pod Security Standards. Each includes the requirements of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    /// The name in the standards.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// The rule that keeps a container from the next level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Obstacle {
    /// The level that is not met.
    pub(crate) level: Level,
    /// The first rule of that level that is not met, with the observed facts.
    pub(crate) reason: String,
    /// The field to change. Programs read it as `fix`.
    #[serde(rename = "fix")]
    pub(crate) hint: String,
}

/// The level that a container meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standard {
    pub(crate) level: Level,
    pub(crate) next: Option<Obstacle>,
}

/// Finds the level that a container meets, and the first obstacle to the next one.
pub(super) fn judge(facts: &Facts) -> Standard {
    let obstacle =
        |level, (reason, hint): (String, &str)| Obstacle { level, reason, hint: hint.into() };
    if let Some(violation) = not_baseline(facts) {
        return Standard {
            level: Level::Privileged,
            next: Some(obstacle(Level::Baseline, violation)),
        };
    }
    if let Some(violation) = not_restricted(facts) {
        return Standard {
            level: Level::Baseline,
            next: Some(obstacle(Level::Restricted, violation)),
        };
    }
    Standard { level: Level::Restricted, next: None }
}

/// The first rule that is not met: the reason and the hint.
type Violation = Option<(String, &'static str)>;

fn not_baseline(facts: &Facts) -> Violation {
    for (kind, hint) in [
        ("net", "spec.hostNetwork: false"),
        ("pid", "spec.hostPID: false"),
        ("ipc", "spec.hostIPC: false"),
    ] {
        if facts.namespace(kind) == NamespaceOwner::Host {
            return Some((format!("it is in the {kind} namespace of the host"), hint));
        }
    }
    if facts.looks_privileged() {
        return Some(("it is privileged".into(), "securityContext.privileged: false"));
    }
    let widest = facts.widest();
    let added = widest.bounding.union(widest.permitted).union(widest.effective).beyond_baseline();
    if !added.is_empty() {
        let reason = format!("it has capabilities beyond the default: {}", some_of(&added, 6));
        return Some((reason, "securityContext.capabilities.add: []"));
    }
    if let Some(mount) = facts.host_mounts.first() {
        let reason =
            format!("{} of the host is mounted at {}", mount.host_path, mount.container_path);
        return Some((reason, "a volume that is not hostPath"));
    }
    if !facts.host_ports.is_empty() {
        let ports: Vec<String> = facts.host_ports.iter().map(ToString::to_string).collect();
        return Some((
            format!("host ports lead to it: {}", some_of(&ports, 6)),
            "no ports[*].hostPort",
        ));
    }
    // A pod gets devices of the host only from plugins; this counts like a hostPath to the device.
    let of_host =
        |of: &Finding| matches!(of.id, "devices" | "device-rules") && of.reach == Reach::Host;
    if let Some(finding) = findings(facts).into_iter().find(of_host) {
        let hint = "no device of the host: neither hostPath nor a plugin's or CDI device";
        return Some((format!("it opens {}", finding.what), hint));
    }
    not_baseline_confined(facts)
}

fn not_baseline_confined(facts: &Facts) -> Violation {
    match &facts.lsm {
        Lsm::AppArmor(label) if is_unconfined(label) => {
            let reason = "AppArmor does not confine it".to_owned();
            return Some((reason, "securityContext.appArmorProfile.type: RuntimeDefault"));
        }
        Lsm::SELinux(label) if !is_container_type(label) => {
            return Some((
                format!("its SELinux type is not one for containers (`{label}`)"),
                "no seLinuxOptions.type",
            ));
        }
        Lsm::AppArmor(_) | Lsm::SELinux(_) | Lsm::None => {}
    }
    let unmasked = unmasked_proc(facts);
    if !unmasked.is_empty() && !facts.is_mapped() {
        let reason = format!("/proc is not masked: {}", some_of(&unmasked, 3));
        return Some((reason, "securityContext.procMount: Default"));
    }
    let unsafe_ones: Vec<String> =
        facts.sysctls.iter().filter(|name| !SYSCTLS.contains(&name.as_str())).cloned().collect();
    if !unsafe_ones.is_empty() {
        let reason = format!("it sets unsafe sysctls: {}", some_of(&unsafe_ones, 3));
        return Some((reason, "spec.securityContext.sysctls: []"));
    }
    None
}

fn not_restricted(facts: &Facts) -> Violation {
    let widest = facts.widest();
    if !widest.no_new_privs {
        return Some((
            "no_new_privs is not set".into(),
            "securityContext.allowPrivilegeEscalation: false",
        ));
    }
    // In a user namespace, root is not root of the host: the standards allow it since 1.34.
    if facts.has_root() && !facts.is_mapped() {
        return Some((
            "it runs as root".into(),
            "securityContext.runAsNonRoot: true, with runAsUser other than 0",
        ));
    }
    if widest.seccomp == 0 {
        return Some((
            "no seccomp filter is installed".into(),
            "securityContext.seccompProfile.type: RuntimeDefault",
        ));
    }
    let mut held = widest.bounding.union(widest.permitted).union(widest.effective).names();
    held.retain(|name| name != "NET_BIND_SERVICE");
    if !held.is_empty() {
        let reason = format!("capabilities are not dropped: {}", some_of(&held, 4));
        return Some((reason, "securityContext.capabilities.drop: [ALL]"));
    }
    None
}

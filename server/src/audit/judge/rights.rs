// SPDX-License-Identifier: Apache-2.0
//! Privileges of the processes: user, capabilities, seccomp, security module.

use super::finding::{Finding, NOT_PRIVILEGED};
use crate::audit::caps::{Caps, worth};
use crate::audit::facts::{Facts, Lsm, NamespaceOwner, Widest};
use crate::audit::reach::Reach;

pub(super) fn judge(facts: &Facts, all: &mut Vec<Finding>) {
    let widest = facts.widest();
    capabilities(facts, all);
    user(facts, all);
    filters(facts, &widest, all);
    security_module(facts, all);
    if !widest.no_new_privs {
        all.push(Finding {
            id: "privilege-escalation",
            what: "no_new_privs is not set: set-user-ID programs and file capabilities grant privileges that \
                   the process did not have"
                .into(),
            reach: Reach::None,
            hint: "securityContext.allowPrivilegeEscalation: false".into(),
        });
    }
}

fn capabilities(facts: &Facts, all: &mut Vec<Finding>) {
    for (reach, names) in by_reach(facts, facts.acquirable_capabilities()) {
        let shown: Vec<String> =
            names.iter().map(|(name, why)| format!("CAP_{name} ({why})")).collect();
        let plain: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
        let hint = if facts.looks_privileged() {
            NOT_PRIVILEGED.into()
        } else {
            format!("securityContext.capabilities.drop: [{}]", plain.join(", "))
        };
        let inside = if facts.is_mapped() { "only in its own user namespace: " } else { "" };
        let what = format!("{inside}{}", shown.join(", "));
        all.push(Finding { id: "capabilities", what, reach, hint });
    }
}

/// A capability's name, and what it permits.
type Named = (String, &'static str);

/// The capabilities that help an attacker, by how far each one reaches in this container.
fn by_reach(facts: &Facts, caps: Caps) -> Vec<(Reach, Vec<Named>)> {
    let mut by = std::collections::BTreeMap::<Reach, Vec<Named>>::new();
    for name in caps.names() {
        let Some((reach, why)) = worth(&name) else { continue };
        by.entry(reach_of(facts, &name, reach)).or_default().push((name, why));
    }
    by.into_iter().rev().collect()
}

/// How far a capability reaches in this container; `alone` is its reach without regard to the namespaces.
fn reach_of(facts: &Facts, name: &str, alone: Reach) -> Reach {
    let shared = |kind: &str| match facts.namespace(kind) {
        NamespaceOwner::Own => Reach::None,
        NamespaceOwner::Pod => Reach::Pod,
        NamespaceOwner::Host => Reach::Host,
    };
    match name {
        // As far as the container sees processes.
        "SYS_PTRACE" | "CHECKPOINT_RESTORE" => facts.unless_mapped(shared("pid")),
        // The network namespace of the pod belongs to its user namespace, too.
        "NET_ADMIN" | "NET_RAW" if facts.namespace("net") == NamespaceOwner::Host => {
            facts.unless_mapped(Reach::Node)
        }
        "NET_ADMIN" | "NET_RAW" => alone,
        _ => facts.unless_mapped(alone),
    }
}

fn user(facts: &Facts, all: &mut Vec<Finding>) {
    if !facts.has_root() || facts.is_mapped() {
        return;
    }
    let what = if facts.namespace("user") == NamespaceOwner::Host {
        "it runs as root, the same user as root of the host: a vulnerability of the kernel or the runtime exposes the node"
    } else {
        "it runs as root, in a user namespace that maps root of the host"
    };
    all.push(Finding {
        id: "host-root-user",
        what: what.into(),
        reach: Reach::None,
        hint: "spec.hostUsers: false; or securityContext.runAsNonRoot: true and runAsUser other than 0".into(),
    });
}

fn filters(facts: &Facts, widest: &Widest, all: &mut Vec<Finding>) {
    if widest.seccomp != 0 {
        return;
    }
    let hint = if facts.looks_privileged() {
        NOT_PRIVILEGED.to_owned()
    } else {
        "securityContext.seccompProfile.type: RuntimeDefault; for all containers without a profile: \
         `runtime.default_seccomp = \"runtime/default\"` in the configuration of Hull"
            .into()
    };
    all.push(Finding {
        id: "no-seccomp",
        what: "no seccomp filter: every system call of the kernel is available".into(),
        reach: Reach::None,
        hint,
    });
}

fn security_module(facts: &Facts, all: &mut Vec<Finding>) {
    let (what, hint) = match &facts.lsm {
        Lsm::AppArmor(label) if is_unconfined(label) => (
            format!("AppArmor does not confine it (`{label}`)"),
            if facts.looks_privileged() {
                NOT_PRIVILEGED
            } else {
                "securityContext.appArmorProfile.type: RuntimeDefault"
            },
        ),
        Lsm::SELinux(label) if !is_container_type(label) => (
            format!("SELinux does not confine it as a container (`{label}`)"),
            "securityContext.seLinuxOptions.type: container_t",
        ),
        Lsm::AppArmor(_) | Lsm::SELinux(_) | Lsm::None => return,
    };
    all.push(Finding { id: "no-lsm", what, reach: Reach::None, hint: hint.into() });
}

/// Whether an AppArmor label means no profile, or a profile in complain mode.
pub(in crate::audit) fn is_unconfined(label: &str) -> bool {
    label == "unconfined" || label.ends_with("(unconfined)") || label.ends_with("(complain)")
}

/// Whether the SELinux type counts as confined in the Pod Security Standards.
pub(in crate::audit) fn is_container_type(label: &str) -> bool {
    let types = ["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    label.split(':').nth(2).is_some_and(|of| types.contains(&of))
}

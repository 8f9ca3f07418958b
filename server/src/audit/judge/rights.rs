// SPDX-License-Identifier: Apache-2.0
//! What its processes may do: user, capabilities, filters, security module.

use super::finding::{Finding, NOT_PRIVILEGED};
use crate::audit::caps::{Caps, worth};
use crate::audit::facts::{Facts, Lsm, Shared, Widest};
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
            what: "no_new_privs is not set: set-user-id programs and file capabilities give rights that \
                   the process did not have"
                .into(),
            reach: Reach::None,
            fix: "securityContext.allowPrivilegeEscalation: false".into(),
        });
    }
}

fn capabilities(facts: &Facts, all: &mut Vec<Finding>) {
    for (reach, names) in by_reach(facts, facts.within_reach()) {
        let shown: Vec<String> =
            names.iter().map(|(name, why)| format!("CAP_{name} ({why})")).collect();
        let plain: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
        let fix = if facts.looks_privileged() {
            NOT_PRIVILEGED.into()
        } else {
            format!("securityContext.capabilities.drop: [{}]", plain.join(", "))
        };
        let inside = if facts.is_mapped() { "in its own user namespace only: " } else { "" };
        let what = format!("{inside}{}", shown.join(", "));
        all.push(Finding { id: "capabilities", what, reach, fix });
    }
}

/// A capability's name, and what it lets its holder do.
type Named = (String, &'static str);

/// The capabilities that are worth something, by how far each reaches here.
fn by_reach(facts: &Facts, caps: Caps) -> Vec<(Reach, Vec<Named>)> {
    let mut by = std::collections::BTreeMap::<Reach, Vec<Named>>::new();
    for name in caps.names() {
        let Some((reach, why)) = worth(&name) else { continue };
        by.entry(reach_of(facts, &name, reach)).or_default().push((name, why));
    }
    by.into_iter().rev().collect()
}

/// What is around it makes a capability worth more or less.
fn reach_of(facts: &Facts, name: &str, alone: Reach) -> Reach {
    let shared = |kind: &str| match facts.of(kind) {
        Shared::Own => Reach::None,
        Shared::Pod => Reach::Pod,
        Shared::Host => Reach::Host,
    };
    match name {
        // As far as its processes can be seen.
        "SYS_PTRACE" | "CHECKPOINT_RESTORE" => facts.unless_mapped(shared("pid")),
        // A network namespace of the pod is owned by its user namespace as well.
        "NET_ADMIN" | "NET_RAW" if facts.of("net") == Shared::Host => {
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
    let what = if facts.of("user") == Shared::Host {
        "it runs as root, which is root of the host too: a fault of the kernel or of the runtime gives the node away"
    } else {
        "its user namespace has root of the host in it, and it runs as root"
    };
    all.push(Finding {
        id: "host-root-user",
        what: what.into(),
        reach: Reach::None,
        fix: "spec.hostUsers: false; or securityContext.runAsNonRoot: true and runAsUser other than 0".into(),
    });
}

fn filters(facts: &Facts, widest: &Widest, all: &mut Vec<Finding>) {
    if widest.seccomp != 0 {
        return;
    }
    let fix = if facts.looks_privileged() {
        NOT_PRIVILEGED.to_owned()
    } else {
        "securityContext.seccompProfile.type: RuntimeDefault; for all that name none: Hull's \
         `runtime.default_seccomp = \"runtime/default\"`"
            .into()
    };
    all.push(Finding {
        id: "no-seccomp",
        what: "no seccomp filter: every system call of the kernel can be tried".into(),
        reach: Reach::None,
        fix,
    });
}

fn security_module(facts: &Facts, all: &mut Vec<Finding>) {
    let (what, fix) = match &facts.lsm {
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
    all.push(Finding { id: "no-lsm", what, reach: Reach::None, fix: fix.into() });
}

/// Without a profile, or with one that only complains.
pub(in crate::audit) fn is_unconfined(label: &str) -> bool {
    label == "unconfined" || label.ends_with("(unconfined)") || label.ends_with("(complain)")
}

/// Types that the Pod Security Standards take for confined.
pub(in crate::audit) fn is_container_type(label: &str) -> bool {
    let types = ["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    label.split(':').nth(2).is_some_and(|of| types.contains(&of))
}

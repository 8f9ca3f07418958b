// SPDX-License-Identifier: Apache-2.0
//! Paths of /proc and /sys that are usually masked or read-only, and are not in this container. Derived from
//! the mount table: a path whose topmost mount is still a procfs is not masked, and it is writable if that
//! mount is.

use super::finding::{Finding, NOT_PRIVILEGED, some_of};
use crate::audit::facts::Facts;
use crate::audit::mounts::{Mount, moved};
use crate::audit::reach::Reach;
use hull_plan::defaults;
use hull_sys::text::shown;
use std::collections::BTreeSet;

/// Paths of procfs that configure the machine.
const PROC_READ_ONLY: [&str; 7] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys/fs/binfmt_misc",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sysrq-trigger",
];
/// A masked path of sysfs that depends on the processors; the first one stands for all.
const THROTTLING: &str = "/sys/devices/system/cpu/cpu0/thermal_throttle";
/// Longest path that is shown, in bytes.
const SHOWN_MAX: usize = 200;

/// All judged paths; the caller checks which ones this kernel has.
pub(in crate::audit) fn paths() -> impl Iterator<Item = &'static str> {
    masked("/proc").into_iter().chain(PROC_READ_ONLY).chain(masked("/sys"))
}

/// The default masked paths of the file system at `home`.
fn masked(home: &str) -> Vec<&'static str> {
    let all = defaults::MASKED_PATHS.into_iter().chain([THROTTLING]);
    all.filter(|path| moved(path, home, "/").is_some()).collect()
}

pub(super) fn judge(facts: &Facts, all: &mut Vec<Finding>) {
    proc_writable(facts, all);
    proc_unmasked(facts, all);
    sys(facts, all);
}

fn hint(facts: &Facts) -> String {
    if facts.looks_privileged() {
        NOT_PRIVILEGED.into()
    } else {
        "securityContext.procMount: Default; no hostPath at or above it; no CAP_SYS_ADMIN, which can mount it".into()
    }
}

fn proc_writable(facts: &Facts, all: &mut Vec<Finding>) {
    let open = places(facts, "proc", &PROC_READ_ONLY, "/proc", |mount| !mount.read_only);
    if open.is_empty() {
        return;
    }
    // The kernel allows only root of the host to write there.
    let (reach, but) = match facts.is_mapped() {
        true => (Reach::None, "; but the kernel accepts writes only from root of the host"),
        false => (Reach::Host, ""),
    };
    let what = format!("kernel settings of the host are writable: {}{but}", some_of(&open, 6));
    all.push(Finding { id: "proc-writable", what, reach, hint: hint(facts) });
}

fn proc_unmasked(facts: &Facts, all: &mut Vec<Finding>) {
    let open = unmasked(facts);
    if open.is_empty() {
        return;
    }
    let memory = open.iter().any(|path| path.ends_with("/kcore"))
        && facts.widest().bounding.has("SYS_RAWIO");
    let reach = if memory { facts.unless_mapped(Reach::Host) } else { Reach::None };
    let what = format!("paths of /proc are not masked: {}", some_of(&open, 6));
    all.push(Finding { id: "proc-unmasked", what, reach, hint: hint(facts) });
}

/// Paths of procfs that are not masked.
pub(in crate::audit) fn unmasked(facts: &Facts) -> Vec<String> {
    places(facts, "proc", &masked("/proc"), "/proc", |_| true)
}

fn sys(facts: &Facts, all: &mut Vec<Finding>) {
    let visible = facts.mounts.visible().filter(|mount| mount.fstype == "sysfs");
    let writable: Vec<String> = visible
        .filter(|mount| !mount.read_only)
        .map(|mount| shown(&mount.point, SHOWN_MAX))
        .collect();
    if !writable.is_empty() {
        all.push(Finding {
            id: "sys-writable",
            what: format!(
                "devices and modules of the host can be configured through {}",
                some_of(&writable, 6)
            ),
            reach: facts.unless_mapped(Reach::Host),
            hint: hint(facts),
        });
    }
    let open = places(facts, "sysfs", &masked("/sys"), "/sys", |_| true);
    if !open.is_empty() {
        all.push(Finding {
            id: "sys-unmasked",
            what: format!("paths of /sys are not masked: {}", some_of(&open, 6)),
            reach: Reach::None,
            hint: hint(facts),
        });
    }
}

/// The places in the container at which `paths` (below `home` on the host) are visible on a filesystem of
/// type `fstype`, through any mount of it that satisfies `wanted`.
fn places(
    facts: &Facts,
    fstype: &str,
    paths: &[&'static str],
    home: &str,
    wanted: impl Fn(&Mount) -> bool,
) -> Vec<String> {
    let known = paths.iter().filter(|path| facts.kernel_has.contains(*path));
    let of_filesystem: Vec<String> = known.filter_map(|path| moved(path, home, "/")).collect();
    let mut found = BTreeSet::new();
    for mount in facts.mounts.visible().filter(|mount| mount.fstype == fstype) {
        for path in &of_filesystem {
            let Some(place) = moved(path, &mount.root, &mount.point) else { continue };
            let at = facts.mounts.at(&place);
            if at.is_some_and(|at| at.fstype == fstype && wanted(at)) {
                let _before = found.insert(shown(&place, SHOWN_MAX));
            }
        }
    }
    found.into_iter().collect()
}

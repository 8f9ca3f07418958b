// SPDX-License-Identifier: Apache-2.0
//! Parts of /proc and /sys that are usually masked or read-only, and are not here. Worked out from the
//! table of mounts: a path whose topmost mount is still a procfs is not masked, and it is writable when
//! that mount is.

use super::finding::{Finding, NOT_PRIVILEGED, some_of};
use crate::audit::facts::Facts;
use crate::audit::mounts::{Mount, moved};
use crate::audit::reach::Reach;
use hull_sys::text::shown;
use std::collections::BTreeSet;

/// What tells too much, of procfs.
const PROC_MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];
/// Through what the machine is changed.
const PROC_READ_ONLY: [&str; 7] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys/fs/binfmt_misc",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sysrq-trigger",
];
/// What tells too much, of sysfs.
const SYS_MASKED: [&str; 3] = [
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Longest path that is shown, in bytes.
const SHOWN_MAX: usize = 200;

/// All paths that are judged, to be looked for in this kernel.
pub(in crate::audit) fn paths() -> impl Iterator<Item = &'static str> {
    PROC_MASKED.into_iter().chain(PROC_READ_ONLY).chain(SYS_MASKED)
}

pub(super) fn judge(facts: &Facts, all: &mut Vec<Finding>) {
    proc_writable(facts, all);
    proc_unmasked(facts, all);
    sys(facts, all);
}

fn fix(facts: &Facts) -> String {
    if facts.looks_privileged() {
        NOT_PRIVILEGED.into()
    } else {
        "securityContext.procMount: Default; no hostPath at or above it; no CAP_SYS_ADMIN, which mounts such".into()
    }
}

fn proc_writable(facts: &Facts, all: &mut Vec<Finding>) {
    let open = places(facts, "proc", &PROC_READ_ONLY, "/proc", |mount| !mount.read_only);
    if open.is_empty() {
        return;
    }
    // Root of a user namespace is not whom the kernel lets write there.
    let (reach, but) = match facts.is_mapped() {
        true => (Reach::None, "; the kernel takes it from the host's root only"),
        false => (Reach::Host, ""),
    };
    let what = format!("settings of the machine can be written: {}{but}", some_of(&open, 6));
    all.push(Finding { id: "proc-writable", what, reach, fix: fix(facts) });
}

fn proc_unmasked(facts: &Facts, all: &mut Vec<Finding>) {
    let open = unmasked(facts);
    if open.is_empty() {
        return;
    }
    let memory = open.iter().any(|path| path.ends_with("/kcore"))
        && facts.widest().bounding.has("SYS_RAWIO");
    let reach = if memory { facts.unless_mapped(Reach::Host) } else { Reach::None };
    let what = format!("of /proc is not masked: {}", some_of(&open, 6));
    all.push(Finding { id: "proc-unmasked", what, reach, fix: fix(facts) });
}

/// Paths of procfs that are not masked.
pub(in crate::audit) fn unmasked(facts: &Facts) -> Vec<String> {
    places(facts, "proc", &PROC_MASKED, "/proc", |_| true)
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
                "the machine's devices and modules can be set by {}",
                some_of(&writable, 6)
            ),
            reach: facts.unless_mapped(Reach::Host),
            fix: fix(facts),
        });
    }
    let open = places(facts, "sysfs", &SYS_MASKED, "/sys", |_| true);
    if !open.is_empty() {
        all.push(Finding {
            id: "sys-unmasked",
            what: format!("of /sys is not masked: {}", some_of(&open, 6)),
            reach: Reach::None,
            fix: fix(facts),
        });
    }
}

/// Where in the container those of `paths` (below `home` on the host) are reached on a filesystem of
/// this kind whose mount is as `wanted`, by whatever mount of it there is.
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

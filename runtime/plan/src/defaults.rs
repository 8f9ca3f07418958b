// SPDX-License-Identifier: Apache-2.0
//! Defaults of every container: devices, links, and the parts of /proc and /sys that are hidden from it or
//! read-only. One list of each, for pods, for `hull oci`, and for `hull audit`.

use hull_cgroup::{DeviceKind, DeviceRule};
use std::fs;
use std::path::Path;

/// Devices that every container has: path, major, minor. OCI runtime spec, "Default Devices".
pub const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links that every container has: path, content.
pub const LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Character devices that every container may open: major, and minor or all of them. Those of [`DEVICES`], its
/// console (5:1), ptmx (5:2) and the terminals behind that (136).
pub const OPENABLE: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Paths that are hidden in every container: those that containerd, moby and the kubelet hide (August 2026). They
/// show other containers or secrets (kcore, keys, interrupts, latency_stats, timer_list, timer_stats, sched_debug,
/// powercap's energy counters), or act on the machine (acpi, asound, scsi, firmware).
pub const MASKED_PATHS: [&str; 12] = [
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
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that are read-only in every container.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Files of procfs that a bind mount may replace, as with runc: lxcfs shows the container's own limits there.
pub(crate) const REPLACEABLE_IN_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// The kernel's directory of processors.
const CPUS: &str = "/sys/devices/system/cpu";

/// All paths that are hidden in every container on this machine: [`MASKED_PATHS`], and the counts of each
/// processor's thermal throttling, which show the load of others.
#[must_use]
pub fn masked_paths() -> Vec<String> {
    let mut paths: Vec<String> = MASKED_PATHS.iter().map(ToString::to_string).collect();
    paths.extend(thermal_throttle(Path::new(CPUS)));
    paths
}

/// The directories `cpu<N>/thermal_throttle`, of the processors that have one.
fn thermal_throttle(cpus: &Path) -> Vec<String> {
    let is_cpu = |name: &str| {
        let number = name.strip_prefix("cpu").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let mut found: Vec<_> = fs::read_dir(cpus)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_cpu(name) && cpus.join(name).join("thermal_throttle").is_dir())
        .map(|name| format!("{CPUS}/{name}/thermal_throttle"))
        .collect();
    found.sort();
    found
}

/// The device rules around those that a spec has. Before them: nothing is allowed. After them, as the last rule
/// counts: any node may be made (which by itself opens nothing), and [`OPENABLE`] opened. As runc has it, also of
/// a spec without rules.
#[must_use]
pub fn with_device_rules(own: Vec<DeviceRule>) -> Vec<DeviceRule> {
    let rule = |allow, kind, (major, minor), opens| DeviceRule {
        allow,
        kind,
        major,
        minor,
        read: opens,
        write: opens,
        mknod: true,
    };
    let mut rules = vec![rule(false, DeviceKind::All, (None, None), true)];
    rules.extend(own);
    for kind in [DeviceKind::Char, DeviceKind::Block] {
        rules.push(rule(true, kind, (None, None), false));
    }
    for (major, minor) in OPENABLE {
        rules.push(rule(true, DeviceKind::Char, (Some(major), minor), true));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_with_counts_of_throttling_is_hidden() {
        let dir = std::env::temp_dir().join(format!("hull-plan-cpus-{}", std::process::id()));
        for of in
            ["cpu0/thermal_throttle", "cpu11/thermal_throttle", "cpu2", "cpufreq/thermal_throttle"]
        {
            fs::create_dir_all(dir.join(of)).unwrap();
        }
        let found = thermal_throttle(&dir);
        fs::remove_dir_all(&dir).unwrap();
        let at = |cpu: &str| format!("/sys/devices/system/cpu/{cpu}/thermal_throttle");
        assert_eq!(found, [at("cpu0"), at("cpu11")]);
        assert!(thermal_throttle(&dir).is_empty());
        assert!(masked_paths().contains(&"/sys/devices/virtual/powercap".to_owned()));
    }

    #[test]
    fn without_rules_of_its_own_nothing_opens_but_the_defaults() {
        let rules = with_device_rules(Vec::new());
        assert!(!rules[0].allow && rules[0].kind == DeviceKind::All);
        let opens = |rule: &&DeviceRule| rule.allow && (rule.read || rule.write);
        let open: Vec<_> =
            rules.iter().filter(opens).map(|rule| (rule.major, rule.minor)).collect();
        assert_eq!(open, OPENABLE.map(|(major, minor)| (Some(major), minor)));
    }
}

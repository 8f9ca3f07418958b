// SPDX-License-Identifier: Apache-2.0
//! The hierarchies of cgroup v1. `Documentation/admin-guide/cgroup-v1/`.

use crate::cgroup::Cgroup;
use crate::counters::ExitCounters;
use crate::devices;
use crate::error::{CGROUP_V2, Error};
use crate::files::{
    field, is_invalid, mkdir_all, number, read, read_if_there, write, write_each, write_if_there,
    write_in_any_order,
};
use crate::limits::{DeviceKind, DeviceRule, Limits};
use std::os::fd::AsFd as _;
use std::path::Path;

/// Makes `path` below one hierarchy's `root`. A cpuset takes its parent's CPUs and nodes: empty, it
/// would take no process.
pub(crate) fn make(root: &Path, path: &str, cpuset: bool) -> Result<(), Error> {
    let dir = root.join(path);
    let new = mkdir_all(root, &dir)?;
    if cpuset {
        fill_cpuset(root, &dir, new)?;
    }
    Ok(())
}

/// Gives the cpuset at `dir` what its parent has, where it has nothing yet, and before that the
/// parent. Every caller fills an empty one: another that makes the same parent may be between its
/// mkdir and its write.
fn fill_cpuset(root: &Path, dir: &Path, new: bool) -> Result<(), Error> {
    let Some(parent) = dir.parent().filter(|_| dir != root) else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if !new && !read(dir, file)?.trim().is_empty() {
            continue;
        }
        let mut of_parent = read(parent, file)?;
        if of_parent.trim().is_empty() {
            fill_cpuset(root, parent, false)?;
            of_parent = read(parent, file)?;
        }
        write(dir, file, of_parent.trim())?;
    }
    Ok(())
}

pub(crate) fn apply(cgroup: &Cgroup, limits: &Limits) -> Result<(), Error> {
    cpu(cgroup, limits)?;
    memory(cgroup, limits)?;
    if let Some(pids) = limits.pids {
        let value = if pids > 0 { pids.to_string() } else { "max".into() };
        set(cgroup, "pids", "pids.max", &value, pids > 0)?;
    }
    for page in &limits.hugepages {
        let file = format!("hugetlb.{}.limit_in_bytes", page.page_size);
        // The kubelet sends a limit of 0 for every size: without the controller none can be used.
        set(cgroup, "hugetlb", &file, &page.bytes.to_string(), page.bytes > 0)?;
    }
    if let Some(weight) = limits.io_weight {
        let value = weight.to_string();
        let Some(dir) = cgroup.v1("blkio") else {
            return Err(missing("blkio", "blkio.weight", &value));
        };
        if !write_if_there(&dir, "blkio.weight", &value)?
            && !write_if_there(&dir, "blkio.bfq.weight", &value)?
        {
            return Err(missing("blkio", "blkio.weight", &value));
        }
    }
    if !limits.devices.is_empty() {
        limit_devices(cgroup, &limits.devices)?;
    }
    if let Some((key, value)) = limits.unified.first() {
        return Err(missing(CGROUP_V2, key, value));
    }
    Ok(())
}

fn cpu(cgroup: &Cgroup, limits: &Limits) -> Result<(), Error> {
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares > 0) {
        set(cgroup, "cpu", "cpu.shares", &shares.to_string(), true)?;
    }
    bandwidth(cgroup, limits)?;
    if let Some(idle) = limits.cpu_idle {
        set(cgroup, "cpu", "cpu.idle", if idle { "1" } else { "0" }, idle)?;
    }
    for (file, value) in
        [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)]
    {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            set(cgroup, "cpuset", file, value, true)?;
        }
    }
    Ok(())
}

/// Quota, period and burst: the share of each period must fit into the parent's and hold those of children, and the
/// burst must fit into the quota.
fn bandwidth(cgroup: &Cgroup, limits: &Limits) -> Result<(), Error> {
    const QUOTA: &str = "cpu.cfs_quota_us";
    let quota = limits.cpu_quota_us.filter(|quota| *quota != 0);
    let period = limits.cpu_period_us.filter(|period| *period > 0);
    let mut files = Vec::new();
    files.extend(period.map(|period| ("cpu.cfs_period_us", period.to_string())));
    files.extend(quota.map(|quota| (QUOTA, quota.to_string())));
    files.extend(limits.cpu_burst_us.map(|burst| ("cpu.cfs_burst_us", burst.to_string())));
    if files.is_empty() {
        return Ok(());
    }
    let write_all = |dir: &Path| match write_in_any_order(dir, &files) {
        // No order fits between the parent's share and those of children: without a quota it takes any period.
        Err(refused) if is_invalid(&refused) && quota.is_some_and(|quota| quota > 0) => {
            write(dir, QUOTA, "-1")?;
            write_in_any_order(dir, &files)
        }
        other => other,
    };
    let missing_files = match cgroup.v1("cpu") {
        Some(dir) => write_all(&dir)?,
        None => files.iter().map(|(file, _)| *file).collect(),
    };
    let lacks = files.iter().find(|(file, value)| {
        // No quota and no burst are what there is without the file, too.
        missing_files.contains(file) && !matches!(value.as_str(), "-1" | "0")
    });
    lacks.map_or(Ok(()), |(file, value)| Err(missing("cpu", file, value)))
}

/// Memory, and memory with swap, which must never be below it.
fn memory(cgroup: &Cgroup, limits: &Limits) -> Result<(), Error> {
    const MEMORY: &str = "memory.limit_in_bytes";
    const BOTH: &str = "memory.memsw.limit_in_bytes";
    let memory = limits.memory_bytes.filter(|bytes| *bytes != 0);
    let both = limits.memory_swap_bytes.filter(|bytes| *bytes != 0);
    // Memory without a limit is only accepted if that with swap has none either.
    let both = both.or_else(|| memory.filter(|bytes| *bytes < 0));
    let mut files = Vec::new();
    files.extend(both.map(|bytes| (BOTH, bytes.to_string())));
    files.extend(memory.map(|bytes| (MEMORY, bytes.to_string())));
    let dir = cgroup.v1("memory");
    let missing_files = match &dir {
        Some(dir) => write_in_any_order(dir, &files)?,
        None => vec![MEMORY],
    };
    // A kernel without swap accounting has nothing to limit.
    if let Some(bytes) = memory.filter(|bytes| *bytes > 0 && missing_files.contains(&MEMORY)) {
        return Err(missing("memory", MEMORY, &bytes.to_string()));
    }
    if let Some(soft) = limits.memory_reservation_bytes.filter(|soft| *soft > 0) {
        set(cgroup, "memory", "memory.soft_limit_in_bytes", &soft.to_string(), true)?;
    }
    if limits.oom_kill_disable == Some(true) {
        set(cgroup, "memory", "memory.oom_control", "1", true)?;
    }
    Ok(())
}

fn set(
    cgroup: &Cgroup,
    controller: &'static str,
    file: &str,
    value: &str,
    needed: bool,
) -> Result<(), Error> {
    let written = match cgroup.v1(controller) {
        Some(dir) => write_if_there(&dir, file, value)?,
        None => false,
    };
    if written || !needed { Ok(()) } else { Err(missing(controller, file, value)) }
}

fn missing(controller: &'static str, file: &str, value: &str) -> Error {
    Error::NoController { what: format!("{file} to {value}"), controller }
}

fn limit_devices(cgroup: &Cgroup, rules: &[DeviceRule]) -> Result<(), Error> {
    let Some(dir) = cgroup.v1("devices") else {
        // A hybrid host without the v1 controller can still have the program.
        let Some(unified) = cgroup.dir_fd()? else { return Err(missing("devices", "devices", "")) };
        return hull_sys::bpf_cgroup_device(unified.as_fd(), &devices::program(rules))
            .map_err(|source| Error::Devices { path: String::new(), source });
    };
    for some in rules.chunk_by(|one, next| one.allow == next.allow) {
        let file = if some[0].allow { "devices.allow" } else { "devices.deny" };
        write_each(&dir, file, some.iter().flat_map(device_texts))?;
    }
    Ok(())
}

/// A rule as the files take it. To the kernel `a` is every device and every access, whatever stands behind it: a
/// rule for both kinds that is narrower is two rules.
fn device_texts(rule: &DeviceRule) -> Vec<String> {
    let all = (None, None, true, true, true);
    let kinds: &[char] = match rule.kind {
        DeviceKind::All if (rule.major, rule.minor, rule.read, rule.write, rule.mknod) == all => {
            &['a']
        }
        DeviceKind::All => &['b', 'c'],
        DeviceKind::Block => &['b'],
        DeviceKind::Char => &['c'],
    };
    let number = |of: Option<u32>| of.map_or("*".to_owned(), |of| of.to_string());
    let mut access = String::new();
    for (on, letter) in [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')] {
        if on {
            access.push(letter);
        }
    }
    let text = |kind| format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor));
    kinds.iter().map(text).collect()
}

pub(crate) fn exit_counters(cgroup: &Cgroup) -> Result<ExitCounters, Error> {
    let text = |controller: &str, file: &str| match cgroup.v1(controller) {
        Some(dir) => read_if_there(&dir, file),
        None => Ok(None),
    };
    let oom = text("memory", "memory.oom_control")?.unwrap_or_default();
    let peak = text("memory", "memory.max_usage_in_bytes")?;
    let pids = text("pids", "pids.events")?.unwrap_or_default();
    Ok(ExitCounters {
        oom_kills: field(&oom, "oom_kill").unwrap_or(0),
        memory_peak_bytes: peak.as_deref().and_then(number),
        pids_refused: field(&pids, "max").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_rules_read_as_the_kernel_wants_them() {
        let rule = DeviceRule {
            allow: true,
            kind: DeviceKind::Char,
            major: Some(1),
            minor: None,
            read: true,
            write: true,
            mknod: false,
        };
        assert_eq!(device_texts(&rule), ["c 1:* rw"]);
        let both = DeviceRule { kind: DeviceKind::All, ..rule.clone() };
        assert_eq!(device_texts(&both), ["b 1:* rw", "c 1:* rw"], "not all that there is");
        let all = DeviceRule { major: None, mknod: true, ..both.clone() };
        assert_eq!(device_texts(&all), ["a *:* rwm"]);
        assert_eq!(device_texts(&DeviceRule { write: false, ..all })[0], "b *:* rm");
    }
}

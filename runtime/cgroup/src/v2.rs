// SPDX-License-Identifier: Apache-2.0
//! The unified hierarchy. `Documentation/admin-guide/cgroup-v2.rst`.

use crate::counters::ExitCounters;
use crate::devices;
use crate::error::{Error, is, libc_errno};
use crate::files::{
    field, mkdir_all, number, read, read_if_there, write, write_if_there, write_in_any_order,
};
use crate::limits::Limits;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::chown;
use std::path::Path;

/// Controllers handed down to containers, where the host has them.
const WANTED: [&str; 7] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma"];

/// Makes `path` below `root`, with its parents, and hands the controllers down to it.
pub(crate) fn make(root: &Path, path: &str, with_controllers: bool) -> Result<(), Error> {
    let dir = root.join(path);
    mkdir_all(root, &dir)?;
    if !with_controllers {
        return Ok(());
    }
    let have = read(&dir, "cgroup.controllers")?;
    let of_root = read(root, "cgroup.controllers")?;
    let has = |text: &str, name: &str| text.split_whitespace().any(|word| word == name);
    let missing: Vec<_> =
        WANTED.into_iter().filter(|name| has(&of_root, name) && !has(&have, name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let order = missing.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    let mut at = root.to_owned();
    for part in path.split('/') {
        write(&at, "cgroup.subtree_control", &order)?;
        at.push(part);
    }
    Ok(())
}

/// Files that the owner of a delegated cgroup may write, where the kernel does not list them itself.
const DELEGATED: &str = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n";
/// Most cgroups that a container may make below its own.
pub const DESCENDANTS_MAX: u32 = 1024;
/// Deepest cgroup that a container may make below its own.
pub const DEPTH_MAX: u32 = 32;
/// The kernel's own list, Linux 4.15.
const DELEGATED_LIST: &str = "/sys/kernel/cgroup/delegate";

pub(crate) fn delegate(dir: &Path, uid: u32, gid: u32) -> Result<(), Error> {
    let list = std::fs::read_to_string(DELEGATED_LIST).unwrap_or_else(|_| DELEGATED.to_owned());
    // The directory first: in it cgroups are made.
    for file in std::iter::once("").chain(list.lines()) {
        let path = dir.join(file);
        match chown(&path, Some(uid), Some(gid)) {
            Ok(()) => {}
            // Of a controller that is not on here.
            Err(err) if is(&err, libc_errno::ENOENT) => {}
            Err(source) => return Err(Error::Delegate { path, source }),
        }
    }
    // Each cgroup costs the kernel some KiB, and every walk some time.
    for (file, most) in
        [("cgroup.max.descendants", DESCENDANTS_MAX), ("cgroup.max.depth", DEPTH_MAX)]
    {
        write(dir, file, &most.to_string())?;
    }
    Ok(())
}

pub(crate) fn apply(dir: &Path, path: &str, limits: &Limits) -> Result<(), Error> {
    cpu(dir, limits)?;
    memory(dir, limits)?;
    if let Some(pids) = limits.pids {
        let value = if pids > 0 { pids.to_string() } else { "max".into() };
        set(dir, "pids.max", &value, "pids", pids > 0)?;
    }
    for page in &limits.hugepages {
        let value = page.bytes.to_string();
        for file in ["max", "rsvd.max"] {
            let name = format!("hugetlb.{}.{file}", page.page_size);
            // The kubelet sends a limit of 0 for every size: without the controller none can be used.
            set(dir, &name, &value, "hugetlb", page.bytes > 0 && file == "max")?;
        }
    }
    if let Some(weight) = limits.io_weight {
        set(dir, "io.weight", &io_weight(weight).to_string(), "io", true)?;
    }
    if !limits.devices.is_empty() {
        limit_devices(dir, path, limits)?;
    }
    for (key, value) in &limits.unified {
        if key.contains('/') || key.starts_with('.') || !key.contains('.') {
            return Err(Error::BadKey { key: key.clone() });
        }
        write(dir, key, value)?;
    }
    Ok(())
}

fn cpu(dir: &Path, limits: &Limits) -> Result<(), Error> {
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares > 0) {
        set(dir, "cpu.weight", &cpu_weight(shares).to_string(), "cpu", true)?;
    }
    if let Some(idle) = limits.cpu_idle {
        set(dir, "cpu.idle", if idle { "1" } else { "0" }, "cpu", idle)?;
    }
    bandwidth(dir, limits)?;
    for (file, value) in
        [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)]
    {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            set(dir, file, value, "cpuset", true)?;
        }
    }
    Ok(())
}

/// Quota with its period, and burst, which must fit into the quota.
fn bandwidth(dir: &Path, limits: &Limits) -> Result<(), Error> {
    let quota = limits.cpu_quota_us.filter(|quota| *quota != 0);
    let period = limits.cpu_period_us.filter(|period| *period > 0);
    let mut files = Vec::new();
    if quota.is_some() || period.is_some() {
        let quota = match quota {
            Some(quota) if quota > 0 => quota.to_string(),
            Some(_) => "max".to_owned(),
            // A new period alone leaves the quota as it is.
            None => first_word(dir, "cpu.max")?.unwrap_or_else(|| "max".to_owned()),
        };
        let value = match period {
            Some(period) => format!("{quota} {period}"),
            None => quota,
        };
        files.push(("cpu.max", value));
    }
    files.extend(limits.cpu_burst_us.map(|burst| ("cpu.max.burst", burst.to_string())));
    let missing = write_in_any_order(dir, &files)?;
    let lacks = files.iter().find(|(file, value)| missing.contains(file) && value != "0");
    lacks.map_or(Ok(()), |(file, value)| {
        Err(Error::NoController { what: format!("{file} to {value}"), controller: "cpu" })
    })
}

fn first_word(dir: &Path, file: &str) -> Result<Option<String>, Error> {
    let text = read_if_there(dir, file)?;
    Ok(text.as_deref().and_then(|text| text.split_whitespace().next()).map(str::to_owned))
}

fn memory(dir: &Path, limits: &Limits) -> Result<(), Error> {
    let shown = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
    if let Some(bytes) = limits.memory_bytes.filter(|bytes| *bytes != 0) {
        set(dir, "memory.max", &shown(bytes), "memory", bytes > 0)?;
    }
    if let Some(both) = limits.memory_swap_bytes.filter(|both| *both != 0) {
        // OCI counts memory and swap together, v2 swap alone. With a new sum alone, the memory stays as it is.
        let of_memory = match limits.memory_bytes.filter(|bytes| *bytes != 0) {
            None => first_word(dir, "memory.max")?.and_then(|word| word.parse().ok()),
            given => given,
        };
        let swap = match of_memory {
            _ if both < 0 => -1,
            Some(memory) if memory > 0 => (both - memory).max(0),
            _ => both,
        };
        // A kernel without swap accounting has nothing to limit.
        write_if_there(dir, "memory.swap.max", &shown(swap))?;
    }
    if let Some(low) = limits.memory_reservation_bytes.filter(|low| *low > 0) {
        set(dir, "memory.low", &low.to_string(), "memory", true)?;
    }
    Ok(())
}

/// Writes a limit. A missing file is an error when the limit was really asked for.
fn set(
    dir: &Path,
    file: &str,
    value: &str,
    controller: &'static str,
    needed: bool,
) -> Result<(), Error> {
    if write_if_there(dir, file, value)? || !needed {
        return Ok(());
    }
    Err(Error::NoController { what: format!("{file} to {value}"), controller })
}

fn limit_devices(dir: &Path, path: &str, limits: &Limits) -> Result<(), Error> {
    let opened = File::open(dir).map_err(|source| Error::Read { path: dir.to_owned(), source })?;
    hull_sys::bpf_cgroup_device(opened.as_fd(), &devices::program(&limits.devices))
        .map_err(|source| Error::Devices { path: path.to_owned(), source })
}

/// v1's shares (2..=262144, default 1024) as v2's weight (1..=10000, default 100): the quadratic
/// curve through all three points that the field's runtimes agreed on in 2025, so that a default
/// stays a default.
#[must_use]
pub fn cpu_weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    #[allow(clippy::cast_precision_loss, reason = "at most 262144, exact")]
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 10000"
    )]
    let weight = 10f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}

/// v1's blkio weight (10..=1000) as v2's io weight (1..=10000), linear.
fn io_weight(weight: u16) -> u64 {
    let weight = u64::from(weight.clamp(10, 1000));
    1 + (weight - 10) * 9_999 / 990
}

pub(crate) fn exit_counters(dir: &Path) -> Result<ExitCounters, Error> {
    let events = read_if_there(dir, "memory.events")?.unwrap_or_default();
    let peak = read_if_there(dir, "memory.peak")?;
    let pids = read_if_there(dir, "pids.events")?.unwrap_or_default();
    Ok(ExitCounters {
        oom_kills: field(&events, "oom_kill").unwrap_or(0),
        memory_peak_bytes: peak.as_deref().and_then(number),
        pids_refused: field(&pids, "max").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_shares_are_the_default_weight() {
        assert_eq!(cpu_weight(1024), 100);
        assert_eq!(cpu_weight(2), 1);
        assert_eq!(cpu_weight(262_144), 10_000);
        let weights: Vec<_> = (2..262_144).step_by(500).map(cpu_weight).collect();
        assert!(
            weights.windows(2).all(|pair| pair[0] <= pair[1]),
            "more shares, never less weight"
        );
    }

    #[test]
    fn io_weights_span_the_range() {
        assert_eq!((io_weight(10), io_weight(1000)), (1, 10_000));
    }
}

// SPDX-License-Identifier: Apache-2.0
//! CRI resources to OCI resources, and the update of some of them.

use super::Error;
use ::oci_spec::runtime::LinuxResources;
use hull_plan::Limits;
use hull_proto::cri;
use serde_json::{Map, Value, json};

/// As in the OCI spec. CRI's 0 and empty mean "not limited", and are left out.
pub(super) fn oci(resources: &cri::LinuxContainerResources) -> Value {
    let mut cpu = Map::new();
    let mut put = |key: &str, value: i64| {
        if value != 0 {
            cpu.insert(key.into(), value.into());
        }
    };
    put("shares", resources.cpu_shares.max(0));
    put("quota", resources.cpu_quota);
    put("period", resources.cpu_period.max(0));
    for (key, text) in [("cpus", &resources.cpuset_cpus), ("mems", &resources.cpuset_mems)] {
        if !text.is_empty() {
            cpu.insert(key.into(), text.clone().into());
        }
    }
    let mut memory = Map::new();
    if resources.memory_limit_in_bytes != 0 {
        memory.insert("limit".into(), resources.memory_limit_in_bytes.into());
    }
    if resources.memory_swap_limit_in_bytes != 0 {
        memory.insert("swap".into(), resources.memory_swap_limit_in_bytes.into());
    }
    let pages: Vec<_> = resources
        .hugepage_limits
        .iter()
        .map(|page| {
            let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
            json!({"pageSize": page.page_size, "limit": limit})
        })
        .collect();
    let mut all = json!({"cpu": cpu, "memory": memory, "hugepageLimits": pages});
    let mut unified = resources.unified.clone();
    // CRI has no field for it; its value is a number or `max`, which cgroups of version 1 have as well.
    let pids = unified.get(PIDS_MAX).map(|text| match text.as_str() {
        "max" => Ok(-1),
        number => number.parse::<i64>(),
    });
    if let Some(Ok(limit)) = pids {
        unified.remove(PIDS_MAX);
        all["pids"] = json!({"limit": limit});
    }
    if !unified.is_empty() {
        all["unified"] = json!(unified);
    }
    all
}

/// The file of cgroup v2 with the limit of processes.
const PIDS_MAX: &str = "pids.max";

/// Values of `/proc/pid/oom_score_adj`, `proc_pid_oom_score_adj(5)`.
const OOM_SCORES: std::ops::RangeInclusive<i64> = -1000..=1000;

/// The score that is asked for; the kernel refuses others only when the process is made. CPUs and memory nodes are
/// checked with it.
pub(super) fn oom_score(resources: &cri::LinuxContainerResources) -> Result<i64, Error> {
    check_list("cpuset_cpus", &resources.cpuset_cpus)?;
    check_list("cpuset_mems", &resources.cpuset_mems)?;
    check_oom_score(resources.oom_score_adj)
}

/// The kernel reads a list only up to the end of a line. `cpuset(7)`, list format.
fn check_list(field: &'static str, list: &str) -> Result<(), Error> {
    if list.bytes().all(|byte| byte.is_ascii_digit() || b",-:/".contains(&byte)) {
        return Ok(());
    }
    let why = "it is not a list of numbers and ranges, such as 0-3,7";
    Err(Error::Bad { field, value: list.to_owned(), why })
}

/// Refuses a score that the kernel does not accept.
pub(crate) fn check_oom_score(score: i64) -> Result<i64, Error> {
    if OOM_SCORES.contains(&score) {
        return Ok(score);
    }
    let why = "it is not between -1000 and 1000";
    Err(Error::Bad { field: "oom_score_adj", value: score.to_string(), why })
}

/// The cgroup limits of an update.
pub(crate) fn limits(resources: &cri::LinuxContainerResources) -> Result<Limits, Error> {
    oom_score(resources)?;
    let oci: LinuxResources =
        serde_json::from_value(oci(resources)).map_err(|source| Error::Form { source })?;
    hull_plan::limits(&oci).map_err(|source| Error::Limits { source })
}

/// CPU shares that the kernel has: it takes others for the nearest of these.
const SHARES: std::ops::RangeInclusive<i64> = 2..=262_144;

/// Merges an update into the current limits, as they hold then. 0 and empty values, and a negative number where there
/// is none to have, change nothing.
pub(crate) fn merge_resources(
    have: &mut cri::LinuxContainerResources,
    update: &cri::LinuxContainerResources,
) {
    let shares = update.cpu_shares;
    let shares = if shares > 0 { shares.clamp(*SHARES.start(), *SHARES.end()) } else { 0 };
    for (have, new) in [
        (&mut have.cpu_period, update.cpu_period.max(0)),
        (&mut have.cpu_quota, update.cpu_quota.max(-1)),
        (&mut have.cpu_shares, shares),
        (&mut have.memory_limit_in_bytes, update.memory_limit_in_bytes),
        (&mut have.oom_score_adj, update.oom_score_adj),
        (&mut have.memory_swap_limit_in_bytes, update.memory_swap_limit_in_bytes),
    ] {
        if new != 0 {
            *have = new;
        }
    }
    for (have, new) in
        [(&mut have.cpuset_cpus, &update.cpuset_cpus), (&mut have.cpuset_mems, &update.cpuset_mems)]
    {
        if !new.is_empty() {
            have.clone_from(new);
        }
    }
    if !update.hugepage_limits.is_empty() {
        have.hugepage_limits.clone_from(&update.hugepage_limits);
    }
    have.unified.extend(update.unified.clone());
}

// SPDX-License-Identifier: Apache-2.0
//! The limits of `hull run` and `hull update` as a message of CRI. Pure.

use super::args::run_parts::Limits;
use super::error::{Error, Result};
use super::parse;
use hull_proto::cri as api;

/// The limits as a message of CRI; what was not given is 0 or empty there.
pub(crate) fn resources(limits: &Limits) -> Result<api::LinuxContainerResources> {
    let mut resources = api::LinuxContainerResources {
        cpu_shares: limits.cpu_shares.unwrap_or(0),
        cpu_period: limits.cpu_period.unwrap_or(0),
        cpu_quota: limits.cpu_quota.unwrap_or(0),
        cpuset_cpus: limits.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: limits.cpuset_mems.clone().unwrap_or_default(),
        ..Default::default()
    };
    if let Some(memory) = &limits.memory {
        resources.memory_limit_in_bytes = parse::memory(memory)?;
    }
    if let Some(swap) = &limits.memory_swap {
        resources.memory_swap_limit_in_bytes = match swap.as_str() {
            "-1" => -1,
            size => parse::size("--memory-swap", size)?,
        };
        let least = resources.memory_limit_in_bytes;
        let total = resources.memory_swap_limit_in_bytes;
        let why = match (least, total) {
            (0, _) => "it needs --memory",
            (least, total) if total != -1 && total < least => {
                "it is less than --memory, which it includes"
            }
            _ => "",
        };
        if !why.is_empty() {
            let (flag, why) = ("--memory-swap", why.to_owned());
            return Err(Error::BadFlag { flag, value: swap.clone(), why });
        }
    }
    if let Some(cpus) = &limits.cpus {
        resources.cpu_quota = parse::cpus(cpus)?;
        // A small constant.
        resources.cpu_period = i64::try_from(parse::CPU_PERIOD_US).unwrap_or_default();
    }
    if let Some(count) = limits.pids_limit {
        // The name of cgroup v2, which the daemon translates for v1.
        let value = if count < 0 { "max".to_owned() } else { count.to_string() };
        resources.unified.insert("pids.max".into(), value);
    }
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory: Option<&str>, swap: Option<&str>) -> Result<api::LinuxContainerResources> {
        resources(&Limits {
            memory: memory.map(str::to_owned),
            memory_swap: swap.map(str::to_owned),
            ..Limits::default()
        })
    }

    #[test]
    fn swap_is_counted_with_memory() {
        assert_eq!(
            limits(Some("64m"), Some("128m")).unwrap().memory_swap_limit_in_bytes,
            128 << 20
        );
        assert_eq!(limits(Some("64m"), Some("-1")).unwrap().memory_swap_limit_in_bytes, -1);
        assert!(limits(None, Some("1g")).is_err());
        assert!(limits(Some("64m"), Some("32m")).is_err());
    }
}

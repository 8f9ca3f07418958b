// SPDX-License-Identifier: Apache-2.0
//! OCI resources to cgroup limits.

use crate::{Error, unsupported};
use hull_cgroup::{DeviceKind, DeviceRule, HugepageLimit, Limits};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

/// The limits in `resources`; limits that it does not have stay as they are.
pub fn limits(resources: &LinuxResources) -> Result<Limits, Error> {
    unsupported::refuse_limits(resources)?;
    let mut limits = Limits::default();
    if let Some(cpu) = resources.cpu() {
        limits.cpu_shares = cpu.shares();
        limits.cpu_quota_us = cpu.quota();
        limits.cpu_period_us = cpu.period();
        limits.cpu_burst_us = cpu.burst();
        limits.cpu_idle = cpu.idle().map(idle).transpose()?;
        limits.cpuset_cpus.clone_from(cpu.cpus());
        limits.cpuset_mems.clone_from(cpu.mems());
    }
    if let Some(memory) = resources.memory() {
        limits.memory_bytes = memory.limit();
        limits.memory_swap_bytes = memory.swap();
        limits.memory_reservation_bytes = memory.reservation();
        limits.oom_kill_disable = memory.disable_oom_killer();
    }
    // With runc 0 is the fewest that there can be, and not none.
    let pids = resources.pids().as_ref().map(|pids| pids.limit());
    limits.pids = pids.map(|pids| if pids == 0 { 1 } else { pids });
    for page in resources.hugepage_limits().iter().flatten() {
        let bytes = u64::try_from(page.limit()).map_err(|_| Error::Bad {
            field: "linux.resources.hugepageLimits",
            value: page.limit().to_string(),
            why: "it is negative",
        })?;
        limits.hugepages.push(HugepageLimit { page_size: page.page_size().clone(), bytes });
    }
    // Docker sends 0 for a container without one.
    let weight = resources.block_io().as_ref().and_then(|io| io.weight());
    limits.io_weight = weight.filter(|weight| *weight != 0);
    for rule in resources.devices().iter().flatten() {
        limits.devices.push(device(rule)?);
    }
    if let Some(unified) = resources.unified() {
        limits.unified = unified.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        limits.unified.sort();
    }
    Ok(limits)
}

fn idle(value: i64) -> Result<bool, Error> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::Bad {
            field: "linux.resources.cpu.idle",
            value: other.to_string(),
            why: "it is 0 or 1",
        }),
    }
}

fn device(rule: &LinuxDeviceCgroup) -> Result<DeviceRule, Error> {
    let access = rule.access().clone().unwrap_or_else(|| "rwm".into());
    // `a` is the letter of all devices, which some callers write here too; runc passes over it.
    if let Some(bad) = access.chars().find(|letter| !"rwma".contains(*letter)) {
        return Err(Error::Bad {
            field: "linux.resources.devices.access",
            value: bad.to_string(),
            why: "letters are r, w and m",
        });
    }
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => DeviceKind::All,
        Some(LinuxDeviceType::B) => DeviceKind::Block,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Char,
        Some(LinuxDeviceType::P) => {
            return Err(Error::Bad {
                field: "linux.resources.devices.type",
                value: "p".into(),
                why: "a FIFO is not a device that can be limited",
            });
        }
    };
    Ok(DeviceRule {
        allow: rule.allow(),
        kind,
        major: number(rule.major())?,
        minor: number(rule.minor())?,
        read: access.contains('r'),
        write: access.contains('w'),
        mknod: access.contains('m'),
    })
}

/// A device number; none and -1 are any.
fn number(of: Option<i64>) -> Result<Option<u32>, Error> {
    let Some(of) = of.filter(|of| *of != -1) else { return Ok(None) };
    u32::try_from(of).map(Some).map_err(|_| Error::Bad {
        field: "linux.resources.devices",
        value: of.to_string(),
        why: "it is not a device number",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_sends_for_none_sets_nothing() {
        let resources = r#"{"blockIO":{"weight":0,"leafWeight":0},"network":{"classID":0},
            "cpu":{"realtimeRuntime":0},"memory":{"disableOOMKiller":false}}"#;
        let limits = limits(&serde_json::from_str(resources).unwrap()).unwrap();
        let none = Limits { oom_kill_disable: Some(false), ..Limits::default() };
        assert_eq!(limits, none);
    }

    #[test]
    fn a_number_that_is_none_is_not_any_device() {
        assert_eq!(number(None).unwrap(), None);
        assert_eq!(number(Some(-1)).unwrap(), None);
        assert_eq!(number(Some(7)).unwrap(), Some(7));
        number(Some(-2)).unwrap_err();
        number(Some(1 << 32)).unwrap_err();
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Isolation of a container, read from outside, so that no runtime is fast because it leaves some of it out.
//!
//! Checked in every run, for every target, before anything is timed. Missing isolation is printed below the table.

use crate::target::{CPU_QUOTA_US, MASKED, MEMORY_BYTES, Network, READ_ONLY, Target};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Namespaces that a container and its pod have for themselves.
const NAMESPACES: [&str; 5] = ["mnt", "pid", "net", "ipc", "uts"];
/// Capabilities of a container that asks for none: those that Docker once chose, by kernel number:
/// chown, `dac_override`, fowner, fsetid, kill, setgid, setuid, setpcap, `net_bind_service`, `net_raw`,
/// `sys_chroot`, mknod, `audit_write`, setfcap. Runtimes leave some of them away, never add any.
const CAPABILITIES_MAX: u64 = 0xa804_25fb;

/// Parts of the requested isolation that a container lacks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MissingIsolation(pub BTreeSet<String>);

/// Runs a pod like those that are measured, and checks it.
///
/// # Errors
/// The pod does not run, or the runtime does not report its process id.
pub async fn check(target: &Target) -> Result<MissingIsolation> {
    let up = target.up(Network::Pod).await?;
    let info =
        target.cri.inspect(&up.container).await.map_err(crate::error::verb("ContainerStatus"))?;
    let what = "the process id (`info.info.pid`)";
    let no_pid = Error::Answer { verb: "ContainerStatus", what };
    let pid = crate::memory::pid_in_info(&info.info).ok_or(no_pid)?;
    let missing = of_process(pid)?;
    target.down(&up).await?;
    Ok(missing)
}

/// The isolation that the process `pid` lacks.
///
/// # Errors
/// The process has ended.
pub fn of_process(pid: i32) -> Result<MissingIsolation> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let mut missing = MissingIsolation::default();
    for name in NAMESPACES {
        let of = |dir: &Path| fs::read_link(dir.join("ns").join(name)).ok();
        missing.require(of(&proc) != of(Path::new("/proc/self")), || format!("a {name} namespace"));
    }
    let status = read(&proc.join("status"))?;
    let field = |key: &str| {
        status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned()
    };
    missing.require(field("Seccomp:") == "2", || "a seccomp filter".into());
    for set in ["CapEff:", "CapBnd:", "CapPrm:"] {
        let held = u64::from_str_radix(&field(set), 16).unwrap_or(u64::MAX);
        let more = held & !CAPABILITIES_MAX;
        missing.require(more == 0, || format!("dropped capabilities ({set} has {more:#x} more)"));
    }
    mounts(&mut missing, &proc)?;
    cgroups(&mut missing, &proc)?;
    Ok(missing)
}

impl MissingIsolation {
    fn require(&mut self, has: bool, what: impl FnOnce() -> String) {
        if !has {
            self.0.insert(what());
        }
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::File {
        act: "read",
        path: path.to_owned(),
        source,
    })
}

/// Masked and read-only paths, and a root of its own.
fn mounts(missing: &mut MissingIsolation, proc: &Path) -> Result<()> {
    let text = read(&proc.join("mountinfo"))?;
    // Where, and how it is mounted.
    let mounts: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(4);
            Some((fields.next()?, fields.next()?))
        })
        .collect();
    let mounted = |path: &str| mounts.iter().rev().find(|(at, _)| *at == path);
    // What this kernel does not have cannot be masked.
    let is_there = |path: &&&str| Path::new(path).try_exists().unwrap_or(false);
    for path in MASKED.iter().filter(is_there) {
        missing.require(mounted(path).is_some(), || format!("a mask on {path}"));
    }
    for path in READ_ONLY.iter().filter(is_there) {
        let read_only =
            mounted(path).is_some_and(|(_, how)| how.split(',').any(|word| word == "ro"));
        missing.require(read_only, || format!("{path} read-only"));
    }
    for path in ["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"] {
        missing.require(mounted(path).is_some(), || format!("a mount on {path}"));
    }
    Ok(())
}

/// The limits, in the cgroups that the process is in.
fn cgroups(missing: &mut MissingIsolation, proc: &Path) -> Result<()> {
    let text = read(&proc.join("cgroup"))?;
    let hierarchies = hull_tests::host::hierarchies();
    let value = |file: &str| {
        text.lines().find_map(|line| {
            let path = line.splitn(3, ':').nth(2)?.trim_start_matches('/');
            let dir = hierarchies.iter().map(|mount| mount.join(path).join(file));
            dir.filter_map(|file| fs::read_to_string(file).ok()).next()
        })
    };
    let memory = value("memory.limit_in_bytes").or_else(|| value("memory.max"));
    let limit = memory.and_then(|text| text.trim().parse::<i64>().ok());
    missing.require(limit == Some(MEMORY_BYTES), || format!("the memory limit (it is {limit:?})"));
    let cpu = value("cpu.cfs_quota_us").or_else(|| value("cpu.max"));
    let quota = cpu.and_then(|text| text.split_whitespace().next()?.parse::<i64>().ok());
    missing.require(quota == Some(CPU_QUOTA_US), || format!("the CPU limit (it is {quota:?})"));
    let devices = value("devices.list");
    missing.require(!devices.is_some_and(|list| list.starts_with("a *:* rwm")), || {
        "a device list".into()
    });
    Ok(())
}

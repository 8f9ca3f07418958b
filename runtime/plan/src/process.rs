// SPDX-License-Identifier: Apache-2.0
//! What a process becomes, of a container's first and of execs.

use crate::{Error, HostFacts, Process, capabilities, schedule, seccomp};
use hull_init::plan::{Capabilities, Rlimit};
use oci_spec::runtime::{LinuxCapabilities, PosixRlimit, PosixRlimitType, Process as Oci, Spec};

/// `process` as a plan wants it; the seccomp profile is the container's.
pub fn process(process: &Oci, spec: &Spec, host: &HostFacts) -> Result<Process, Error> {
    let args = process.args().clone().unwrap_or_default();
    if args.is_empty() {
        return Err(Error::Missing { field: "process.args" });
    }
    let cwd = process.cwd().to_string_lossy().into_owned();
    if !cwd.starts_with('/') {
        return Err(Error::Bad { field: "process.cwd", value: cwd, why: "it is no absolute path" });
    }
    for (module, label, there) in [
        ("AppArmor", process.apparmor_profile(), host.apparmor),
        ("SELinux", process.selinux_label(), host.selinux),
    ] {
        if let (Some(label), false) = (label.as_ref().filter(|label| !label.is_empty()), there) {
            return Err(Error::NoModule { module, label: label.clone() });
        }
    }
    let named = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let bytes = |text: &String| text.clone().into_bytes();
    Ok(Process {
        args: args.iter().map(bytes).collect(),
        env: process.env().iter().flatten().map(bytes).collect(),
        cwd,
        uid: process.user().uid(),
        gid: process.user().gid(),
        groups: process.user().additional_gids().clone().unwrap_or_default(),
        umask: process.user().umask(),
        capabilities: sets(process.capabilities().as_ref()),
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        seccomp: filter.map(seccomp::compiled).transpose()?,
        apparmor: named(process.apparmor_profile()),
        selinux: named(process.selinux_label()),
        rlimits: process.rlimits().iter().flatten().map(rlimit).collect(),
        oom_score_adj: process.oom_score_adj(),
        terminal: process
            .console_size()
            .as_ref()
            .map(|size| (short(size.height()), short(size.width()))),
        io_priority: process.io_priority().as_ref().map(schedule::io_priority).transpose()?,
        scheduler: process.scheduler().as_ref().map(schedule::scheduler).transpose()?,
        personality: None,
    })
}

fn short(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

fn sets(sets: Option<&LinuxCapabilities>) -> Capabilities {
    let Some(sets) = sets else { return Capabilities::default() };
    Capabilities {
        bounding: capabilities::bits(sets.bounding().as_ref()),
        effective: capabilities::bits(sets.effective().as_ref()),
        inheritable: capabilities::bits(sets.inheritable().as_ref()),
        permitted: capabilities::bits(sets.permitted().as_ref()),
        ambient: capabilities::bits(sets.ambient().as_ref()),
    }
}

fn rlimit(limit: &PosixRlimit) -> Rlimit {
    use PosixRlimitType as Type;
    let resource = match limit.typ() {
        Type::RlimitCpu => 0,
        Type::RlimitFsize => 1,
        Type::RlimitData => 2,
        Type::RlimitStack => 3,
        Type::RlimitCore => 4,
        Type::RlimitRss => 5,
        Type::RlimitNproc => 6,
        Type::RlimitNofile => 7,
        Type::RlimitMemlock => 8,
        Type::RlimitAs => 9,
        Type::RlimitLocks => 10,
        Type::RlimitSigpending => 11,
        Type::RlimitMsgqueue => 12,
        Type::RlimitNice => 13,
        Type::RlimitRtprio => 14,
        Type::RlimitRttime => 15,
    };
    Rlimit { resource, soft: limit.soft(), hard: limit.hard() }
}

// SPDX-License-Identifier: Apache-2.0
//! The process of a plan, for a container's first process and for execs.

use crate::accounts::ID_MAX;
use crate::{Error, HostFacts, Process, capabilities, schedule, seccomp};
use hull_init::plan::{Capabilities, Rlimit, Seccomp};
use oci_spec::runtime::{
    LinuxCapabilities, LinuxPersonalityDomain, PosixRlimit, PosixRlimitType, Process as Oci, Spec,
};
use std::sync::Arc;

/// The common part of all execs of a container. Built once: building it for every probe would cost more than the
/// probe itself. Its seccomp program is shared with all containers that have the same profile.
#[derive(Debug, Clone)]
pub struct Template {
    process: Process,
    seccomp: Option<Arc<Seccomp>>,
}

impl Template {
    /// The template for the container of `spec`.
    pub fn new(spec: &Spec, host: &HostFacts) -> Result<Self, Error> {
        let own = spec.process().as_ref().ok_or(Error::Missing { field: "process" })?;
        let mut process = unfiltered(own, spec, host)?;
        process.args.clear();
        Ok(Self { process, seccomp: filter(spec)? })
    }

    /// The template with the attributes of the process that a container's plan starts.
    #[must_use]
    pub fn of(mut process: Process) -> Self {
        process.args.clear();
        let seccomp = process.seccomp.take().map(Arc::new);
        Self { process, seccomp }
    }

    /// Whether a seccomp profile confines it.
    #[must_use]
    pub fn is_confined(&self) -> bool {
        self.seccomp.is_some()
    }

    /// The process that runs `args`.
    #[must_use]
    pub fn with(&self, args: &[String]) -> Process {
        let mut process = self.process.clone();
        process.args = args.iter().map(|arg| arg.clone().into_bytes()).collect();
        process.seccomp = self.seccomp.as_deref().cloned();
        process
    }
}

/// `process` for a plan; the seccomp profile is the container's.
pub fn process(process: &Oci, spec: &Spec, host: &HostFacts) -> Result<Process, Error> {
    let seccomp = filter(spec)?.as_deref().cloned();
    Ok(Process { seccomp, ..unfiltered(process, spec, host)? })
}

fn filter(spec: &Spec) -> Result<Option<Arc<Seccomp>>, Error> {
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    profile.map(seccomp::shared).transpose()
}

fn unfiltered(process: &Oci, spec: &Spec, host: &HostFacts) -> Result<Process, Error> {
    let args = process.args().clone().unwrap_or_default();
    if args.is_empty() {
        return Err(Error::Missing { field: "process.args" });
    }
    let cwd = process.cwd().to_string_lossy().into_owned();
    if !cwd.starts_with('/') {
        return Err(Error::Bad {
            field: "process.cwd",
            value: cwd,
            why: "it is not an absolute path",
        });
    }
    for (module, label, there) in [
        ("AppArmor", process.apparmor_profile(), host.apparmor),
        ("SELinux", process.selinux_label(), host.selinux),
    ] {
        if let (Some(label), false) = (label.as_ref().filter(|label| !label.is_empty()), there) {
            return Err(Error::NoModule { module, label: label.clone() });
        }
    }
    let user = process.user();
    let groups = user.additional_gids().clone().unwrap_or_default();
    // The number above is "leave it as it is" to setresuid(2): that would be root.
    if let Some(id) = [user.uid(), user.gid()].iter().chain(&groups).find(|id| **id > ID_MAX) {
        return Err(Error::Bad {
            field: "process.user",
            value: id.to_string(),
            why: "it stands for no id to the kernel",
        });
    }
    let named = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    let bytes = |text: &String| text.clone().into_bytes();
    Ok(Process {
        args: args.iter().map(bytes).collect(),
        env: process.env().iter().flatten().map(bytes).collect(),
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        groups,
        umask: user.umask(),
        capabilities: sets(process.capabilities().as_ref()),
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        seccomp: None,
        apparmor: named(process.apparmor_profile()),
        selinux: named(process.selinux_label()),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        oom_score_adj: process.oom_score_adj(),
        terminal: process
            .console_size()
            .as_ref()
            .map(|size| (short(size.height()), short(size.width()))),
        io_priority: process.io_priority().as_ref().map(schedule::io_priority).transpose()?,
        scheduler: process.scheduler().as_ref().map(schedule::scheduler).transpose()?,
        personality: personality(spec),
    })
}

fn personality(spec: &Spec) -> Option<u64> {
    let wanted = spec.linux().as_ref()?.personality().as_ref()?;
    Some(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
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

fn rlimits(limits: &[PosixRlimit]) -> Result<Vec<Rlimit>, Error> {
    for (at, limit) in limits.iter().enumerate() {
        if limits[..at].iter().any(|before| before.typ() == limit.typ()) {
            return Err(Error::Bad {
                field: "process.rlimits",
                value: limit.typ().to_string(),
                why: "it is there twice",
            });
        }
        if limit.soft() > limit.hard() {
            return Err(Error::Bad {
                field: "process.rlimits",
                value: limit.typ().to_string(),
                why: "its soft limit is above its hard limit",
            });
        }
    }
    Ok(limits.iter().map(rlimit).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_soft_limit_is_not_above_the_hard_one() {
        let of = |soft: u64, hard: u64| {
            let limit = json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard});
            rlimits(&[serde_json::from_value(limit).unwrap()])
        };
        let refused = of(2, 1).unwrap_err().to_string();
        assert!(refused.contains("RLIMIT_NOFILE") && refused.contains("soft"), "{refused}");
        assert_eq!(of(2, 2).unwrap().len(), 1);
    }

    #[test]
    fn no_id_is_never_taken_for_the_one_there_is() {
        for user in [
            json!({"uid": u32::MAX, "gid": 0}),
            json!({"uid": 0, "gid": u32::MAX}),
            json!({"uid": 0, "gid": 0, "additionalGids": [7, u32::MAX]}),
        ] {
            let oci = json!({"cwd": "/", "args": ["true"], "user": user});
            let oci = serde_json::from_value(oci).unwrap();
            let refused = process(&oci, &Spec::default(), &HostFacts::default()).unwrap_err();
            assert!(refused.to_string().contains("4294967295"), "{refused}");
        }
    }
}

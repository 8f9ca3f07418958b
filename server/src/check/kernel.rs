// SPDX-License-Identifier: Apache-2.0
//! Checks of the kernel: version, system calls, cgroups, overlay, namespaces, seccomp, AppArmor, SELinux.

use super::finding::Finding;
use crate::apparmor;
use hull_cgroup::{CgroupFs, Version};
use hull_sys::Syscall;
use rustix::mount::{FsOpenFlags, fsopen};
use std::fs;

/// The oldest kernel that can start a container (`mount_setattr`).
const OLDEST: (u32, u32) = (5, 12);
/// Controllers that enforce the limits of every pod.
const REQUIRED: [&str; 3] = ["cpu", "memory", "pids"];
/// Controllers that some pods request.
const OPTIONAL: [&str; 3] = ["cpuset", "io", "hugetlb"];

pub(super) fn findings() -> Vec<Finding> {
    let mut findings = vec![version(), calls()];
    findings.extend(cgroups());
    findings.extend([overlay(), namespaces(), user_namespaces(), seccomp(), apparmor()]);
    findings.extend(selinux(fs::read_to_string("/sys/fs/selinux/enforce").ok().as_deref()));
    findings
}

fn read(path: &str) -> String {
    // A missing file reads as empty, which no check below accepts as good.
    fs::read_to_string(path).unwrap_or_default()
}

fn version() -> Finding {
    const SUBJECT: &str = "kernel";
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match parse_release(&release) {
        Some(version) if version < OLDEST => Finding::missing(
            SUBJECT,
            format!("Linux {release}"),
            format!("run Linux {}.{} or newer", OLDEST.0, OLDEST.1),
        ),
        _ => Finding::good(SUBJECT, format!("Linux {release}")),
    }
}

/// Major and minor version of a release such as `6.1.0-18-amd64`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn calls() -> Finding {
    const SUBJECT: &str = "system calls";
    let missing: Vec<_> = Syscall::ALL.into_iter().filter(|call| !call.is_available()).collect();
    if missing.is_empty() {
        return Finding::good(SUBJECT, Syscall::ALL.map(Syscall::name).join(" "));
    }
    let names: Vec<_> =
        missing.iter().map(|call| format!("{} (Linux {})", call.name(), call.since())).collect();
    let hint = "run a newer kernel, or remove the seccomp profile that hides them from Hull";
    Finding::missing(SUBJECT, format!("missing: {}", names.join(", ")), hint)
}

fn cgroups() -> Vec<Finding> {
    const SUBJECT: &str = "cgroups";
    const HINT: &str =
        "mount cgroup2 at /sys/fs/cgroup (boot with systemd.unified_cgroup_hierarchy=1)";
    let host = match CgroupFs::detect() {
        Ok(host) => host,
        Err(err) => {
            return vec![Finding::missing(
                SUBJECT,
                err.to_string(),
                err.hint().unwrap_or_else(|| HINT.into()),
            )];
        }
    };
    let have = match host.controllers() {
        Ok(have) => have,
        Err(err) => return vec![Finding::missing(SUBJECT, err.to_string(), HINT)],
    };
    let v2 = host.version() == Version::V2;
    let version = if v2 { "version 2" } else { "version 1" };
    let lacks = |names: &[&str]| -> Vec<String> {
        let same = |name: &str, have: &str| have == name || (name == "io" && have == "blkio");
        let absent = names.iter().filter(|name| !have.iter().any(|have| same(name, have)));
        absent.map(|name| (*name).to_owned()).collect()
    };
    let (required, mut optional) = (lacks(&REQUIRED), lacks(&OPTIONAL));
    if !v2 {
        optional.extend(lacks(&["devices", "freezer", "cpuacct"]));
    }
    let found = format!("{version}: {}", have.join(" "));
    let mut findings = Vec::new();
    if required.is_empty() {
        findings.push(Finding::good(SUBJECT, found));
    } else {
        let hint = "enable them on the kernel command line (cgroup_enable=memory), or mount their hierarchies";
        findings.push(Finding::missing(
            SUBJECT,
            format!("{found}; without {}", required.join(", ")),
            hint,
        ));
    }
    if !optional.is_empty() {
        let hint = "only pods that request such limits need them: use a kernel with them, or mount their hierarchies";
        findings.push(Finding::warning(
            "controllers",
            format!("missing: {}", optional.join(", ")),
            hint,
        ));
    }
    findings
}

fn overlay() -> Finding {
    const SUBJECT: &str = "overlay";
    // Opening the filesystem loads its module, if that is allowed.
    match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Finding::good(SUBJECT, "supported by the kernel"),
        Err(rustix::io::Errno::PERM) if read("/proc/filesystems").contains("overlay") => {
            Finding::good(SUBJECT, "in /proc/filesystems (not tried: needs root)")
        }
        Err(errno) => Finding::missing(
            SUBJECT,
            format!("fsopen(overlay): {}", hull_sys::name_of(errno)),
            "modprobe overlay, and put `overlay` in /etc/modules-load.d/hull.conf",
        ),
    }
}

fn namespaces() -> Finding {
    const SUBJECT: &str = "namespaces";
    let kinds = ["mnt", "pid", "net", "uts", "ipc", "cgroup"];
    let lacks: Vec<_> = kinds
        .iter()
        .filter(|kind| fs::metadata(format!("/proc/self/ns/{kind}")).is_err())
        .copied()
        .collect();
    if lacks.is_empty() {
        return Finding::good(SUBJECT, kinds.join(" "));
    }
    Finding::missing(
        SUBJECT,
        format!("missing: {}", lacks.join(", ")),
        "use a kernel built with CONFIG_NAMESPACES and all its kinds",
    )
}

pub(super) fn user_namespaces() -> Finding {
    const SUBJECT: &str = "user namespaces";
    let most = read("/proc/sys/user/max_user_namespaces");
    match most.trim().parse::<u64>() {
        Ok(most) if most > 0 => Finding::good(SUBJECT, format!("up to {most}")),
        Ok(_) => Finding::warning(
            SUBJECT,
            "disabled by /proc/sys/user/max_user_namespaces",
            "sysctl user.max_user_namespaces=65536; only pods with hostUsers: false, or mapped by runtime.userns, need it",
        ),
        Err(_) => Finding::warning(
            SUBJECT,
            "not supported by the kernel",
            "use a kernel with CONFIG_USER_NS; only pods with hostUsers: false, or mapped by runtime.userns, need it",
        ),
    }
}

fn seccomp() -> Finding {
    const SUBJECT: &str = "seccomp";
    let actions = read("/proc/sys/kernel/seccomp/actions_avail");
    if actions.split_whitespace().any(|action| action == "errno") {
        return Finding::good(SUBJECT, actions.trim());
    }
    Finding::missing(
        SUBJECT,
        "the kernel does not support seccomp filters",
        "use a kernel with CONFIG_SECCOMP_FILTER, or set runtime.default_seccomp = \"unconfined\" and run only pods without profiles",
    )
}

fn apparmor() -> Finding {
    const SUBJECT: &str = "AppArmor";
    if !apparmor::is_enabled() {
        return Finding::good(SUBJECT, "off; containers run without profiles");
    }
    // An empty file in its place is not a program.
    let parser = apparmor::parser().filter(|path| fs::metadata(path).is_ok_and(|of| of.len() > 0));
    match parser {
        Some(path) => Finding::good(SUBJECT, format!("on; {} loads profiles", path.display())),
        None => Finding::warning(
            SUBJECT,
            "on, but apparmor_parser is missing: the default profile cannot be loaded",
            "apt-get install apparmor",
        ),
    }
}

/// The line about a node with SELinux, by its file `enforce`; none without SELinux.
fn selinux(enforce: Option<&str>) -> Option<Finding> {
    const SUBJECT: &str = "SELinux";
    let is_enforcing = enforce?.trim() == "1";
    Some(if is_enforcing {
        Finding::warning(
            SUBJECT,
            "enforcing; Hull labels processes of pods with seLinuxOptions, and no files",
            "label volumes for containers yourself: chcon -R -t container_file_t DIRECTORY",
        )
    } else {
        Finding::good(SUBJECT, "permissive; denials are only recorded")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_enforces_labels_gets_advice_and_one_without_selinux_no_line() {
        let verdict = |enforce| selinux(enforce).map(|of| of.parts().1);
        assert_eq!(verdict(None), None);
        assert_eq!((verdict(Some("1")), verdict(Some("0\n"))), (Some("warning"), Some("ok")));
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        for (release, version) in [
            ("6.1.0-18-amd64", (6, 1)),
            ("5.9.1", (5, 9)),
            ("5.12-rc1", (5, 12)),
            ("6.18.5+", (6, 18)),
        ] {
            assert_eq!(parse_release(release), Some(version));
        }
        assert!(parse_release("5.9.0").unwrap() < OLDEST);
        assert_eq!(parse_release("unknown"), None);
    }
}

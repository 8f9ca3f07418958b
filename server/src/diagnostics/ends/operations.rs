// SPDX-License-Identifier: Apache-2.0
//! Privileged operations: the capability and the system calls that an operation needs, by the words that programs
//! print when it fails (a call's name) or by the program that does it. `capabilities(7)`.

/// An operation that needs a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation {
    /// Names of programs and calls by which it is recognised.
    pub(super) words: &'static [&'static str],
    /// The capability without `CAP_`; empty if it needs none.
    pub(super) capability: &'static str,
    /// System calls that a seccomp profile may refuse for it.
    pub(super) calls: &'static [&'static str],
    /// A further fix than to add the capability; may be empty.
    pub(super) instead: &'static str,
}

const fn operation(
    words: &'static [&'static str],
    capability: &'static str,
    calls: &'static [&'static str],
    instead: &'static str,
) -> Operation {
    Operation { words, capability, calls, instead }
}

/// The first operation whose word is found counts.
pub(super) static OPERATIONS: [Operation; 30] = [
    operation(
        &[
            "ping",
            "ping6",
            "arping",
            "traceroute",
            "tcpdump",
            "sock_raw",
            "packet_socket",
            "fping",
            "mtr",
        ],
        "NET_RAW",
        &["socket"],
        "the pod's sysctl `net.ipv4.ping_group_range` lets its groups ping without it",
    ),
    operation(&["unshare", "bwrap", "newuidmap"], "SYS_ADMIN", &["unshare", "clone", "clone3"], ""),
    operation(&["nsenter", "setns"], "SYS_ADMIN", &["setns"], ""),
    operation(
        &["mount", "umount", "losetup", "fusermount", "umount2"],
        "SYS_ADMIN",
        &["mount", "umount2", "fsopen", "move_mount"],
        "",
    ),
    operation(&["pivot_root"], "SYS_ADMIN", &["pivot_root"], ""),
    operation(&["chroot"], "SYS_CHROOT", &["chroot"], ""),
    operation(
        &["chown", "chgrp", "lchown", "fchown", "fchownat"],
        "CHOWN",
        &["chown", "fchown", "fchownat", "lchown"],
        "`fsGroup` sets the group of volumes without it",
    ),
    operation(
        &["chmod", "fchmod", "fchmodat", "utime", "utimes", "utimensat"],
        "FOWNER",
        &["fchmodat", "chmod"],
        "",
    ),
    operation(
        &["setuid", "setreuid", "setresuid", "seteuid", "su", "sudo", "gosu", "su-exec", "setpriv"],
        "SETUID",
        &["setuid", "setresuid"],
        "start as that user with `runAsUser`",
    ),
    operation(
        &["setgid", "setgroups", "setregid", "setresgid", "setegid", "initgroups"],
        "SETGID",
        &["setgid", "setgroups"],
        "start as that group with `runAsGroup`",
    ),
    operation(
        &[
            "iptables",
            "ip6tables",
            "nft",
            "ip",
            "ifconfig",
            "route",
            "tc",
            "brctl",
            "ipset",
            "wg",
            "rtnetlink",
            "netlink",
        ],
        "NET_ADMIN",
        &["socket", "setsockopt"],
        "",
    ),
    operation(
        &[
            "date",
            "hwclock",
            "ntpd",
            "chronyd",
            "settimeofday",
            "clock_settime",
            "adjtimex",
            "adjtime",
        ],
        "SYS_TIME",
        &["clock_settime", "settimeofday", "adjtimex", "clock_adjtime"],
        "the node keeps the time of all its containers",
    ),
    operation(&["mknod", "mknodat"], "MKNOD", &["mknod", "mknodat"], ""),
    operation(
        &["strace", "gdb", "ltrace", "ptrace", "gcore", "perf-trace"],
        "SYS_PTRACE",
        &["ptrace"],
        "",
    ),
    operation(&["perf", "perf_event_open"], "PERFMON", &["perf_event_open"], ""),
    operation(&["bpf", "bpftool", "bpftrace"], "BPF", &["bpf"], ""),
    operation(
        &["modprobe", "insmod", "rmmod", "init_module", "finit_module"],
        "SYS_MODULE",
        &["init_module", "finit_module", "delete_module"],
        "load the module on the node",
    ),
    operation(&["mlock", "mlockall", "shmctl"], "IPC_LOCK", &["mlock", "mlockall"], ""),
    operation(
        &["renice", "nice", "chrt", "ionice", "setpriority", "sched_setscheduler", "sched_setattr"],
        "SYS_NICE",
        &["setpriority", "sched_setscheduler"],
        "",
    ),
    operation(
        &["ulimit", "prlimit", "setrlimit"],
        "SYS_RESOURCE",
        &["setrlimit", "prlimit64"],
        "raise the limits of the hull service, or `runtime.default_ulimits`",
    ),
    operation(
        &["hostname", "sethostname", "domainname"],
        "SYS_ADMIN",
        &["sethostname"],
        "set `hostname` in the pod",
    ),
    operation(&["dmesg", "klogctl"], "SYSLOG", &["syslog"], ""),
    operation(&["reboot", "poweroff", "halt", "shutdown"], "SYS_BOOT", &["reboot"], ""),
    operation(
        &["setcap"],
        "SETFCAP",
        &["setxattr"],
        "set file capabilities when the image is built",
    ),
    operation(&["swapon", "swapoff"], "SYS_ADMIN", &["swapon", "swapoff"], ""),
    operation(&["keyctl", "add_key", "request_key"], "", &["keyctl", "add_key", "request_key"], ""),
    operation(&["userfaultfd"], "SYS_PTRACE", &["userfaultfd"], ""),
    operation(&["io_uring", "io_uring_setup"], "", &["io_uring_setup"], ""),
    operation(&["fanotify", "fanotify_init"], "SYS_ADMIN", &["fanotify_init"], ""),
    operation(&["kill", "killall", "pkill"], "KILL", &["kill"], ""),
];

/// The operation that one of `words` names, all in lower case.
pub(super) fn named<'a>(words: impl Iterator<Item = &'a str>) -> Option<&'static Operation> {
    let words: Vec<&str> = words.collect();
    OPERATIONS.iter().find(|known| known.words.iter().any(|word| words.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_plan::capabilities;

    #[test]
    fn every_capability_has_its_name_and_every_call_its_number() {
        for known in &OPERATIONS {
            let is_known =
                known.capability.is_empty() || capabilities::number(known.capability).is_some();
            assert!(is_known, "{known:?}");
            for call in known.calls {
                assert!(hull_plan::seccomp::call_number(call).is_some(), "{call}");
            }
        }
        let ping = named(["sh", "ping"].into_iter());
        assert_eq!(ping.map(|of| of.capability), Some("NET_RAW"));
        assert_eq!(named(["echo"].into_iter()), None);
    }
}

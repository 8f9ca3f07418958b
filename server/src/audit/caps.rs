// SPDX-License-Identifier: Apache-2.0
//! Capabilities: numbers, names, and what each one is worth to an attacker.

use super::reach::Reach;
use hull_plan::capabilities;

/// The capabilities that the Baseline level allows, by name.
const BASELINE: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// A set of capabilities, one bit each, as in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Caps(pub(crate) u64);

impl Caps {
    /// Whether the set contains the capability of this name. Unknown names are never contained.
    pub(crate) fn has(self, name: &str) -> bool {
        let number = capabilities::number(name);
        number.is_some_and(|number| self.0 & (1 << number) != 0)
    }

    /// The union of both sets.
    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Names without `CAP_`, by number.
    pub(crate) fn names(self) -> Vec<String> {
        let numbers = (0..64_usize).filter(|number| self.0 & (1 << number) != 0);
        numbers
            .map(|number| {
                capabilities::NAMES
                    .get(number)
                    .map_or_else(|| number.to_string(), ToString::to_string)
            })
            .collect()
    }

    /// The capabilities that the Baseline level does not allow. NET_RAW is allowed: it is in the default set
    /// of runtimes, which the level accepts.
    pub(crate) fn beyond_baseline(self) -> Vec<String> {
        let allowed = |name: &String| BASELINE.contains(&name.as_str()) || name == "NET_RAW";
        self.names().into_iter().filter(|name| !allowed(name)).collect()
    }
}

/// How far a capability reaches in the user namespace of the host, and why. `None` for those that do not reach
/// out of the container.
pub(crate) fn worth(name: &str) -> Option<(Reach, &'static str)> {
    Some(match name {
        "SYS_ADMIN" => (Reach::Host, "mounts file systems, and most other privileges of root"),
        "SYS_MODULE" => (Reach::Host, "loads modules into the kernel"),
        "SYS_RAWIO" => (Reach::Host, "reads and writes ports and memory of the machine"),
        "DAC_READ_SEARCH" => (Reach::Host, "opens any file of a filesystem by its handle"),
        "BPF" => (Reach::Host, "loads programs into the kernel"),
        "PERFMON" => (Reach::Host, "reads the kernel's memory by tracing"),
        "MAC_ADMIN" | "MAC_OVERRIDE" => (Reach::Host, "changes or bypasses the security module"),
        "SYS_BOOT" => (Reach::Node, "restarts the machine"),
        "SYS_TIME" => (Reach::Node, "sets the clock of the machine"),
        "SYSLOG" => (Reach::Node, "reads the kernel's log and addresses"),
        "SYS_RESOURCE" => (Reach::Node, "exceeds resource limits"),
        "SYS_NICE" => (Reach::Node, "takes CPU time from others"),
        "AUDIT_CONTROL" | "AUDIT_READ" => {
            (Reach::Node, "reads or changes the audit log of the machine")
        }
        "SYS_PACCT" | "SYS_TTY_CONFIG" | "WAKE_ALARM" | "BLOCK_SUSPEND" => {
            (Reach::Node, "changes settings of the machine")
        }
        "IPC_LOCK" => (Reach::Node, "locks memory without limit"),
        "NET_RAW" => (Reach::Node, "forges packets to neighbours on the pod network"),
        "NET_ADMIN" => (Reach::Pod, "changes links, routes and filters of the pod's network"),
        "SYS_PTRACE" => (Reach::Pod, "reads and controls processes that it can see"),
        "CHECKPOINT_RESTORE" => (Reach::Pod, "reads memory maps and sets process ids"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_names_also_beyond_those_that_are_known() {
        assert_eq!(Caps(1 << 21 | 1).names(), ["CHOWN", "SYS_ADMIN"]);
        assert_eq!(Caps(1 << 63).names(), ["63"]);
        assert!(Caps(1 << 13).has("NET_RAW") && !Caps(1 << 13).has("nothing"));
        assert_eq!(Caps(u64::MAX).names().len(), 64);
    }

    #[test]
    fn the_runtimes_default_is_within_baseline_and_a_bit_of_a_newer_kernel_is_not() {
        assert_eq!(Caps(0xa804_25fb).beyond_baseline(), Vec::<String>::new());
        assert_eq!(Caps(0xa804_25fb | 1 << 21 | 1 << 50).beyond_baseline(), ["SYS_ADMIN", "50"]);
    }
}

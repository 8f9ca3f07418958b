// SPDX-License-Identifier: Apache-2.0
//! Names of capabilities and their bits, `capabilities(7)`.

use crate::nearest::nearest;
use oci_spec::runtime::Capabilities as Set;

/// Names without `CAP_`, in the order of their numbers: `linux/capability.h`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All names as specs write them, with `CAP_`.
#[must_use]
pub fn prefixed_names() -> Vec<String> {
    NAMES.iter().map(|name| format!("CAP_{name}")).collect()
}

/// The number of a capability by its name without `CAP_`; `None` for an unknown one.
#[must_use]
pub fn number(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

/// The capability with nearly this name, for a name without `CAP_` that is unknown.
#[must_use]
pub fn meant(name: &str) -> Option<&'static str> {
    const NAME_BYTES_MAX: usize = 64;
    (name.len() <= NAME_BYTES_MAX).then(|| nearest(name, NAMES.into_iter())).flatten()
}

/// The bits of a set.
pub(crate) fn bits(set: Option<&Set>) -> u64 {
    let Some(set) = set else { return 0 };
    set.iter().fold(0, |bits, capability| {
        let name = capability.to_string();
        let name = name.trim_start_matches("CAP_");
        match number(name) {
            Some(number) => bits | 1 << number,
            None => bits,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    #[test]
    fn every_capability_has_its_bit() {
        let set = Set::from_iter([
            Capability::Chown,
            Capability::SysAdmin,
            Capability::CheckpointRestore,
        ]);
        assert_eq!(bits(Some(&set)), 1 | 1 << 21 | 1 << 40);
        assert_eq!(bits(None), 0);
    }
}

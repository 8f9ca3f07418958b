// SPDX-License-Identifier: Apache-2.0
//! Names and numbers of system calls, and architectures: libseccomp's tables, and a newer one.

use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::Arch;

/// The number of a system call, by the library's table, else by a newer one.
pub(super) fn number(name: &str) -> Option<ScmpSyscall> {
    if let Ok(call) = ScmpSyscall::from_name(name) {
        return Some(call);
    }
    let call: syscalls::Sysno = name.parse().ok()?;
    Some(ScmpSyscall::from(call.id()))
}

/// The name of a system call, by the number that it has on an architecture of `AUDIT_ARCH_*`
/// (`linux/audit.h`); `None` for one that is not known.
#[must_use]
pub fn call_name(audit_arch: u32, number: i32) -> Option<String> {
    let arch = match audit_arch {
        0xc000_003e => ScmpArch::X8664,
        0x4000_0003 => ScmpArch::X86,
        0xc000_00b7 => ScmpArch::Aarch64,
        0x4000_0028 => ScmpArch::Arm,
        _ => return None,
    };
    if let Ok(name) = ScmpSyscall::from(number).get_name_by_arch(arch) {
        return Some(name);
    }
    let number = usize::try_from(number).ok().filter(|_| arch == ScmpArch::native())?;
    syscalls::Sysno::new(number).map(|call| call.name().to_owned())
}

/// The architecture for the library; `None` if it does not run on this machine.
pub(super) fn architecture(arch: Arch) -> Option<ScmpArch> {
    let known = [
        (Arch::ScmpArchX86, ScmpArch::X86),
        (Arch::ScmpArchX86_64, ScmpArch::X8664),
        (Arch::ScmpArchX32, ScmpArch::X32),
        (Arch::ScmpArchArm, ScmpArch::Arm),
        (Arch::ScmpArchAarch64, ScmpArch::Aarch64),
    ];
    known.into_iter().find(|(oci, _)| *oci == arch).map(|(_, scmp)| scmp)
}

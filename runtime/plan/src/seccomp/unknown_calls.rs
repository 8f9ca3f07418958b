// SPDX-License-Identifier: Apache-2.0
//! System calls that a profile cannot know, because they are newer than it: they fail with `ENOSYS`, as on a kernel
//! that does not have them yet.
//!
//! Libraries try a new call first, and take the older one on `ENOSYS`; `EPERM` they give back to the program. A profile
//! knows all calls up to the newest that it names, on each architecture by that one's numbers, whatever it does with
//! it. Up to there, a call that it does not name is denied by the profile's default action. This is the rule of runc, for
//! the same profiles: none for those whose default lets calls pass, or fail with `ENOSYS` already.

use super::calls::{architecture, number};
use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};
use std::collections::BTreeMap;

const ENOSYS: u32 = 38;
/// `SECCOMP_RET_ERRNO`, seccomp(2).
const RETURN_ERRNO: u32 = 0x0005_0000;
/// Bit of the numbers of x32, which has the architecture of x86-64: `__X32_SYSCALL_BIT`.
const X32_BIT: u32 = 0x4000_0000;

// linux/filter.h, linux/bpf_common.h.
const LOAD: u16 = 0x20;
const GO: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// The newest calls of one architecture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Newest {
    plain: Option<u32>,
    /// Of x32, with its bit.
    x32: Option<u32>,
}

/// The instructions before the profile's own program, which goes on behind them: none if the profile decides about
/// unknown calls itself.
pub(super) fn prologue(profile: &LinuxSeccomp) -> Vec<u8> {
    let passes = matches!(
        profile.default_action(),
        Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
    );
    if passes || profile.default_errno_ret() == Some(ENOSYS) {
        return Vec::new();
    }
    let blocks: Vec<_> =
        newest(profile).into_iter().filter_map(|(arch, of)| block(arch, of)).collect();
    if blocks.is_empty() {
        return Vec::new();
    }
    let mut left: usize = blocks.iter().map(Vec::len).sum();
    let mut program = vec![(LOAD, 0, 0, 4)];
    for mut block in blocks {
        left -= block.len();
        // Behind all of it the number is in the accumulator, and the program loads what it needs.
        if let Some(last) = block.last_mut() {
            last.3 = u32::try_from(left).unwrap_or(0);
        }
        program.append(&mut block);
    }
    program.into_iter().flat_map(bytes).collect()
}

/// By the kernel's name of the architecture, `AUDIT_ARCH_*`.
fn newest(profile: &LinuxSeccomp) -> BTreeMap<u32, Newest> {
    let named = profile.architectures().iter().flatten().filter_map(|arch| architecture(*arch));
    let mut newest: BTreeMap<u32, Newest> = BTreeMap::new();
    for arch in named.chain([ScmpArch::native()]) {
        let Some(audit_arch) = audit_arch(arch) else { continue };
        let is_x32 = arch == ScmpArch::X32;
        let of = newest.entry(audit_arch).or_default();
        let place = if is_x32 { &mut of.x32 } else { &mut of.plain };
        let bit = if is_x32 { X32_BIT } else { 0 };
        for name in profile.syscalls().iter().flatten().flat_map(|rule| rule.names()) {
            *place = (*place).max(number_on(arch, name).map(|number| number | bit));
        }
    }
    newest
}

/// The number of a call on an architecture; `None` for one that it does not have, or that is not known.
fn number_on(arch: ScmpArch, name: &str) -> Option<u32> {
    let call = if arch == ScmpArch::native() {
        number(name)?
    } else {
        ScmpSyscall::from_name_by_arch(name, arch).ok()?
    };
    // The library's own numbers, of calls that are part of another one, are negative.
    u32::try_from(i32::from(call)).ok()
}

fn audit_arch(arch: ScmpArch) -> Option<u32> {
    let known = [
        (ScmpArch::X86, 0x4000_0003),
        (ScmpArch::X8664, 0xc000_003e),
        (ScmpArch::X32, 0xc000_003e),
        (ScmpArch::Arm, 0x4000_0028),
        (ScmpArch::Aarch64, 0xc000_00b7),
    ];
    known.into_iter().find(|(scmp, _)| *scmp == arch).map(|(_, audit)| audit)
}

/// `struct sock_filter`: code, how far to jump if it holds and if not, operand.
type Instruction = (u16, u8, u8, u32);

/// The part for one architecture, with the architecture loaded. Its last instruction leads behind all parts.
fn block(arch: u32, newest: Newest) -> Option<Vec<Instruction>> {
    let answer = (RETURN, 0, 0, RETURN_ERRNO | ENOSYS);
    let go = (GO, 0, 0, 0);
    Some(match (newest.plain, newest.x32) {
        (None, None) => return None,
        (Some(last), Some(last_x32)) => vec![
            (IF_EQUAL, 0, 6, arch),
            (LOAD, 0, 0, 0),
            (IF_AT_LEAST, 1, 0, X32_BIT),
            (IF_GREATER, 1, 2, last),
            (IF_GREATER, 0, 1, last_x32),
            answer,
            go,
        ],
        (Some(last), None) | (None, Some(last)) => {
            vec![(IF_EQUAL, 0, 4, arch), (LOAD, 0, 0, 0), (IF_GREATER, 0, 1, last), answer, go]
        }
    })
}

fn bytes((code, yes, no, operand): Instruction) -> [u8; 8] {
    let ([c0, c1], [k0, k1, k2, k3]) = (code.to_ne_bytes(), operand.to_ne_bytes());
    [c0, c1, yes, no, k0, k1, k2, k3]
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

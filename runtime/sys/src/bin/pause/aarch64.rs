// SPDX-License-Identifier: Apache-2.0
//! System calls and the entry point of pause, for arm64.

use core::arch::{asm, naked_asm};

/// `AUDIT_ARCH_AARCH64`: how a seccomp filter sees this architecture.
pub(crate) const AUDIT_ARCH: u32 = 0xc000_00b7;

pub(crate) const EXIT_GROUP: usize = 94;
pub(crate) const KILL: usize = 129;
pub(crate) const RT_SIGPROCMASK: usize = 135;
pub(crate) const RT_SIGTIMEDWAIT: usize = 137;
pub(crate) const PRCTL: usize = 167;
pub(crate) const WAIT4: usize = 260;
pub(crate) const SECCOMP: usize = 277;

/// Makes one system call with four arguments; returns what the kernel does, a negative number on failure.
pub(crate) fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the callers pass numbers, null, or the address of a live local or static that the kernel
    // reads, or writes as it does the status of `wait4(2)`; the kernel keeps all registers but x0.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            options(nostack)
        );
    }
    result
}

/// Where the kernel jumps to, with an aligned stack; the frame and link registers say that nothing called it.
// SAFETY: the only symbol of this name in the program.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    naked_asm!(
        "mov x29, xzr",
        "mov x30, xzr",
        "mov x0, sp",
        "bl {entry}",
        entry = sym crate::entry
    )
}

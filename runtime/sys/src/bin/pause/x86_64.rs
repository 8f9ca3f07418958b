// SPDX-License-Identifier: Apache-2.0
//! System calls and the entry point of pause, for x86-64.

use core::arch::{asm, naked_asm};

/// `AUDIT_ARCH_X86_64`: how a seccomp filter sees this architecture.
pub(crate) const AUDIT_ARCH: u32 = 0xc000_003e;

pub(crate) const RT_SIGPROCMASK: usize = 14;
pub(crate) const WAIT4: usize = 61;
pub(crate) const KILL: usize = 62;
pub(crate) const RT_SIGTIMEDWAIT: usize = 128;
pub(crate) const PRCTL: usize = 157;
pub(crate) const EXIT_GROUP: usize = 231;
pub(crate) const SECCOMP: usize = 317;

/// Makes one system call with four arguments; returns what the kernel does, a negative number on failure.
pub(crate) fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the callers pass numbers, null, or the address of a live local or static that the kernel
    // reads, or writes as it does the status of `wait4(2)`; the kernel keeps all registers but rax, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// Where the kernel jumps to, with a stack that is aligned as no function expects it.
// SAFETY: the only symbol of this name in the program.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    naked_asm!(
        "xor ebp, ebp",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {entry}",
        entry = sym crate::entry
    )
}

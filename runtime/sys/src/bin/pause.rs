// SPDX-License-Identifier: Apache-2.0
//! The pause process: holds a pod's namespaces and, as PID 1 of a shared pid namespace, reaps what
//! is orphaned there. Ends on SIGTERM and SIGINT. With a number as its argument it is the init of a container
//! instead, see `pause/init.rs`.
//!
//! No standard library and no libc: a thousand pods have a thousand of these. It allocates nothing, and once it
//! is set up it makes three kinds of system calls. A seccomp filter kills it at any other: a container that
//! shares its pid namespace and has CAP_SYS_PTRACE could otherwise make it leave the pod's namespaces, which
//! later containers join through it.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "this crate is where the unsafe code is")]

use core::panic::PanicInfo;
use machine::{
    AUDIT_ARCH, EXIT_GROUP, PRCTL, RT_SIGPROCMASK, RT_SIGTIMEDWAIT, SECCOMP, WAIT4, call,
};

#[path = "pause/init.rs"]
mod init;
#[cfg_attr(target_arch = "x86_64", path = "pause/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "pause/aarch64.rs")]
mod machine;

/// `prctl(2)`, PR_SET_NAME.
const SET_NAME: usize = 15;
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;
const ANY_CHILD: usize = usize::MAX;
const SIGINT: usize = 2;
const SIGTERM: usize = 15;
const SIGCHLD: usize = 17;
/// Size of the kernel's signal set, in bytes.
const SET_BYTES: usize = 8;

/// `seccomp(2)`, SECCOMP_SET_MODE_FILTER.
const SET_MODE_FILTER: usize = 1;
/// SECCOMP_RET_KILL_PROCESS and SECCOMP_RET_ALLOW.
const KILL_PROCESS: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
/// Where in `struct seccomp_data` the number of the call and the architecture are.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;

/// An instruction of classic BPF, as the kernel takes it: `struct sock_filter`.
#[repr(C)]
struct Instruction {
    code: u16,
    if_equal: u8,
    if_not: u8,
    operand: u32,
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

const fn load(at: u32) -> Instruction {
    Instruction { code: 0x20, if_equal: 0, if_not: 0, operand: at }
}

/// Skips `if_equal` instructions when what was loaded is `operand`, and `if_not` when it is not.
const fn compare(operand: u32, if_equal: u8, if_not: u8) -> Instruction {
    Instruction { code: 0x15, if_equal, if_not, operand }
}

const fn answer(action: u32) -> Instruction {
    Instruction { code: 0x06, if_equal: 0, if_not: 0, operand: action }
}

const FILTER_LENGTH: u16 = 8;

/// Allows what the loop in [`pause`] does, by the numbers of this architecture alone.
static FILTER: [Instruction; FILTER_LENGTH as usize] = [
    load(ARCH_AT),
    compare(AUDIT_ARCH, 0, 4),
    load(NUMBER_AT),
    compare(RT_SIGTIMEDWAIT as u32, 3, 0),
    compare(WAIT4 as u32, 2, 0),
    compare(EXIT_GROUP as u32, 1, 0),
    answer(KILL_PROCESS),
    answer(ALLOW),
];

/// Exit code when the kernel refuses the filter.
const NO_FILTER: usize = 1;

fn pause() -> ! {
    let set: u64 = (1 << (SIGINT - 1)) | (1 << (SIGTERM - 1)) | (1 << (SIGCHLD - 1));
    let set_at = &raw const set as usize;
    // Executed from a descriptor, it would show under the name of the file in memory.
    call(PRCTL, SET_NAME, c"pause".as_ptr() as usize, 0, 0);
    call(RT_SIGPROCMASK, SIG_BLOCK, set_at, 0, SET_BYTES);
    // The process that starts this one has set no_new_privs, without which the kernel refuses the filter.
    let program = Program { length: FILTER_LENGTH, instructions: FILTER.as_ptr() };
    if call(SECCOMP, SET_MODE_FILTER, 0, &raw const program as usize, 0) != 0 {
        call(EXIT_GROUP, NO_FILTER, 0, 0, 0);
    }
    loop {
        let signal = call(RT_SIGTIMEDWAIT, set_at, 0, 0, SET_BYTES);
        if signal == SIGINT as isize || signal == SIGTERM as isize {
            call(EXIT_GROUP, 0, 0, 0, 0);
        }
        // One SIGCHLD may stand for many children.
        while call(WAIT4, ANY_CHILD, 0, WNOHANG, 0) > 0 {}
    }
}

/// `stack` is where the kernel has put the number of arguments, and after it their addresses.
extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: `execve(2)` of the kernel makes this word, whatever the arguments are.
    let count = unsafe { *stack };
    if count < 2 {
        pause()
    }
    // SAFETY: there are at least two addresses behind the number of arguments.
    let second = unsafe { stack.add(2) };
    // SAFETY: the address of the second argument is there.
    let text = core::ptr::with_exposed_provenance(unsafe { *second });
    // SAFETY: an argument ends with a NUL, and nobody changes it.
    init::run(unsafe { init::number(text) })
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        call(EXIT_GROUP, 134, 0, 0, 0);
    }
}

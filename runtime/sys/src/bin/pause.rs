// SPDX-License-Identifier: Apache-2.0
//! The pause process: holds a pod's namespaces and, as PID 1 of a shared pid namespace, reaps what
//! is orphaned there. Ends on SIGTERM and SIGINT.
//!
//! No standard library and no libc: a thousand pods have a thousand of these. It makes five kinds
//! of system calls and allocates nothing.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "this crate is where the unsafe code is")]

use core::panic::PanicInfo;
use machine::{EXIT_GROUP, PRCTL, RT_SIGPROCMASK, RT_SIGTIMEDWAIT, WAIT4, call};

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

fn main() -> ! {
    let set: u64 = (1 << (SIGINT - 1)) | (1 << (SIGTERM - 1)) | (1 << (SIGCHLD - 1));
    let set_at = &raw const set as usize;
    // Executed from a descriptor, it would show under the name of the file in memory.
    call(PRCTL, SET_NAME, c"pause".as_ptr() as usize, 0, 0);
    call(RT_SIGPROCMASK, SIG_BLOCK, set_at, 0, SET_BYTES);
    loop {
        let signal = call(RT_SIGTIMEDWAIT, set_at, 0, 0, SET_BYTES);
        if signal == SIGINT as isize || signal == SIGTERM as isize {
            call(EXIT_GROUP, 0, 0, 0, 0);
        }
        // One SIGCHLD may stand for many children.
        while call(WAIT4, ANY_CHILD, 0, WNOHANG, 0) > 0 {}
    }
}

extern "C" fn entry() -> ! {
    main()
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        call(EXIT_GROUP, 134, 0, 0, 0);
    }
}

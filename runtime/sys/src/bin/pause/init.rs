// SPDX-License-Identifier: Apache-2.0
//! The init of a container: forwards every signal that it gets to the container's program, its child, reaps what is
//! orphaned, and ends as the program does. The process that becomes this one has blocked all signals, so none is lost.

use crate::machine::{EXIT_GROUP, KILL, PRCTL, RT_SIGPROCMASK, RT_SIGTIMEDWAIT, WAIT4, call};
use crate::{ANY_CHILD, SET_BYTES, SET_NAME, SIGCHLD, WNOHANG};

/// `prctl(2)`, PR_SET_CHILD_SUBREAPER: in a pid namespace of others, what the program leaves comes here too.
const SET_CHILD_SUBREAPER: usize = 36;
const SIG_SETMASK: usize = 2;
/// The result of a wait for signals after a stop and a continuation of this process.
const EINTR: isize = -4;
/// Exit code when the kernel does not let it wait.
const NO_SIGNALS: usize = 126;

/// The number that a text of digits stands for.
///
/// # Safety
/// The text ends with a NUL.
pub(crate) unsafe fn number(text: *const u8) -> isize {
    let mut number: isize = 0;
    let mut at = text;
    loop {
        // SAFETY: not past the NUL, at which this ends.
        let digit = unsafe { *at };
        if !digit.is_ascii_digit() {
            return number;
        }
        number = number.wrapping_mul(10).wrapping_add(isize::from(digit - b'0'));
        // SAFETY: the byte was not the NUL.
        at = unsafe { at.add(1) };
    }
}

/// Serves the program with this process id.
pub(crate) fn run(program: isize) -> ! {
    let all: u64 = u64::MAX;
    let all_at = &raw const all as usize;
    call(PRCTL, SET_NAME, c"init".as_ptr() as usize, 0, 0);
    call(PRCTL, SET_CHILD_SUBREAPER, 1, 0, 0);
    // With the real-time signals that C libraries keep to themselves.
    call(RT_SIGPROCMASK, SIG_SETMASK, all_at, 0, SET_BYTES);
    loop {
        let signal = call(RT_SIGTIMEDWAIT, all_at, 0, 0, SET_BYTES);
        if signal == SIGCHLD as isize {
            reap(program);
        } else if signal > 0 {
            call(KILL, program.cast_unsigned(), signal.cast_unsigned(), 0, 0);
        } else if signal != EINTR {
            call(EXIT_GROUP, NO_SIGNALS, 0, 0, 0);
        }
    }
}

/// Reaps all children that have ended; one SIGCHLD may stand for many. With the program, this process ends.
fn reap(program: isize) {
    loop {
        let mut status: i32 = 0;
        let pid = call(WAIT4, ANY_CHILD, &raw mut status as usize, WNOHANG, 0);
        if pid <= 0 {
            return;
        }
        if pid == program {
            let signal = status & 0x7f;
            let code = if signal == 0 { (status >> 8) & 0xff } else { 128 + signal };
            call(EXIT_GROUP, code.unsigned_abs() as usize, 0, 0, 0);
        }
    }
}

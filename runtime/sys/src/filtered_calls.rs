// SPDX-License-Identifier: Apache-2.0
//! The system calls of Hull's own that run under the seccomp filter of the process that it starts, by the part of the
//! start that makes them. A filter that refuses one of them cannot be installed before that part.

/// A system call, with its first argument where filters decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilteredCall {
    /// The name that profiles have for it.
    pub name: &'static str,
    /// Its number on this machine's architecture.
    pub number: u32,
    /// Its first argument; `None` is any.
    pub first: Option<u64>,
}

const fn call(name: &'static str, number: libc::c_long) -> FilteredCall {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "numbers of calls are small"
    )]
    let number = number as u32;
    FilteredCall { name, number, first: None }
}

const fn with_first(call: FilteredCall, first: u64) -> FilteredCall {
    FilteredCall { first: Some(first), ..call }
}

const fn prctl(operation: u64) -> FilteredCall {
    with_first(call("prctl", libc::SYS_prctl), operation)
}

/// Taking the user, groups and capabilities: `PR_SET_DUMPABLE`, `PR_SET_KEEPCAPS`, `PR_CAPBSET_DROP`,
/// `PR_CAP_AMBIENT`.
pub const IDENTITY: [FilteredCall; 11] = [
    call("chdir", libc::SYS_chdir),
    call("capget", libc::SYS_capget),
    prctl(24),
    prctl(8),
    call("setgroups", libc::SYS_setgroups),
    call("setresgid", libc::SYS_setresgid),
    call("setresuid", libc::SYS_setresuid),
    call("capset", libc::SYS_capset),
    prctl(47),
    prctl(4),
    call("umask", libc::SYS_umask),
];

/// The birth of a sibling ([`crate::fork_sibling`]), and its working directory if that could not be entered before.
pub const BIRTH: [FilteredCall; 3] = [
    with_first(call("clone", libc::SYS_clone), crate::clone::SIBLING),
    call("setsid", libc::SYS_setsid),
    call("chdir", libc::SYS_chdir),
];

/// The last checks, and the signals' default actions.
pub const CHECKS: [FilteredCall; 3] = [
    call("getcwd", libc::SYS_getcwd),
    call("rt_sigaction", libc::SYS_rt_sigaction),
    // SIG_SETMASK.
    with_first(call("rt_sigprocmask", libc::SYS_rt_sigprocmask), 2),
];

/// Taking the terminal.
pub const TERMINAL: [FilteredCall; 1] = [with_first(call("ioctl", libc::SYS_ioctl), 0)];

/// Ending with the parent: `PR_SET_PDEATHSIG`.
pub const PARENT_DEATH: [FilteredCall; 2] = [prctl(1), call("ppoll", libc::SYS_ppoll)];

/// Looking for the program, and waiting at the start socket.
pub const WAIT: [FilteredCall; 4] = [
    call("newfstatat", libc::SYS_newfstatat),
    call("dup3", libc::SYS_dup3),
    call("close", libc::SYS_close),
    call("recvmsg", libc::SYS_recvmsg),
];

/// Running hooks, with their output, until they have ended.
pub const HOOKS: [FilteredCall; 12] = [
    call("getpid", libc::SYS_getpid),
    call("memfd_create", libc::SYS_memfd_create),
    call("write", libc::SYS_write),
    call("lseek", libc::SYS_lseek),
    call("pipe2", libc::SYS_pipe2),
    call("ioctl", libc::SYS_ioctl),
    call("close", libc::SYS_close),
    DUPLICATE,
    call("close_range", libc::SYS_close_range),
    call("ppoll", libc::SYS_ppoll),
    call("read", libc::SYS_read),
    call("waitid", libc::SYS_waitid),
];

/// Onto a certain descriptor: `dup2(2)` where it exists.
#[cfg(target_arch = "x86_64")]
const DUPLICATE: FilteredCall = call("dup2", libc::SYS_dup2);
#[cfg(not(target_arch = "x86_64"))]
const DUPLICATE: FilteredCall = call("dup3", libc::SYS_dup3);

/// The process of a hook ([`crate::fork`]).
pub const HOOK_BIRTH: [FilteredCall; 1] =
    [with_first(call("clone", libc::SYS_clone), crate::clone::FORK)];

/// Becoming an init with the program as its child ([`crate::fork`]): `PR_SET_PDEATHSIG`.
pub const INIT: [FilteredCall; 8] = [
    call("getpid", libc::SYS_getpid),
    call("pipe2", libc::SYS_pipe2),
    with_first(call("clone", libc::SYS_clone), crate::clone::FORK),
    call("close", libc::SYS_close),
    call("setsid", libc::SYS_setsid),
    prctl(1),
    call("read", libc::SYS_read),
    call("getppid", libc::SYS_getppid),
];

/// The init program, as long as the container runs: `PR_SET_NAME`, `PR_SET_CHILD_SUBREAPER`, SIG_SETMASK.
pub const INIT_PROGRAM: [FilteredCall; 7] = [
    call("execveat", libc::SYS_execveat),
    prctl(15),
    prctl(36),
    with_first(call("rt_sigprocmask", libc::SYS_rt_sigprocmask), 2),
    call("rt_sigtimedwait", libc::SYS_rt_sigtimedwait),
    call("wait4", libc::SYS_wait4),
    call("kill", libc::SYS_kill),
];

/// Handing over the listener of the filter.
pub const LISTENER: [FilteredCall; 2] =
    [call("sendmsg", libc::SYS_sendmsg), call("close", libc::SYS_close)];

/// Waiting for the parent to schedule the process.
pub const SCHEDULE: [FilteredCall; 2] =
    [call("read", libc::SYS_read), call("close", libc::SYS_close)];

/// Becoming the program, or ending.
pub const EXEC: [FilteredCall; 2] =
    [call("execve", libc::SYS_execve), call("exit_group", libc::SYS_exit_group)];

/// Reporting a step that failed.
pub const REPORT: [FilteredCall; 1] = [call("write", libc::SYS_write)];

// SPDX-License-Identifier: Apache-2.0
//! Which system calls a seccomp filter lets through, and which keys a process can reach.
//!
//! For the auditor that the tests run inside containers; no program that is installed has it (feature
//! `audit`). Each call is made in a child that ends with the answer, with arguments that name no memory,
//! descriptor or process; so nothing of the caller changes, whatever the kernel does.

use crate::{Error, Result, name_of};
use rustix::io::Errno;
use std::ffi::CString;

/// A system call and the arguments that it is tried with.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// The name of the system call.
    pub name: &'static str,
    number: libc::c_long,
    words: [libc::c_long; 6],
}

/// How the kernel answered a [`Probe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It went through.
    Done,
    /// It was refused.
    Failed(Errno),
    /// The child that made the call was killed by this signal.
    Killed(i32),
}

impl Answer {
    /// `ok`, the errno's name, or `killed by` the signal's number.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Done => "ok".into(),
            Self::Failed(errno) => name_of(errno),
            Self::Killed(signal) => format!("killed by {signal}"),
        }
    }
}

/// All words -1: no memory, no descriptor, unknown flags.
const fn nothing(name: &'static str, number: libc::c_long) -> Probe {
    Probe { name, number, words: [-1; 6] }
}

const fn with(name: &'static str, number: libc::c_long, words: [libc::c_long; 6]) -> Probe {
    Probe { name, number, words }
}

/// No process has this number.
const NOBODY: libc::c_long = 0x7fff_fff0;
const NEWUSER: libc::c_long = 0x1000_0000;
const NEWNS: libc::c_long = 0x2_0000;

/// Calls that a default profile has to refuse, and some that it has to let through.
pub const PROBES: &[Probe] = &[
    nothing("acct", libc::SYS_acct),
    nothing("add_key", libc::SYS_add_key),
    nothing("adjtimex", libc::SYS_adjtimex),
    nothing("bpf", libc::SYS_bpf),
    // A user or mount namespace; the child of the child ends at once.
    with("clone NEWUSER", libc::SYS_clone, [NEWUSER | 17, 0, 0, 0, 0, 0]),
    with("clone NEWNS", libc::SYS_clone, [NEWNS | 17, 0, 0, 0, 0, 0]),
    with("clone3", libc::SYS_clone3, [0, 0, 0, 0, 0, 0]),
    with("clock_settime", libc::SYS_clock_settime, [0, -1, 0, 0, 0, 0]),
    nothing("delete_module", libc::SYS_delete_module),
    nothing("fanotify_init", libc::SYS_fanotify_init),
    nothing("finit_module", libc::SYS_finit_module),
    nothing("fsconfig", libc::SYS_fsconfig),
    nothing("fsmount", libc::SYS_fsmount),
    nothing("fsopen", libc::SYS_fsopen),
    nothing("fspick", libc::SYS_fspick),
    nothing("init_module", libc::SYS_init_module),
    nothing("io_uring_enter", libc::SYS_io_uring_enter),
    nothing("io_uring_register", libc::SYS_io_uring_register),
    nothing("io_uring_setup", libc::SYS_io_uring_setup),
    with("kcmp", libc::SYS_kcmp, [NOBODY, NOBODY, 99, 0, 0, 0]),
    nothing("kexec_file_load", crate::arch::KEXEC_FILE_LOAD),
    with("kexec_load", libc::SYS_kexec_load, [0, 999_999, -1, -1, 0, 0]),
    with("keyctl", libc::SYS_keyctl, [9999, 0, 0, 0, 0, 0]),
    nothing("lookup_dcookie", libc::SYS_lookup_dcookie),
    nothing("mount", libc::SYS_mount),
    nothing("mount_setattr", libc::SYS_mount_setattr),
    nothing("move_mount", libc::SYS_move_mount),
    with("move_pages", libc::SYS_move_pages, [NOBODY, 0, 0, 0, 0, 0]),
    nothing("nfsservctl", libc::SYS_nfsservctl),
    nothing("open_by_handle_at", libc::SYS_open_by_handle_at),
    nothing("open_tree", libc::SYS_open_tree),
    nothing("perf_event_open", libc::SYS_perf_event_open),
    // An execution domain that Linux has not had for long.
    with("personality", libc::SYS_personality, [0x00_0006, 0, 0, 0, 0, 0]),
    with("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, -1, 0, 0, 0, 0]),
    nothing("pivot_root", libc::SYS_pivot_root),
    with("process_madvise", libc::SYS_process_madvise, [-1, 0, 0, 0, 0, 0]),
    with("process_vm_readv", libc::SYS_process_vm_readv, [NOBODY, 0, 0, 0, 0, 0]),
    with("process_vm_writev", libc::SYS_process_vm_writev, [NOBODY, 0, 0, 0, 0, 0]),
    with("ptrace", libc::SYS_ptrace, [0x4206, NOBODY, 0, 0, 0, 0]),
    nothing("quotactl", libc::SYS_quotactl),
    // Magic numbers that are none.
    with("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0, 0]),
    nothing("request_key", libc::SYS_request_key),
    nothing("setdomainname", libc::SYS_setdomainname),
    nothing("sethostname", libc::SYS_sethostname),
    nothing("setns", libc::SYS_setns),
    with("settimeofday", libc::SYS_settimeofday, [-1, -1, 0, 0, 0, 0]),
    nothing("swapoff", libc::SYS_swapoff),
    nothing("swapon", libc::SYS_swapon),
    with("syslog", libc::SYS_syslog, [99, 0, 0, 0, 0, 0]),
    nothing("umount2", libc::SYS_umount2),
    with("unshare NEWUSER", libc::SYS_unshare, [NEWUSER, 0, 0, 0, 0, 0]),
    with("unshare NEWNS", libc::SYS_unshare, [NEWNS, 0, 0, 0, 0, 0]),
    nothing("userfaultfd", libc::SYS_userfaultfd),
    // Programs need these.
    with("close_range", libc::SYS_close_range, [2, 1, 0, 0, 0, 0]),
    with("faccessat2", libc::SYS_faccessat2, [-1, 0, 0, 0, 0, 0]),
    nothing("getpid", libc::SYS_getpid),
    with("memfd_create", libc::SYS_memfd_create, [0, -1, 0, 0, 0, 0]),
    with("openat2", libc::SYS_openat2, [-1, 0, 0, 0, 0, 0]),
    with("pidfd_open", libc::SYS_pidfd_open, [-1, -1, 0, 0, 0, 0]),
    with("prctl", libc::SYS_prctl, [9999, 0, 0, 0, 0, 0]),
    with("seccomp", libc::SYS_seccomp, [99, 0, 0, 0, 0, 0]),
    // A number that no kernel has: ENOSYS, so that a C library tries an older call.
    with("a call of the future", 9999, [0; 6]),
    #[cfg(target_arch = "x86_64")]
    with("ioperm", libc::SYS_ioperm, [-1, -1, 1, 0, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    with("iopl", libc::SYS_iopl, [3, 0, 0, 0, 0, 0]),
];

impl Probe {
    /// Makes the call in a child of its own, which is killed when the call blocks for two seconds.
    ///
    /// # Errors
    /// Errors of `fork(2)` and `waitpid(2)`.
    pub fn make(&self) -> Result<Answer> {
        // SAFETY: the child makes raw system calls only and ends by _exit, so no lock or buffer of
        // another thread is waited for or flushed twice.
        let child = unsafe { libc::fork() };
        match child {
            -1 => Err(Error::last("fork()")),
            0 => self.in_child(),
            _ => self.answer(child),
        }
    }

    fn in_child(&self) -> ! {
        // SAFETY: a plain number; SIGALRM's default action ends this child.
        unsafe { libc::alarm(2) };
        let [a, b, c, d, e, f] = self.words;
        // SAFETY: the words are constants of this file that name no memory (-1 and 0 as pointers), no
        // open descriptor and no process; the process that they act on is this child, which ends next.
        let ret = unsafe { libc::syscall(self.number, a, b, c, d, e, f) };
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        // SAFETY: ends this child without anything of its parent's being run or flushed.
        unsafe { libc::_exit(if ret == -1 { errno } else { 0 }) }
    }

    fn answer(&self, child: i32) -> Result<Answer> {
        let mut status = 0;
        loop {
            // SAFETY: the kernel writes `status`; `child` is our own child, not waited for yet.
            let got = unsafe { libc::waitpid(child, &raw mut status, 0) };
            if got == child {
                break;
            }
            let err = Error::last(format!("waitpid({child}) of {}", self.name));
            if err.errno() != Errno::INTR {
                return Err(err);
            }
        }
        Ok(if libc::WIFSIGNALED(status) {
            Answer::Killed(libc::WTERMSIG(status))
        } else {
            match libc::WEXITSTATUS(status) {
                0 => Answer::Done,
                errno => Answer::Failed(Errno::from_raw_os_error(errno)),
            }
        })
    }
}

const SESSION_KEYRING: libc::c_long = -3;

/// The number of the calling process's session keyring. `keyctl(2)`, KEYCTL_GET_KEYRING_ID.
///
/// # Errors
/// EPERM or ENOSYS under a filter, ENOKEY when the process has none.
pub fn session_keyring() -> Result<i64> {
    const GET_KEYRING_ID: libc::c_long = 0;
    // SAFETY: plain numbers.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, GET_KEYRING_ID, SESSION_KEYRING, 0) };
    if ret >= 0 { Ok(ret) } else { Err(Error::last("keyctl(GET_KEYRING_ID, SESSION)")) }
}

/// Adds a key of the type `user` to the session keyring and gives its number. `add_key(2)`.
///
/// # Errors
/// Errors of the call; EINVAL for a name with a NUL.
pub fn add_key(name: &str, secret: &[u8]) -> Result<i64> {
    let call = || format!("add_key(user, {name}, SESSION)");
    let text = CString::new(name).map_err(|_| Error::new(Errno::INVAL, call()))?;
    // SAFETY: the kernel reads both texts to their NUL and `secret.len()` bytes of `secret`, all of
    // which live past the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            text.as_ptr(),
            secret.as_ptr(),
            secret.len(),
            SESSION_KEYRING,
        )
    };
    if ret >= 0 { Ok(ret) } else { Err(Error::last(call())) }
}

/// The content of the key `name` of type `user`, if the session keyring leads to it. `keyctl(2)`,
/// KEYCTL_SEARCH and KEYCTL_READ.
///
/// # Errors
/// ENOKEY when no such key can be reached; EINVAL for a name with a NUL.
pub fn find_key(name: &str) -> Result<Vec<u8>> {
    const SEARCH: libc::c_long = 10;
    const READ: libc::c_long = 11;
    let call = || format!("keyctl(SEARCH, SESSION, user, {name})");
    let text = CString::new(name).map_err(|_| Error::new(Errno::INVAL, call()))?;
    // SAFETY: the kernel reads both texts to their NUL; they live past the call.
    let key = unsafe {
        libc::syscall(libc::SYS_keyctl, SEARCH, SESSION_KEYRING, c"user".as_ptr(), text.as_ptr(), 0)
    };
    if key < 0 {
        return Err(Error::last(call()));
    }
    let mut content = vec![0_u8; 4096];
    // SAFETY: the kernel writes at most `content.len()` bytes to `content`.
    let got =
        unsafe { libc::syscall(libc::SYS_keyctl, READ, key, content.as_mut_ptr(), content.len()) };
    let length = usize::try_from(got).map_err(|_| Error::last(format!("keyctl(READ, {key})")))?;
    content.truncate(length);
    Ok(content)
}

/// Ends the calling thread, and the process only with its last one. `_exit(2)`, "C library/kernel
/// differences".
pub fn end_this_thread() -> ! {
    loop {
        // SAFETY: takes a number; nothing of this thread runs afterwards, and its stack is not used again.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_comes_back_and_leaves_the_caller_as_it_was() {
        let before = rustix::process::getcwd(Vec::new());
        for probe in PROBES {
            let answer = probe.make().unwrap();
            match probe.name {
                "getpid" => assert_eq!(answer, Answer::Done),
                "a call of the future" => assert_eq!(answer, Answer::Failed(Errno::NOSYS)),
                "prctl" | "seccomp" => assert_eq!(answer, Answer::Failed(Errno::INVAL)),
                _ => {}
            }
        }
        assert_eq!(before, rustix::process::getcwd(Vec::new()));
    }
}

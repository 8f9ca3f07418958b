// SPDX-License-Identifier: Apache-2.0
//! New processes and namespaces: `clone3(2)`, `clone(2)`, `unshare(2)`.

use crate::{Error, Result};
use rustix::io::Errno;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Flags of `clone3(2)`, as the kernel numbers them.
#[allow(missing_docs, reason = "named as in the man page")]
pub mod flags {
    pub const NEWTIME: u64 = 0x80;
    /// The child is the caller's sibling: our parent's child.
    pub const PARENT: u64 = 0x8000;
    pub const NEWNS: u64 = 0x2_0000;
    pub const NEWCGROUP: u64 = 0x0200_0000;
    pub const NEWUTS: u64 = 0x0400_0000;
    pub const NEWIPC: u64 = 0x0800_0000;
    pub const NEWUSER: u64 = 0x1000_0000;
    pub const NEWPID: u64 = 0x2000_0000;
    pub const NEWNET: u64 = 0x4000_0000;
    pub(crate) const PIDFD: u64 = 0x1000;
    // musl's libc has no name for it. Linux 5.7.
    pub(crate) const INTO_CGROUP: u64 = 0x2_0000_0000;
}

/// Where one is after a clone.
#[derive(Debug)]
pub enum Forked {
    /// In the process that called.
    Parent {
        /// The child, in our pid namespace.
        pid: i32,
        /// Likewise, as a descriptor that cannot come to mean another process.
        pidfd: OwnedFd,
    },
    /// In the new process.
    Child,
}

/// Makes a process that shares no memory with us, in new namespaces and, with `cgroup`, in that
/// cgroup (v2 only) from its first moment on.
///
/// `clone3(2)`, Linux 5.3; `CLONE_INTO_CGROUP` 5.7. Callers are single-threaded: in a process with
/// other threads the child could wait forever for a lock that one of them held.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    let mut pidfd: i32 = -1;
    // SAFETY: an all-zero clone_args is the documented "no extras" value of a plain C struct.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | flags::PIDFD;
    args.pidfd = &raw mut pidfd as u64;
    // SIGCHLD; a sibling takes over ours, and may name none.
    args.exit_signal = if flags & flags::PARENT == 0 { 17 } else { 0 };
    if let Some(cgroup) = cgroup {
        args.flags |= flags::INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or(0);
    }
    // SAFETY: `args` and `pidfd` outlive the call; without CLONE_VM the child gets copies of all
    // memory, so nothing is shared that two processes could change.
    let ret =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match i32::try_from(ret) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) if pid > 0 => {
            // SAFETY: the kernel has just opened this descriptor for us alone.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent { pid, pidfd })
        }
        _ => Err(Error::last(format!("clone3({:#x})", args.flags))),
    }
}

/// Gives the calling thread namespaces of its own. `unshare(2)`.
///
/// Only namespaces (`flags`) are taken, never CLONE_FILES or CLONE_VM.
pub fn unshare(flags: u64) -> Result<()> {
    let only = flags::NEWNS
        | flags::NEWCGROUP
        | flags::NEWUTS
        | flags::NEWIPC
        | flags::NEWUSER
        | flags::NEWPID
        | flags::NEWNET
        | flags::NEWTIME;
    let raw = i32::try_from(flags & only)
        .map_err(|_| Error::new(Errno::INVAL, format!("unshare({flags:#x})")))?;
    // SAFETY: new namespaces change what the thread sees, not its memory or descriptors.
    let ret = unsafe { libc::unshare(raw) };
    if ret == 0 { Ok(()) } else { Err(Error::last(format!("unshare({flags:#x})"))) }
}

/// What the sibling of [`become_sibling`] is to do, with the number that its parent has for it.
struct Sibling<F> {
    work: Option<F>,
    pid: libc::pid_t,
}

/// Stack of such a sibling, in bytes: it prepares an exec and runs the hooks of a start.
const STACK_BYTES: usize = 256 << 10;

/// Goes on in a sibling, which is in the pid namespace that `setns(2)` or `unshare(2)` chose for children,
/// and ends the calling process when the sibling has become a program or has ended.
///
/// `clone(2)` with CLONE_PARENT, CLONE_VM and CLONE_VFORK. It is the call that seccomp profiles of
/// containers allow, and the number is in memory before the sibling takes its first step.
///
/// `work` gets the sibling's number in the caller's pid namespace and must end by an exec or [`exit_now`].
/// Comes back only when no sibling could be made.
#[must_use]
pub fn become_sibling<F: FnOnce(i32) -> std::convert::Infallible>(work: F) -> Error {
    const PARENT: libc::c_int = 0x8000;
    extern "C" fn enter<F: FnOnce(i32) -> std::convert::Infallible>(
        arg: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: `arg` is the `Sibling<F>` below. Its owner is suspended until this process execs or
        // ends (CLONE_VFORK), and never touches it again: so it is ours alone.
        let sibling = unsafe { &mut *arg.cast::<Sibling<F>>() };
        match sibling.work.take().map(|work| work(sibling.pid)) {
            Some(never) => match never {},
            None => crate::exit_now(127),
        }
    }
    // Kept until the end of the process: the sibling runs on it.
    let stack = Box::leak(vec![0_u128; STACK_BYTES / size_of::<u128>()].into_boxed_slice());
    let top = stack.as_mut_ptr_range().end;
    let mut sibling = Sibling { work: Some(work), pid: 0 };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | PARENT | libc::CLONE_PARENT_SETTID;
    // SAFETY: the stack is as large as said, aligned, and lives as long as this address space; the
    // argument and the number lie in the frame of a caller that is suspended meanwhile.
    let pid = unsafe {
        libc::clone(
            enter::<F>,
            top.cast(),
            flags,
            (&raw mut sibling).cast(),
            &raw mut sibling.pid,
            std::ptr::null_mut::<libc::c_void>(),
            std::ptr::null_mut::<libc::pid_t>(),
        )
    };
    if pid > 0 {
        crate::exit_now(0);
    }
    Error::last("clone(PARENT|VM|VFORK)")
}

// SPDX-License-Identifier: Apache-2.0
//! New processes and namespaces: `clone3(2)`, `clone(2)`, `unshare(2)`.

use crate::{Error, Result, give_back_pages};
use rustix::io::Errno;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

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
pub enum ForkResult {
    /// In the process that called.
    Parent {
        /// The child, in our pid namespace.
        pid: i32,
        /// The same as a descriptor, which cannot come to mean another process.
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
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<ForkResult> {
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
        Ok(0) => Ok(child()),
        Ok(pid) if pid > 0 => {
            // SAFETY: the kernel has just opened this descriptor for us alone.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(ForkResult::Parent { pid, pidfd })
        }
        _ => Err(Error::last(format!("clone3({:#x})", args.flags))),
    }
}

/// The flags of [`fork`], as the first argument of the call: the child's end sends SIGCHLD.
pub(crate) const FORK: u64 = flags::PIDFD | 17;

/// Makes a process that shares no memory with us, also under a filter that hides `clone3(2)`, as default ones do.
///
/// `clone(2)` with CLONE_PIDFD, Linux 5.2. Callers are single-threaded, as those of [`clone3`].
pub fn fork() -> Result<ForkResult> {
    let mut pidfd: i32 = -1;
    let flags = FORK;
    // The order of the last two differs between machines; both are unused.
    // SAFETY: without a stack of its own and without CLONE_VM the child continues here on copies of all memory; the
    // kernel writes the descriptor to `pidfd`, which outlives the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, &raw mut pidfd, 0_usize, 0_usize) };
    match i32::try_from(ret) {
        Ok(0) => Ok(child()),
        Ok(pid) if pid > 0 => {
            // SAFETY: the kernel has just opened this descriptor for us alone.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(ForkResult::Parent { pid, pidfd })
        }
        _ => Err(Error::last(format!("clone({flags:#x})"))),
    }
}

/// The state in which a child begins: its filter may forbid the call that gives memory back, and its own memory goes with
/// it soon.
fn child() -> ForkResult {
    give_back_pages(false);
    ForkResult::Child
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

/// Where the kernel puts the number of a sibling ([`fork_sibling`]): a page that its maker and their parent
/// share, and that the sibling has not. So nobody who reaches into the sibling can name another process.
#[derive(Debug)]
pub struct BirthSlot {
    number: NonNull<AtomicI32>,
}

/// In bytes; the kernel maps whole pages.
const SLOT_BYTES: usize = size_of::<AtomicI32>();

impl BirthSlot {
    /// Made by the parent, before it clones the maker. `mmap(2)`, MAP_SHARED | MAP_ANONYMOUS.
    pub fn new() -> Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let page =
            unsafe { libc::mmap(std::ptr::null_mut(), SLOT_BYTES, protection, flags, -1, 0) };
        let failed = || Error::last("mmap(SHARED)");
        if page == libc::MAP_FAILED {
            return Err(failed());
        }
        NonNull::new(page.cast()).map(|number| Self { number }).ok_or_else(failed)
    }

    /// The sibling's number in the maker's pid namespace, once there is one. It is there before the sibling
    /// takes its first step.
    #[must_use]
    pub fn get(&self) -> Option<i32> {
        // SAFETY: the mapping lives as long as `self`, is aligned, and all that is done to it is atomic.
        let number = unsafe { self.number.as_ref() };
        Some(number.load(Ordering::Acquire)).filter(|number| *number != 0)
    }

    /// Children that are made from now on do not get the page: called by the maker for its own, and by its parent, as
    /// soon as there is a maker, for those that it makes next. `madvise(2)`, MADV_DONTFORK.
    pub fn keep_from_children(&self) -> Result<()> {
        let page = self.number.as_ptr().cast();
        // SAFETY: our own mapping; only what a later fork copies changes.
        let ret = unsafe { libc::madvise(page, SLOT_BYTES, libc::MADV_DONTFORK) };
        if ret == 0 { Ok(()) } else { Err(Error::last("madvise(DONTFORK)")) }
    }
}

impl Drop for BirthSlot {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, unmapped once; nobody has a reference any more.
        unsafe { libc::munmap(self.number.as_ptr().cast(), SLOT_BYTES) };
    }
}

/// The flags of [`fork_sibling`], as the first argument of the call.
#[allow(clippy::cast_sign_loss, reason = "bits")]
pub(crate) const SIBLING: u64 = (libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID) as u64;

/// Makes a sibling of the calling process, a child of its parent, in the pid namespace that `setns(2)` chose
/// for children. It gets a copy of all memory, but for `slot`. True in the sibling.
///
/// `clone(2)` and not `clone3(2)`, which seccomp profiles of containers answer with ENOSYS.
pub fn fork_sibling(slot: &BirthSlot) -> Result<bool> {
    // SAFETY: without CLONE_VM the sibling gets copies of all memory, and with no stack given goes on on its
    // own copy of ours. The kernel writes the number into a mapping that lives past the call.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone, SIBLING, 0_usize, slot.number.as_ptr(), 0_usize, 0_usize)
    };
    match pid {
        0 => Ok(true),
        pid if pid > 0 => Ok(false),
        _ => Err(Error::last("clone(PARENT)")),
    }
}

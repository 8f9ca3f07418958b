// SPDX-License-Identifier: Apache-2.0
//! Restrictions of processes: seccomp filters, device programs of cgroups, scheduling.

use crate::{Error, Result};
use rustix::io::Errno;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Installs a filter for the calling thread. `program` is an array of `struct sock_filter`, eight
/// bytes each, in host order.
///
/// `seccomp(2)`, Linux 3.17. Needs no-new-privs or CAP_SYS_ADMIN.
pub fn install_seccomp(program: &[u8], flags: u32) -> Result<()> {
    set_filter(program, flags).map(drop)
}

/// As [`install_seccomp`]; gives the descriptor on which the kernel asks what is to become of the calls that the
/// filter notifies of. `seccomp_unotify(2)`, Linux 5.0; with TSYNC 5.7.
pub fn install_seccomp_listener(program: &[u8], flags: u32) -> Result<OwnedFd> {
    const TSYNC: u32 = 1;
    const NEW_LISTENER: u32 = 8;
    /// Without it the number of a thread and that of a descriptor could not be distinguished.
    const TSYNC_ESRCH: u32 = 16;
    let more = if flags & TSYNC == 0 { NEW_LISTENER } else { NEW_LISTENER | TSYNC_ESRCH };
    let number = set_filter(program, flags | more)?;
    // SAFETY: the kernel has just opened this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn set_filter(program: &[u8], flags: u32) -> Result<i32> {
    const SET_MODE_FILTER: libc::c_uint = 1;
    let call =
        || format!("seccomp(SET_MODE_FILTER, {flags:#x}, {} instructions)", program.len() / 8);
    if program.is_empty() || !program.len().is_multiple_of(8) {
        return Err(Error::new(Errno::INVAL, call()));
    }
    let count = u16::try_from(program.len() / 8).map_err(|_| Error::new(Errno::INVAL, call()))?;
    // Copied into items of the right alignment.
    let mut filter: Vec<libc::sock_filter> = program
        .chunks_exact(8)
        .map(|item| libc::sock_filter {
            code: u16::from_ne_bytes([item[0], item[1]]),
            jt: item[2],
            jf: item[3],
            k: u32::from_ne_bytes([item[4], item[5], item[6], item[7]]),
        })
        .collect();
    let program = libc::sock_fprog { len: count, filter: filter.as_mut_ptr() };
    // SAFETY: `program` points to `count` items that live past the call; the kernel copies them.
    let ret =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) };
    i32::try_from(ret).ok().filter(|ret| *ret >= 0).ok_or_else(|| Error::last(call()))
}

/// Loads a device program and attaches it to a v2 cgroup, beside those of its parents.
///
/// `bpf(2)`: BPF_PROG_LOAD, BPF_PROG_ATTACH, type cgroup/dev, Linux 4.15. `program` is an array of
/// eight-byte instructions. The cgroup keeps the program when the descriptor is closed.
pub fn bpf_cgroup_device(cgroup: BorrowedFd<'_>, program: &[u64]) -> Result<()> {
    const PROG_LOAD: libc::c_int = 5;
    const PROG_ATTACH: libc::c_int = 8;
    const TYPE_CGROUP_DEVICE: u32 = 15;
    const ATTACH_CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;

    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        flags: u32,
    }
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let raw = |fd: i32| u32::try_from(fd).unwrap_or(u32::MAX);
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `load` and what it points to, all of which lives past the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of_val(&load)) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(Error::last(format!("bpf(PROG_LOAD, {} instructions)", program.len())));
    }
    // SAFETY: the kernel has just opened this descriptor for us alone.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = Attach {
        target: raw(cgroup.as_raw_fd()),
        program: raw(loaded.as_raw_fd()),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the kernel only reads `attach`; both descriptors are open.
    let ret = unsafe {
        libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of_val(&attach))
    };
    if ret == 0 { Ok(()) } else { Err(Error::last("bpf(PROG_ATTACH, CGROUP_DEVICE)")) }
}

/// Sets the calling thread's I/O class and level. `ioprio_set(2)`.
pub fn ioprio_set(class: u8, level: u8) -> Result<()> {
    let value = i32::from(class) << 13 | i32::from(level);
    // SAFETY: plain numbers; 1 is IOPRIO_WHO_PROCESS, 0 the caller.
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) };
    if ret == 0 { Ok(()) } else { Err(Error::last(format!("ioprio_set({class}, {level})"))) }
}

/// How the kernel is to schedule a thread: `struct sched_attr` of `sched_setattr(2)`. The default is that of the
/// kernel's first process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value, for the policies that have one.
    pub nice: i32,
    /// Priority, for the real-time policies.
    pub priority: u32,
    /// Nanoseconds of CPU per period, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds until that time must have been given.
    pub deadline: u64,
    /// Length of the period in nanoseconds.
    pub period: u64,
}

/// Sets the scheduling of a process by its number; of the calling thread with 0. `sched_setattr(2)`, Linux 3.14.
pub fn sched_setattr(pid: i32, attr: &SchedAttr) -> Result<()> {
    #[repr(C)]
    struct Raw {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let SchedAttr { policy, flags, nice, priority, runtime, deadline, period } = *attr;
    let raw = Raw { size: 48, policy, flags, nice, priority, runtime, deadline, period };
    // SAFETY: the kernel reads `size` bytes of `raw`, which is that long.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const raw, 0) };
    if ret == 0 {
        Ok(())
    } else {
        Err(Error::last(format!(
            "sched_setattr({policy}, nice {nice}, priority {priority}, flags {flags:#x}, \
             {runtime}/{deadline}/{period})"
        )))
    }
}

/// Sets from which nodes the calling thread gets memory. `nodes` are the bits of a mask, least significant first.
/// `set_mempolicy(2)`.
pub fn set_mempolicy(mode: u32, nodes: &[u64]) -> Result<()> {
    // One more than there are bits, `set_mempolicy(2)`, BUGS.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads as many bits of the mask as there are, and none without one.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    if ret == 0 { Ok(()) } else { Err(Error::last(format!("set_mempolicy({mode:#x})"))) }
}

/// Sets the execution domain. `personality(2)`.
pub fn personality(value: u64) -> Result<()> {
    // SAFETY: a plain number.
    let ret = unsafe { libc::syscall(libc::SYS_personality, value) };
    if ret >= 0 { Ok(()) } else { Err(Error::last(format!("personality({value:#x})"))) }
}

/// Sets a resource limit of this process. What is above our own hard limit is cut to it when we may
/// not raise it. `prlimit(2)`; `resource` is an `RLIMIT_*` number.
pub fn setrlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let set = |soft: u64, hard: u64| {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: the kernel only reads `limit`.
        let ret = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, 0) };
        if ret == 0 {
            Ok(())
        } else {
            Err(Error::last(format!("prlimit({resource}, {soft}, {hard})")))
        }
    };
    match set(soft, hard) {
        Err(err) if err.errno() == Errno::PERM => {
            let mut own = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: the kernel writes `own`, which is that long.
            let ret = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, 0, &raw mut own) };
            if ret != 0 {
                return Err(err);
            }
            set(soft.min(own.rlim_max), hard.min(own.rlim_max))
        }
        other => other,
    }
}

/// Gives the calling process another session keyring, and so no way to its maker's: the one of this name,
/// which is made if there is none; without a name a new one that nobody else can join.
/// `keyctl(2)`, KEYCTL_JOIN_SESSION_KEYRING.
pub fn join_session_keyring(name: Option<&str>) -> Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let call = || format!("keyctl(JOIN_SESSION_KEYRING, {})", name.unwrap_or("NULL"));
    let text = name.map(std::ffi::CString::new).transpose();
    let text = text.map_err(|_| Error::new(Errno::INVAL, call()))?;
    let pointer = text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: the kernel only reads the text, which lives past the call.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, pointer) };
    if ret >= 0 { Ok(()) } else { Err(Error::last(call())) }
}

// SPDX-License-Identifier: Apache-2.0
//! Attributes that a process inherits over `fork(2)` and `execve(2)`, back to what the kernel gives its first process.
//!
//! A daemon has some of them by its service's settings (`CPUAffinity=`, `Nice=`, `IOSchedulingClass=`), by taskset, nice,
//! numactl or setarch, or by the shell that started it. They are its own, and containers are not to have them.
//! The limits of resources, umask, signals, keyring and the score of the OOM killer are not here: each process of a
//! container gets these one by one.

use crate::security::{SchedAttr, ioprio_set, personality, sched_setattr, set_mempolicy};
use crate::{Error, Result};
use rustix::io::Errno;
use std::fs;

/// CPUs in a mask that is longer than any kernel's (`NR_CPUS` is at most 8192), in words of 64.
const CPU_WORDS: usize = 8192 / 64;
/// Timer slack of the kernel's first process, in nanoseconds. `prctl(2)`, PR_SET_TIMERSLACK.
const TIMER_SLACK_NS: libc::c_ulong = 50_000;
/// Which mappings a core dump has, without `coredump_filter=` on the kernel's command line. `core(5)`.
const COREDUMP_FILTER: &str = "0x33";

/// Lets the calling thread, and all that it starts from now on, run on every CPU of its cpuset.
/// `sched_setaffinity(2)`.
pub fn reset_affinity() -> Result<()> {
    set_affinity(&[u64::MAX; CPU_WORDS])
}

/// Lets the calling thread, and all that it starts from now on, run on these CPUs only: the bits of a mask, least
/// significant first. `sched_setaffinity(2)`.
pub fn set_affinity(cpus: &[u64]) -> Result<()> {
    // SAFETY: the kernel reads as many bytes of `cpus` as it has.
    let ret =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(cpus), cpus.as_ptr()) };
    let named = || if cpus.iter().all(|word| *word == u64::MAX) { "all" } else { "mask" };
    if ret == 0 { Ok(()) } else { Err(Error::last(format!("sched_setaffinity({})", named()))) }
}

/// Lets it take memory from any node of its cpuset. `set_mempolicy(2)`.
fn memory_policy() -> Result<()> {
    let mut policy: libc::c_int = 0;
    let none = std::ptr::null::<u8>();
    // SAFETY: the kernel writes one int, and no mask without a pointer to one.
    let ret = unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut policy, none, 0, none, 0) };
    // A kernel without NUMA, or a filter around us, has no policy that could be inherited or changed.
    if ret != 0 || policy == 0 {
        return Ok(());
    }
    set_mempolicy(0, &[])
}

/// Gives the calling thread, which must be the only one of its process, the attributes of the kernel's first process.
/// Those that could not be changed come back as errors; all others are changed nevertheless.
#[must_use]
pub fn reset_inherited() -> Vec<Error> {
    let steps: [fn() -> Result<()>; 7] =
        [reset_affinity, memory_policy, scheduling, domain, security, memory, || ioprio_set(0, 0)];
    steps.into_iter().filter_map(|step| step().err()).collect()
}

/// The policy, the nice value and the timer slack, which is 0 while the policy is a real-time one.
fn scheduling() -> Result<()> {
    // SAFETY: plain numbers, 0 is the caller.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    // The call itself gives 20 less the nice value.
    // SAFETY: plain numbers, 0 is PRIO_PROCESS and the caller.
    let nice = 20 - unsafe { libc::syscall(libc::SYS_getpriority, 0, 0) };
    if policy != 0 || nice != 0 {
        sched_setattr(0, &SchedAttr::default())?;
    }
    prctl("SET_TIMERSLACK", libc::PR_SET_TIMERSLACK, [TIMER_SLACK_NS, 0, 0]).map(drop)
}

fn domain() -> Result<()> {
    const QUERY: libc::c_ulong = 0xffff_ffff;
    // SAFETY: a plain number; this one changes nothing.
    match unsafe { libc::syscall(libc::SYS_personality, QUERY) } {
        0 => Ok(()),
        _ => personality(0),
    }
}

/// The secure bits (`capabilities(7)`), and mitigations of speculation that somebody asked for.
fn security() -> Result<()> {
    /// `PR_SPEC_PRCTL`, and `PR_SPEC_DISABLE` or `PR_SPEC_DISABLE_NOEXEC`.
    const MAY_CHANGE: i64 = 1;
    const DISABLED: i64 = 4 | 16;
    const ENABLE: libc::c_ulong = 2;
    // Without a name in musl's libc.
    const GET_SPECULATION: libc::c_int = 52;
    const SET_SPECULATION: libc::c_int = 53;
    if prctl("GET_SECUREBITS", libc::PR_GET_SECUREBITS, [0; 3])? != 0 {
        prctl("SET_SECUREBITS, 0", libc::PR_SET_SECUREBITS, [0; 3])?;
    }
    // Store bypass, indirect branches, flushing of the L1 data cache.
    for which in 0..3 {
        let now = get(GET_SPECULATION, which);
        if now & MAY_CHANGE != 0 && now & DISABLED != 0 {
            let words = [which, ENABLE, 0];
            prctl("SET_SPECULATION_CTRL, ENABLE", SET_SPECULATION, words)?;
        }
    }
    Ok(())
}

/// Huge pages, merging of pages, the writer's share of dirty pages, errors of the memory, and core dumps.
fn memory() -> Result<()> {
    const SET_MEMORY_MERGE: libc::c_int = 67;
    const GET_MEMORY_MERGE: libc::c_int = 68;
    const SET_IO_FLUSHER: libc::c_int = 57;
    const GET_IO_FLUSHER: libc::c_int = 58;
    /// `PR_MCE_KILL_DEFAULT`; `PR_MCE_KILL_CLEAR` is 0.
    const MCE_DEFAULT: i64 = 2;
    let flags = [
        ("SET_THP_DISABLE, 0", libc::PR_GET_THP_DISABLE, libc::PR_SET_THP_DISABLE),
        ("SET_MEMORY_MERGE, 0", GET_MEMORY_MERGE, SET_MEMORY_MERGE),
        ("SET_IO_FLUSHER, 0", GET_IO_FLUSHER, SET_IO_FLUSHER),
    ];
    for (name, look, set) in flags {
        if get(look, 0) > 0 {
            prctl(name, set, [0; 3])?;
        }
    }
    if get(libc::PR_MCE_KILL_GET, 0) != MCE_DEFAULT {
        prctl("MCE_KILL, CLEAR", libc::PR_MCE_KILL, [0; 3])?;
    }
    let path = "/proc/self/coredump_filter";
    let of_init = fs::read_to_string("/proc/1/coredump_filter");
    let filter =
        of_init.map_or_else(|_| COREDUMP_FILTER.into(), |text| format!("0x{}", text.trim()));
    match fs::write(path, &filter) {
        // A kernel without core dumps.
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
        written => written.map_err(Error::of_io(|| format!("write({path}, {filter})"))),
    }
}

/// The answer of the kernel; a negative number from one that does not know the request.
fn get(request: libc::c_int, which: libc::c_ulong) -> i64 {
    prctl("", request, [which, 0, 0]).unwrap_or(-1)
}

/// `prctl(2)`, with a last argument of 0.
fn prctl(name: &str, request: libc::c_int, words: [libc::c_ulong; 3]) -> Result<i64> {
    // SAFETY: every request of this file takes plain numbers, and none writes to memory of ours.
    let ret = unsafe { libc::syscall(libc::SYS_prctl, request, words[0], words[1], words[2], 0) };
    match ret {
        0.. => Ok(ret),
        _ => Err(Error::new(
            Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL),
            format!("prctl({name})"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// In a thread of its own: most of this belongs to a thread.
    #[test]
    fn all_that_was_changed_is_back() {
        if !crate::root_is_here("all_that_was_changed_is_back") {
            return;
        }
        let changed = || {
            let all = sched_getaffinity(None).unwrap();
            let mut one = CpuSet::new();
            one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
            sched_setaffinity(None, &one).unwrap();
            sched_setattr(0, &SchedAttr { policy: 3, nice: 5, ..SchedAttr::default() }).unwrap();
            ioprio_set(2, 7).unwrap();
            personality(0x0004_0000).unwrap();
            for (request, value) in [
                (libc::PR_SET_TIMERSLACK, 77),
                (libc::PR_SET_SECUREBITS, 4),
                (libc::PR_SET_THP_DISABLE, 1),
            ] {
                prctl("", request, [value, 0, 0]).unwrap();
            }
            // Early, for any thread of the process.
            prctl("", libc::PR_MCE_KILL, [1, 1, 0]).unwrap();
            assert_eq!(reset_inherited().iter().map(Error::to_string).collect::<Vec<_>>(), [""; 0]);
            assert_eq!(sched_getaffinity(None).unwrap(), all);
            for (request, value) in [
                (libc::PR_GET_TIMERSLACK, 50_000),
                (libc::PR_GET_SECUREBITS, 0),
                (libc::PR_GET_THP_DISABLE, 0),
                (libc::PR_MCE_KILL_GET, 2),
            ] {
                assert_eq!(get(request, 0), value, "{request}");
            }
            let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            // The nice value and the policy, proc_pid_stat(5).
            assert_eq!((fields[16], fields[38]), ("0", "0"), "{stat}");
            assert_eq!(fs::read_to_string("/proc/thread-self/personality").unwrap(), "00000000\n");
        };
        std::thread::spawn(changed).join().unwrap();
    }
}

// SPDX-License-Identifier: Apache-2.0
//! RuntimeDefault: the system calls that a container may make unless its pod names another profile.
//!
//! The rule: nothing passes that the default profiles of containerd and moby both deny (compared with those
//! of August 2026), and what both let pass passes here too, so that a program that runs there runs here. One
//! exception, where the two leave a hole that they know of: a 32-bit program cannot reach a socket family
//! through `socketcall(2)` that `socket(2)` refuses it.

use super::compile::CACHED_MAX;
use crate::capabilities;
use hull_sys::arch::SECCOMP_ARCHITECTURES;
use oci_spec::runtime::{Capabilities, LinuxSeccomp};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Allowed for every container.
const ALLOWED: &str = "
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown
chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate
fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync
fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt
get_thread_area gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents
io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule
landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount
listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise
map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2
mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv
msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat
openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll
ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 ptrace
pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg
recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr
sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64
sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32
setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask
sigreturn splice stat stat64 statfs statfs64 statmount statx symlink symlinkat
sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask
uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid
waitpid write writev process_vm_readv process_vm_writev";

/// Allowed for every container on ARM, for 32-bit programs; the last one sets the address of thread-local memory.
const OF_ARM: &str =
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

/// Allowed with a capability, by its number.
const WITH_CAPABILITY: [(u32, &str); 11] = [
    (2, "open_by_handle_at"),
    (
        21,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open \
         quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (22, "reboot"),
    (18, "chroot"),
    (16, "delete_module init_module finit_module"),
    (20, "acct"),
    (19, "kcmp pidfd_getfd process_madvise"),
    (17, "iopl ioperm"),
    (25, "settimeofday stime clock_settime clock_settime64"),
    (26, "vhangup"),
    (23, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
];

/// Denied by name though they are newer than all that are allowed: calls beyond the newest name fail with `ENOSYS`.
const DENIED: [&str; 1] = ["open_tree_attr"];

/// Flags of clone(2) that make namespaces.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
const ENOSYS: u32 = 38;
/// Execution domains of personality(2) that do no harm.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Families of socket(2) below this number pass, `AF_ALG` (the kernel's cryptography) being the first that
/// does not.
const FAMILIES_BELOW: u64 = 38;
/// Families that pass besides: NFC, KCM, QIPCRTR, SMC, XDP and MCTP. Not VSOCK (40), which reaches the
/// hypervisor past all network policy, and not what a later kernel brings.
const FAMILIES: [u64; 6] = [39, 41, 42, 43, 44, 45];

/// The default profile for a process that may have these capabilities. Built once for each set of
/// them.
///
/// # Errors
/// Never, unless the profile here is not in the OCI form.
pub fn runtime_default(
    bounding: Option<&Capabilities>,
) -> Result<Arc<LinuxSeccomp>, serde_json::Error> {
    static KNOWN: Mutex<BTreeMap<u64, Arc<LinuxSeccomp>>> = Mutex::new(BTreeMap::new());
    let have = capabilities::bits(bounding);
    // Single inserts: a panic leaves nothing half done.
    if let Some(known) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&have) {
        return Ok(Arc::clone(known));
    }
    let made = Arc::new(made(have)?);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= CACHED_MAX {
        known.clear();
    }
    known.insert(have, Arc::clone(&made));
    Ok(made)
}

fn made(have: u64) -> Result<LinuxSeccomp, serde_json::Error> {
    let has = |number: u32| have >> number & 1 == 1;
    let mut rules = sockets();
    rules.push(allow(ALLOWED, &Value::Null));
    if cfg!(target_arch = "aarch64") {
        rules.push(allow(OF_ARM, &Value::Null));
    }
    for value in PERSONALITIES {
        rules.push(allow(
            "personality",
            &json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]),
        ));
    }
    for (number, names) in WITH_CAPABILITY {
        if has(number) {
            rules.push(allow(names, &Value::Null));
        }
    }
    if has(39) {
        rules.push(allow("bpf", &Value::Null));
    }
    if has(38) {
        rules.push(allow("perf_event_open", &Value::Null));
    }
    if has(34) {
        rules.push(allow("syslog", &Value::Null));
    }
    if !has(21) {
        let plain = json!([{"index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
        rules.push(allow("clone", &plain));
        // Its flags are in memory, where a filter cannot look: libraries fall back to clone.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    rules.push(json!({"names": DENIED, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}));
    serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": SECCOMP_ARCHITECTURES,
        "syscalls": rules,
    }))
}

/// Sockets of the families that pass.
///
/// All arguments of socketcall(2), which 32-bit x86 has, but its first are in memory, where a filter cannot look.
/// So it is not there: libraries use the calls behind it on `ENOSYS`, which Linux has for them since 4.3 (glibc for
/// i386 does not, its programs have no network under this profile). The rule stands first: libseccomp adds one
/// for socketcall(2) to each rule for one of those calls, and the earlier one wins.
fn sockets() -> Vec<Value> {
    let number = |value: u64, op: &str| json!([{"index": 0, "value": value, "op": op}]);
    let mut rules =
        vec![json!({"names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})];
    let calls = "socket socketpair";
    rules.push(allow(calls, &number(FAMILIES_BELOW, "SCMP_CMP_LT")));
    rules.extend(FAMILIES.map(|family| allow(calls, &number(family, "SCMP_CMP_EQ"))));
    rules
}

fn allow(names: &str, args: &Value) -> Value {
    let names: Vec<_> = names.split_whitespace().collect();
    let mut rule = json!({"names": names, "action": "SCMP_ACT_ALLOW"});
    if !args.is_null() {
        rule["args"] = args.clone();
    }
    rule
}

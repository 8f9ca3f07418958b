// SPDX-License-Identifier: Apache-2.0
//! A pause process under the hands of a tracer, which a container that shares its pid namespace and has
//! CAP_SYS_PTRACE can be.

use hull_tests::{ExpectExt as _, Node, eventually};
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;

/// Length of the `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;

/// Makes a process that waits in a system call make another one, as a debugger does; the signal that killed it
/// for that.
fn inject(pid: i32, number: libc::c_long, argument: libc::c_int) -> Option<Signal> {
    let pid = Pid::from_raw(pid);
    let wait = || waitpid(pid, Some(WaitPidFlag::__WALL)).or_fail("wait for a traced process");
    ptrace::attach(pid).or_fail("attach to a process");
    assert!(matches!(wait(), WaitStatus::Stopped(_, Signal::SIGSTOP)));
    let mut registers = ptrace::getregs(pid).or_fail("read registers");
    // No call to begin again: what is in rax now is not its answer.
    registers.orig_rax = u64::MAX;
    registers.rax = number.cast_unsigned();
    registers.rdi = argument.cast_unsigned().into();
    registers.rip -= SYSCALL_BYTES;
    ptrace::setregs(pid, registers).or_fail("write registers");
    // It stops where the call begins and where it ends, and is killed on the way out of the kernel.
    for _ in 0..3 {
        ptrace::syscall(pid, None).or_fail("let a traced process go on");
        if let WaitStatus::Signaled(_, signal, _) = wait() {
            return Some(signal);
        }
    }
    ptrace::detach(pid, None).or_fail("let a traced process go");
    None
}

/// Later containers of the pod join the namespaces of its pause process: one that a tenant could move elsewhere
/// would take them along.
#[tokio::test]
async fn pause_cannot_be_made_to_leave_its_namespaces() {
    let node = Node::start().await;
    let (cri, pod, _) = node.pod("web").await;
    let info = &cri.pod_status(&pod).await.or_fail("read the pod's status").info["info"];
    let info: serde_json::Value = serde_json::from_str(info).or_fail("read the pod's details");
    let pid = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).or_fail("find pause");
    // It installs its filter as it begins to run, which may be after RunPodSandbox has answered.
    eventually("pause has a seccomp filter", || async {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).or_fail("read its status");
        let has = |line: &str| status.lines().any(|one| one == line);
        let filtered = has("Seccomp:\t2") && has("Seccomp_filters:\t1");
        if filtered && has("NoNewPrivs:\t1") { Ok(()) } else { Err(status) }
    })
    .await;
    assert_eq!(inject(pid, libc::SYS_unshare, libc::CLONE_NEWUTS), Some(Signal::SIGSYS));
}

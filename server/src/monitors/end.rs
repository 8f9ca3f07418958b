// SPDX-License-Identifier: Apache-2.0
//! Ending a monitor that does not answer. One that an earlier daemon started is not our child, and its
//! process id came over the connection that no longer answers; so it is found by its command line, which has
//! the pod's id.

use hull_proto::id::PodId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How long a killed monitor is waited for. One that is stuck in the kernel is left to it: its connection
/// is not used any more, and the pod's cgroups are cleared without it.
const END_MAX: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Kills the monitor of a pod and waits until it has ended. Whether there was one. Blocks.
pub(crate) fn kill(pod: &PodId) -> bool {
    let found: Vec<OwnedFd> = numbers().into_iter().filter_map(|pid| open(pid, pod)).collect();
    for monitor in &found {
        // One that has ended meanwhile is what was wanted.
        let _ended = pidfd_send_signal(monitor, Signal::KILL);
    }
    for monitor in &found {
        let _woken = poll(&mut [PollFd::new(monitor, PollFlags::IN)], Some(&END_MAX));
    }
    !found.is_empty()
}

/// The pods whose monitors run and listen below `run_dir`: those of another daemon listen elsewhere. Blocks.
pub(crate) fn running(run_dir: &Path) -> Vec<PodId> {
    let here = listening().into_iter().filter(|of| of.socket.starts_with(run_dir));
    here.map(|of| of.pod).collect()
}

/// The processes of the monitors of these pods. Blocks.
pub(super) fn monitors_of(pods: &BTreeSet<PodId>) -> Vec<i32> {
    let is_of = |pid: &i32| monitored(*pid).is_some_and(|pod| pods.contains(&pod));
    numbers().into_iter().filter(is_of).collect()
}

/// The pod whose monitor a process is, by its command line: `proc_pid_cmdline(5)`.
fn monitored(pid: i32) -> Option<PodId> {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = arguments.split(|byte| *byte == 0);
    let is_monitor = arguments.next() == Some(b"hull-monitor");
    let pod = PodId::parse(std::str::from_utf8(arguments.next()?).ok()?).ok();
    pod.filter(|_| is_monitor && is_root_here(pid))
}

/// The pods of other daemons: their monitors run, and listen elsewhere than below `run_dir`. Blocks.
pub(crate) fn elsewhere(run_dir: &Path) -> BTreeSet<PodId> {
    let others = listening().into_iter().filter(|of| !of.socket.starts_with(run_dir));
    others.map(|of| of.pod).collect()
}

/// A monitor that runs.
struct Listening {
    pod: PodId,
    socket: PathBuf,
}

/// The monitors of this host that run, with the paths of their sockets.
fn listening() -> Vec<Listening> {
    // `proc_net(5)`: the inode is the seventh field, the path the eighth. Paths of Hull's have no blanks.
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let paths: HashMap<&str, &str> = sockets
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(6);
            Some((fields.next()?, fields.next()?))
        })
        .collect();
    let listening = |pid: i32| {
        let pod = monitored(pid)?;
        // It moves what it was started with to other descriptors. Its connections have the path of its socket.
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let mut found = fds.filter_map(|fd| {
            let socket = fs::read_link(fd.path()).ok()?;
            let inode = socket.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            paths.get(inode).map(PathBuf::from)
        });
        Some(Listening { pod, socket: found.next()? })
    };
    numbers().into_iter().filter_map(listening).collect()
}

fn numbers() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The process, if it is the pod's monitor. Its number may become another's at any time, so it is looked
/// at again once it is held.
fn open(pid: i32, pod: &PodId) -> Option<OwnedFd> {
    if !is_monitor(pid, pod) {
        return None;
    }
    let held = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    is_monitor(pid, pod).then_some(held)
}

/// Whether a process is root's, in the user and pid namespaces of the daemon: any user can give a process any command
/// line.
fn is_root_here(pid: i32) -> bool {
    let is_root = fs::metadata(format!("/proc/{pid}")).is_ok_and(|of| of.uid() == 0);
    let is_same = |kind: &str| {
        let own = fs::read_link(format!("/proc/self/ns/{kind}"));
        let its = fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        matches!((own, its), (Ok(own), Ok(its)) if own == its)
    };
    is_root && is_same("user") && is_same("pid")
}

/// `proc_pid_cmdline(5)`: the arguments, each ended by a zero byte.
fn is_monitor(pid: i32, pod: &PodId) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut arguments = arguments.split(|byte| *byte == 0);
    arguments.next() == Some(b"hull-monitor")
        && arguments.next() == Some(pod.as_str().as_bytes())
        && is_root_here(pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::{Child, Command, Stdio};

    fn named(name: &str) -> Child {
        // It waits by itself: a child of its own would stay when it is killed.
        let mut command = Command::new("sh");
        command.arg0(name).args(["-c", "read line"]).stdin(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn nobody_else_is_taken_for_a_monitor() {
        let pod = PodId::from_random([9; 32]);
        let mut other = named("hull-monitor");
        assert!(!kill(&pod), "its second argument is another");
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        assert_eq!(other.wait().unwrap().signal(), Some(9));
    }
}

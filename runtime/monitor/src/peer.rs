// SPDX-License-Identifier: Apache-2.0
//! Decides whether a peer may be the daemon: root, in the same pid and user namespaces as this process.
//!
//! The path of the socket does not protect it. A container that has the state directory as a volume, even
//! read-only, can connect; and its root may be root here too. But it is in a pid namespace of its own.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::read_link;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

/// Namespaces that the daemon shares with us: it may have its own of every other kind.
const SHARED: [&str; 2] = ["pid", "user"];

/// Whether the process that connected may be the daemon. `false` also if that is unknown.
pub(crate) fn may_be_the_daemon(stream: &UnixStream) -> bool {
    let Ok(peer) = hull_sys::peer(stream.as_fd()) else { return false };
    if peer.uid != 0 {
        return false;
    }
    let Some(pid) = Pid::from_raw(peer.pid) else { return false };
    let Some(process) = process(stream, pid) else { return false };
    let beside_us = SHARED.iter().all(|kind| {
        let theirs = read_link(format!("/proc/{}/ns/{kind}", pid.as_raw_nonzero()));
        let ours = read_link(format!("/proc/self/ns/{kind}"));
        matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs == ours)
    });
    // As long as it is there the number is its own, so the links were.
    beside_us && hull_sys::pidfd_send_signal(process.as_fd(), 0).is_ok()
}

/// The process itself; before Linux 6.5 the one that has its number now.
fn process(stream: &UnixStream, pid: Pid) -> Option<OwnedFd> {
    match hull_sys::peer_pidfd(stream.as_fd()) {
        Ok(process) => Some(process),
        Err(err) if err.errno() == Errno::NOPROTOOPT => pidfd_open(pid, PidfdFlags::empty()).ok(),
        Err(_) => None,
    }
}

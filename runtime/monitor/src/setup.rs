// SPDX-License-Identifier: Apache-2.0
//! Becoming the monitor: inherited descriptors, signals, and the loop's first descriptors.

use crate::event_loop::{EventLoop, LISTEN, SIGNAL};
use crate::monitor::Monitor;
use hull_cgroup::CgroupFs;
use hull_proto::id::PodId;
use hull_proto::monitor::{LISTEN_FD, PAUSE_FD};
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;

/// Takes the descriptors that the daemon passed, and prepares the loop.
pub(crate) fn prepare(pod: &str) -> Result<Monitor, String> {
    let pod = PodId::parse(pod).map_err(|err| format!("take its argument: {err}"))?;
    let listener = hull_sys::inherited(LISTEN_FD)
        .ok_or_else(|| format!("find its socket as descriptor {LISTEN_FD}"))?;
    let pause = hull_sys::inherited(PAUSE_FD)
        .ok_or_else(|| format!("find the pause program as descriptor {PAUSE_FD}"))?;
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(true).map_err(|err| format!("use its socket: {err}"))?;
    let signals = hull_sys::block_signals().map_err(|err| format!("watch its children: {err}"))?;
    let us = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(us))
        .map_err(|err| format!("become subreaper: {err}"))?;
    // It was executed from a descriptor, whose number would be its name.
    let _unnamed = rustix::thread::set_name(c"hull-monitor");
    // What the daemon was started with is not for containers.
    for error in hull_sys::reset_inherited() {
        let text =
            shown(format!("{error}: containers inherit this from the daemon"), MESSAGE_BYTES_MAX);
        let _gone = writeln!(std::io::stderr(), "hull-monitor: pod {pod}: {text}");
    }
    // Being killed before what it watches would lose exits and output. Refused without
    // CAP_SYS_RESOURCE: then it keeps the score of the daemon.
    let _refused = fs::write("/proc/self/oom_score_adj", "-999");
    // Inherited from the daemon.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let host = CgroupFs::detect().map_err(|err| format!("find out about cgroups: {err}"))?;
    let events = EventLoop::new().map_err(|err| format!("epoll_create: {err}"))?;
    for (fd, token) in [(listener.as_fd(), LISTEN), (signals.as_fd(), SIGNAL)] {
        events.add_fixed(fd, token).map_err(|err| format!("epoll_ctl: {err}"))?;
    }
    Ok(Monitor::new(pod, us.as_raw_nonzero().get(), host, events, listener, signals, pause))
}

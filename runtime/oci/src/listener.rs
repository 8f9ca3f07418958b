// SPDX-License-Identifier: Apache-2.0
//! Seccomp notifications: the listener of a process's filter goes to an agent, with the state of the container
//! (`ContainerProcessState` of the runtime spec).
//!
//! ```text
//! process ── listener ──▶ this program ── listener, state ──▶ agent at `listenerPath`
//! ```

use crate::error::{Error, Result};
use crate::record::{ListenerPlace, Record};
use hull_init::PendingProcess;
use hull_plan::seccomp::notifies;
use oci_spec::runtime::LinuxSeccomp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, socketpair,
};
use serde_json::json;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// The place that a profile names; `None` if nothing notifies of anything.
pub(crate) fn place(profile: &LinuxSeccomp) -> Result<Option<ListenerPlace>> {
    if !notifies(profile) {
        return Ok(None);
    }
    let path = profile.listener_path().as_ref().map(|path| path.to_string_lossy().into_owned());
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        let source = hull_plan::Error::Missing { field: "linux.seccomp.listenerPath" };
        return Err(Error::PlanProcess { source });
    };
    Ok(Some(ListenerPlace {
        path,
        metadata: profile.listener_metadata().clone().unwrap_or_default(),
    }))
}

/// Connects to the agent, before anything is created for it.
pub(crate) fn connect_agent(place: &ListenerPlace) -> Result<Listener> {
    let failed = |errno| Error::Agent {
        path: place.path.clone(),
        source: hull_sys::Error::new(errno, "connect()"),
    };
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(Error::of(|| "socket(UNIX)"))?;
    let address = match place.path.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(place.path.as_str()),
    };
    connect(&socket, &address.map_err(failed)?).map_err(failed)?;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(Error::of(|| "socketpair(UNIX)"))?;
    Ok(Listener { agent: socket, ours, theirs, metadata: place.metadata.clone() })
}

/// The way of a listener.
#[derive(Debug)]
pub(crate) struct Listener {
    agent: OwnedFd,
    ours: OwnedFd,
    theirs: OwnedFd,
    metadata: String,
}

impl Listener {
    /// The end over which the process sends its listener.
    pub(crate) fn end(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    /// Waits for the listener of a process that is being started, and passes it on. Returns without if the process
    /// fails before, which its own report tells.
    pub(crate) fn pass_on(
        self,
        record: &Record,
        status: &str,
        started: &mut PendingProcess,
    ) -> Result<()> {
        drop(self.theirs);
        let listener = loop {
            let mut fds = [
                PollFd::new(&self.ours, PollFlags::IN),
                PollFd::new(&started.status, PollFlags::IN),
            ];
            let _woken = poll(&mut fds, None);
            let (sent, failed) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if sent {
                break hull_sys::receive_fd(self.ours.as_fd()).map_err(Error::call)?;
            }
            if failed {
                break None;
            }
        };
        let Some(listener) = listener.filter(|_| started.wait_for_program()) else { return Ok(()) };
        let first = record.first.map_or(started.pid, |first| first.pid);
        let state = json!({
            "ociVersion": record.oci_version, "id": record.id, "status": status, "pid": first,
            "bundle": record.bundle, "annotations": record.annotations,
        });
        let of = json!({
            "ociVersion": record.oci_version, "fds": ["seccompFd"], "pid": started.pid,
            "metadata": self.metadata, "state": state,
        });
        hull_sys::send_fd(self.agent.as_fd(), of.to_string().as_bytes(), listener.as_fd())
            .map_err(Error::call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_needs_a_place_only_where_something_notifies() {
        let of = |action: &str, path: &str| {
            let of = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "m",
                "syscalls": [{"names": ["mkdir"], "action": action}],
            });
            super::place(&serde_json::from_value(of).unwrap())
        };
        assert_eq!(of("SCMP_ACT_ERRNO", "/s").unwrap(), None);
        let found = of("SCMP_ACT_NOTIFY", "/s").unwrap().unwrap();
        assert_eq!((found.path.as_str(), found.metadata.as_str()), ("/s", "m"));
        of("SCMP_ACT_NOTIFY", "").unwrap_err();
        assert!(connect_agent(&found).unwrap_err().to_string().contains("seccomp agent at `/s`"));
    }
}

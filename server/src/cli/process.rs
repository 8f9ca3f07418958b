// SPDX-License-Identifier: Apache-2.0
//! The first process of a running container, held so that its pid cannot be another process's.

use super::client::Client;
use super::error::{Error, Result};
use super::names::container_name;
use super::{ended, verbose};
use hull_proto::cri as api;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;

/// The first process of a container.
#[derive(Debug)]
pub(crate) struct Process {
    /// Path of the container's cgroup.
    pub(crate) cgroup: String,
    /// Its directory in /proc, which never refers to another process.
    pub(crate) dir: OwnedFd,
    _pidfd: OwnedFd,
}

/// Opens the first process of a running container; `operation` is what for, and reads before "container".
pub(crate) async fn running(
    client: &mut Client,
    container: &api::Container,
    operation: &'static str,
) -> Result<Process> {
    ended::refuse(client, container, operation).await?;
    let stopped = || Error::Stopped { operation, name: container_name(container).to_owned() };
    let (pid, cgroup) = of_daemon(client, &container.id).await?;
    let number = Pid::from_raw(pid.max(0)).ok_or_else(stopped)?;
    let failed = |source| Error::Kernel { operation: "open the process of the container", source };
    let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Err(stopped()),
        Err(source) => return Err(failed(source)),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).map_err(failed)?;
    // While the pidfd is held the number may be reused only after the process was reaped; then the daemon knows.
    if of_daemon(client, &container.id).await?.0 != pid {
        return Err(stopped());
    }
    Ok(Process { cgroup, dir, _pidfd: pidfd })
}

/// The pid, 0 if it does not run, and the cgroup.
async fn of_daemon(client: &mut Client, id: &str) -> Result<(i32, String)> {
    const OPERATION: &str = "find the process of the container";
    let info = verbose::info(&verbose::container(client, id).await?.info, OPERATION)?;
    Ok((verbose::pid(&info, OPERATION)?, verbose::cgroup(&info, OPERATION)?))
}

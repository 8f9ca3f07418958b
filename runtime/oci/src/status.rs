// SPDX-License-Identifier: Apache-2.0
//! The status of a container, read from the kernel: whether the init process exists (by pid and start
//! time), whether it waits to be started, and whether the cgroup is frozen.

use crate::error::{Error, Result};
use crate::record::{InitProcess, Record};
use crate::state::Status;
use crate::store::Dir;
use hull_cgroup::{Cgroup, CgroupFs};
use hull_init::start_socket;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::{AsFd as _, OwnedFd};

/// The status, and the pidfd of the init process if it is alive.
pub(crate) fn of(dir: &Dir, record: &Record) -> Result<(Status, Option<OwnedFd>)> {
    let Some(first) = record.first else { return Ok((Status::Creating, None)) };
    let Some(process) = alive(first)? else { return Ok((Status::Stopped, None)) };
    let status = if is_frozen(record)? {
        Status::Paused
    } else if start_socket::has_waiter(dir.as_fd()).map_err(Error::call)? {
        Status::Created
    } else {
        Status::Running
    };
    Ok((status, Some(process)))
}

fn is_frozen(record: &Record) -> Result<bool> {
    cgroup(record)?.is_frozen().map_err(failed(&record.id))
}

/// In a frozen cgroup the container's process would never get ready, and this one would wait for it.
pub(crate) fn check_thawed(cgroup: &Cgroup, id: &str) -> Result<()> {
    match cgroup.frozen_above().map_err(failed(id))? {
        Some(path) => Err(Error::Frozen { path }),
        None => Ok(()),
    }
}

/// The host's cgroups, if the container has one.
pub(crate) fn host_of(record: &Record) -> Result<CgroupFs> {
    if record.without_cgroup {
        return Ok(CgroupFs::none());
    }
    CgroupFs::detect()
        .and_then(|host| host.beneath(&record.cgroup_roots))
        .map_err(failed(&record.id))
}

/// The container's cgroup.
pub(crate) fn cgroup(record: &Record) -> Result<Cgroup> {
    let host = host_of(record)?;
    Cgroup::at(&host, &record.cgroup).map_err(failed(&record.id))
}

pub(crate) fn failed(id: &str) -> impl FnOnce(hull_cgroup::Error) -> Error {
    let id = id.to_owned();
    move |source| Error::Cgroup { id, source }
}

/// Opens the process if it is alive: not gone, not a zombie, and not another process with the same pid.
pub(crate) fn alive(first: InitProcess) -> Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(first.pid) else { return Ok(None) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(None),
        Err(errno) => return Err(Error::of(|| format!("pidfd_open({})", first.pid))(errno)),
    };
    // Read after the pidfd was opened, so the pid cannot be reused in between.
    Ok(match look(first.pid) {
        Some((ticks, ended)) if ticks == first.start_ticks && !ended => Some(process),
        _ => None,
    })
}

/// Identifies a process that was just created, for its record.
pub(crate) fn first(pid: i32) -> Result<InitProcess> {
    let (start_ticks, _) =
        look(pid).ok_or_else(|| Error::of(|| format!("read(/proc/{pid}/stat)"))(Errno::SRCH))?;
    Ok(InitProcess { pid, start_ticks })
}

/// Reads the start time of a process and whether it has exited; `None` if there is no such process.
fn look(pid: i32) -> Option<(u64, bool)> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain any character.
    let after = text.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(text.get(after + 2..)?).ok()?;
    let mut fields = fields.split(' ');
    let first_thread_ended = matches!(fields.next()?, "Z" | "X");
    // Fields 20 and 22 of `proc_pid_stat(5)`, the state being the third. A process goes on while any of its
    // threads does; one that has ended counts itself until it is waited for.
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    Some((fields.nth(1)?.parse().ok()?, first_thread_ended && threads <= 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another_of_its_number() {
        let me = i32::try_from(std::process::id()).unwrap();
        let first = first(me).unwrap();
        assert!(alive(first).unwrap().is_some());
        assert!(
            alive(InitProcess { start_ticks: first.start_ticks + 1, ..first }).unwrap().is_none()
        );
    }
}

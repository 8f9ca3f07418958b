// SPDX-License-Identifier: Apache-2.0
//! What a container is doing, as the kernel tells: its first process is there (by its number and start)
//! or not; it waits at its gate or not; its cgroup is frozen or not.

use crate::error::{Error, Result};
use crate::record::{First, Record};
use crate::store::Dir;
use hull_cgroup::{Cgroup, Host};
use hull_init::gate;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The status, and the first process where it lives.
pub(crate) fn of(dir: &Dir, record: &Record) -> Result<(Status, Option<OwnedFd>)> {
    let Some(first) = record.first else { return Ok((Status::Creating, None)) };
    let Some(process) = alive(first)? else { return Ok((Status::Stopped, None)) };
    let status = if gate::is_waited_at(dir.as_fd()).map_err(Error::call)? {
        Status::Created
    } else if is_frozen(record)? {
        Status::Paused
    } else {
        Status::Running
    };
    Ok((status, Some(process)))
}

fn is_frozen(record: &Record) -> Result<bool> {
    cgroup(record)?.is_frozen().map_err(failed(&record.id))
}

/// The container's cgroup.
pub(crate) fn cgroup(record: &Record) -> Result<Cgroup> {
    let host = Host::detect().map_err(failed(&record.id))?;
    Cgroup::at(&host, &record.cgroup).map_err(failed(&record.id))
}

pub(crate) fn failed(id: &str) -> impl FnOnce(hull_cgroup::Error) -> Error {
    let id = id.to_owned();
    move |source| Error::Cgroup { id, source }
}

/// The process, if it lives: neither gone, nor only waiting for its parent to look, nor another of the
/// same number.
pub(crate) fn alive(first: First) -> Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(first.pid) else { return Ok(None) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(None),
        Err(errno) => return Err(Error::of(|| format!("pidfd_open({})", first.pid))(errno)),
    };
    // Read after it was opened: the number is held by then.
    Ok(match look(first.pid) {
        Some((ticks, ended)) if ticks == first.start_ticks && !ended => Some(process),
        _ => None,
    })
}

/// A process that has just been made, as it is written down.
pub(crate) fn first(pid: i32) -> Result<First> {
    let (start_ticks, _) =
        look(pid).ok_or_else(|| Error::of(|| format!("read(/proc/{pid}/stat)"))(Errno::SRCH))?;
    Ok(First { pid, start_ticks })
}

/// When it started, and whether it has ended. `None` when there is none.
fn look(pid: i32) -> Option<(u64, bool)> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
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
        assert!(alive(First { start_ticks: first.start_ticks + 1, ..first }).unwrap().is_none());
    }
}

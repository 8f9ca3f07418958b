// SPDX-License-Identifier: Apache-2.0
//! Maps of user namespaces: looking an id up, writing them, and namespaces that exist only to map mounts.

use crate::mount::{Result, errno_context};
use crate::plan::{IdMap, IdMaps, Step, StepError};
use hull_sys::{ForkResult, clone3, flags};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, WaitId, WaitIdOptions, set_dumpable_behavior, waitid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// The id on the host of an id in the user namespace, if a range has it. `user_namespaces(7)`.
#[must_use]
pub fn to_host_id(maps: &[IdMap], container_id: u32) -> Option<u32> {
    maps.iter().find_map(|map| {
        let offset =
            container_id.checked_sub(map.container_id).filter(|offset| *offset < map.length)?;
        map.host_id.checked_add(offset)
    })
}

/// Writes both maps of a process's user namespace, each in one write: `user_namespaces(7)`.
pub(crate) fn write_maps(pid: i32, maps: &IdMaps) -> Result<(), StepError> {
    for (file, ranges) in [("uid_map", &maps.uids), ("gid_map", &maps.gids)] {
        let path = format!("/proc/{pid}/{file}");
        let text: String = ranges
            .iter()
            .map(|range| format!("{} {} {}\n", range.container_id, range.host_id, range.length))
            .collect();
        fs::write(&path, text).map_err(|err| {
            let errno = Errno::from_io_error(&err).unwrap_or(Errno::IO);
            StepError::new(Step::IdMaps, errno, format!("write({path})"))
        })?;
    }
    Ok(())
}

/// Creates a user namespace with these maps and no process in it.
pub(crate) fn user_namespace(maps: &IdMaps) -> Result<OwnedFd> {
    let (wait, go) = pipe_with(PipeFlags::CLOEXEC).map_err(errno_context("pipe2(CLOEXEC)"))?;
    match clone3(flags::NEWUSER, None)? {
        ForkResult::Child => {
            drop(go);
            let _end_of_file = read(&wait, &mut [0]);
            hull_sys::exit_now(0)
        }
        ForkResult::Parent { pid, pidfd } => {
            let opened = write_maps(pid, maps)
                .map_err(|err| errno_context(err.call)(Errno::from_raw_os_error(err.errno)))
                .and_then(|()| {
                    let path = format!("/proc/{pid}/ns/user");
                    File::open(&path).map_err(|err| {
                        errno_context(format!("open({path})"))(
                            Errno::from_io_error(&err).unwrap_or(Errno::IO),
                        )
                    })
                });
            drop(go);
            // It only has to end; the event loop must not reap it as another process of the pod.
            let _ended = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            opened.map(OwnedFd::from)
        }
    }
}

/// The maps of the user namespace behind this path, with the caller's ids on the host's side. The kernel shows those of
/// processes only, so one of ours enters it for a moment. The caller is single-threaded.
///
/// # Errors
/// The path is not a user namespace that the caller may enter, or it is the caller's own.
pub fn maps_of_namespace(path: &str) -> hull_sys::Result<IdMaps> {
    let opened = File::open(path).map_err(hull_sys::Error::of_io(|| format!("open({path})")));
    let namespace = opened?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(hull_sys::Error::of(|| "pipe2(CLOEXEC)"));
    let ((news, report), (wait, go)) = (pipe()?, pipe()?);
    match hull_sys::fork()? {
        ForkResult::Child => {
            drop((news, go));
            let entered = enter(namespace.as_fd());
            let errno = entered.map_or_else(Errno::raw_os_error, |()| 0);
            let _gone = write(&report, &errno.to_ne_bytes());
            let _end_of_file = read(&wait, &mut [0]);
            hull_sys::exit_now(0)
        }
        ForkResult::Parent { pid, pidfd } => {
            drop((report, wait));
            let mut answer = [0; size_of::<i32>()];
            let got = read(&news, &mut answer).unwrap_or(0);
            let maps = match i32::from_ne_bytes(answer) {
                0 if got == answer.len() => of_process(pid),
                0 => Err(hull_sys::Error::new(Errno::PIPE, "read(user namespace)")),
                errno => {
                    let errno = Errno::from_raw_os_error(errno);
                    Err(hull_sys::Error::new(errno, format!("setns(NEWUSER, {path})")))
                }
            };
            drop(go);
            let _ended = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            maps
        }
    }
}

/// Enters a user namespace, in which nobody may trace this copy of the caller.
fn enter(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    let hide = || set_dumpable_behavior(DumpableBehavior::NotDumpable);
    hide()?;
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::User))?;
    // Changed credentials may have undone it.
    hide()
}

fn of_process(pid: i32) -> hull_sys::Result<IdMaps> {
    let of = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        let text = fs::read_to_string(&path)
            .map_err(hull_sys::Error::of_io(|| format!("read({path})")))?;
        ranges(&text).ok_or_else(|| hull_sys::Error::new(Errno::BADMSG, format!("read({path})")))
    };
    Ok(IdMaps { uids: of("uid_map")?, gids: of("gid_map")? })
}

/// The lines of a map, `user_namespaces(7)`.
fn ranges(text: &str) -> Option<Vec<IdMap>> {
    let of_line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (container_id, host_id) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(IdMap { container_id, host_id, length: numbers.next()?.ok()? })
    };
    text.lines().map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_as_the_kernel_shows_it() {
        let text = "         0     100000         10\n        10       5000          1\n";
        let map = |container_id, host_id, length| IdMap { container_id, host_id, length };
        assert_eq!(ranges(text), Some(vec![map(0, 100_000, 10), map(10, 5000, 1)]));
        assert_eq!(ranges(""), Some(Vec::new()));
        assert_eq!(ranges("0 1\n"), None);
        assert_eq!(ranges("0 1 4294967296\n"), None);
    }

    #[test]
    fn an_id_is_mapped_by_the_range_it_is_in() {
        let maps = [
            IdMap { container_id: 0, host_id: 100_000, length: 10 },
            IdMap { container_id: 10, host_id: 500, length: 1 },
        ];
        assert_eq!(to_host_id(&maps, 0), Some(100_000));
        assert_eq!(to_host_id(&maps, 9), Some(100_009));
        assert_eq!(to_host_id(&maps, 10), Some(500));
        assert_eq!(to_host_id(&maps, 11), None);
        assert_eq!(to_host_id(&[IdMap { container_id: 0, host_id: u32::MAX, length: 2 }], 1), None);
    }
}

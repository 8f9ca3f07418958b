// SPDX-License-Identifier: Apache-2.0
//! Maps of user namespaces: looking an id up, writing them, and namespaces that exist only to map mounts.

use crate::mount::{Result, errno_context};
use crate::plan::{IdMap, IdMaps, Step, StepError};
use hull_sys::{ForkResult, clone3, flags};
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};

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

#[cfg(test)]
mod tests {
    use super::*;

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

// SPDX-License-Identifier: Apache-2.0
//! Network namespaces, made and visited by threads of their own, so that no other thread ever finds
//! itself elsewhere.

use crate::{Error, Result, flags, unshare};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;

/// Makes a network namespace; it lives as long as the descriptor or a process in it.
///
/// `network_namespaces(7)`.
pub fn create() -> Result<OwnedFd> {
    let made = thread::Builder::new().name("netns-create".into()).spawn(|| {
        unshare(flags::NEWNET)?;
        let path = "/proc/thread-self/ns/net";
        let file = File::open(path).map_err(Error::of_io(|| format!("open({path})")))?;
        Ok(OwnedFd::from(file))
    });
    joined(made.map_err(Error::of_io(|| "clone(netns-create)"))?.join())
}

/// Runs `work` inside the namespace and gives what it gave. `setns(2)`.
pub fn within<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("netns-visit".into()).spawn_scoped(scope, || {
            move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
                .map_err(Error::of(|| "setns(NEWNET)"))?;
            Ok(work())
        });
        joined(inside.map_err(Error::of_io(|| "clone(netns-visit)"))?.join())
    })
}

fn joined<T>(joined: thread::Result<Result<T>>) -> Result<T> {
    match joined {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Whether the kernel lets us make network namespaces at all.
pub fn usable() -> bool {
    !matches!(create(), Err(err) if err.errno() != Errno::MFILE)
}

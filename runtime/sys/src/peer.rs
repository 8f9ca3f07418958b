// SPDX-License-Identifier: Apache-2.0
//! The process at the other end of a Unix socket. `unix(7)`.

use crate::{Error, Result};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// The process that connected, as it was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// In our pid namespace; 0 when it has no number there.
    pub pid: i32,
    /// In our user namespace.
    pub uid: u32,
}

/// Asks for a value of plain numbers.
fn option<T: Copy>(socket: BorrowedFd<'_>, option: i32, name: &str) -> Result<T> {
    let mut value = MaybeUninit::<T>::uninit();
    let failed = || Error::last(format!("getsockopt({}, {name})", socket.as_raw_fd()));
    let mut length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `value`; both live past the
    // call, and the borrow keeps the socket open.
    let ret = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if ret != 0 {
        return Err(failed());
    }
    if usize::try_from(length) != Ok(size_of::<T>()) {
        return Err(Error::new(
            rustix::io::Errno::IO,
            format!("getsockopt({}, {name}): {length} bytes", socket.as_raw_fd()),
        ));
    }
    // SAFETY: the kernel has written all of it, as the length says, and the callers ask for plain numbers.
    Ok(unsafe { value.assume_init() })
}

/// The process that connected: `SO_PEERCRED`, Linux 2.6. Its pid may belong to another process by now: see [`peer_pidfd`].
///
/// # Errors
/// If it is not a connected Unix socket.
pub fn peer(socket: BorrowedFd<'_>) -> Result<Peer> {
    let of: libc::ucred = option(socket, libc::SO_PEERCRED, "SO_PEERCRED")?;
    Ok(Peer { pid: of.pid, uid: of.uid })
}

/// The very process that connected: `SO_PEERPIDFD`, Linux 6.5.
///
/// # Errors
/// ENOPROTOOPT of an older kernel; ESRCH or EINVAL when the process is gone.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    const SO_PEERPIDFD: i32 = 77;
    let number: i32 = option(socket, SO_PEERPIDFD, "SO_PEERPIDFD")?;
    // SAFETY: the kernel has made this descriptor for us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

// SPDX-License-Identifier: Apache-2.0
//! Network namespaces, made and visited by threads of their own, so that no other thread ever finds
//! itself elsewhere.

use crate::{Error, Result, flags, unshare};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
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

/// Brings loopback up in the network namespace of the calling thread. `netdevice(7)`, SIOCSIFFLAGS.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN in the user namespace that owns the network namespace.
pub fn loopback_up() -> Result<()> {
    const GET_FLAGS: libc::Ioctl = 0x8913;
    const SET_FLAGS: libc::Ioctl = 0x8914;
    // IFF_UP, in the type of the flags' field.
    const UP: libc::c_short = 1;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(Error::of(|| "socket(AF_UNIX)"))?;
    // SAFETY: all zeros is a valid `ifreq`: an array of characters, and a union of integers and addresses.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed() as libc::c_char;
    }
    // SAFETY: the kernel reads the name and writes the flags of `request`, which lives past the call.
    let got = unsafe { libc::ioctl(socket.as_raw_fd(), GET_FLAGS, &raw mut request) };
    if got != 0 {
        return Err(Error::last("ioctl(SIOCGIFFLAGS, lo)"));
    }
    // SAFETY: the call above has written this field of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | UP;
    // SAFETY: the kernel only reads `request`.
    let set = unsafe { libc::ioctl(socket.as_raw_fd(), SET_FLAGS, &raw const request) };
    if set == 0 { Ok(()) } else { Err(Error::last("ioctl(SIOCSIFFLAGS, lo)")) }
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

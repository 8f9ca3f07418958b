// SPDX-License-Identifier: Apache-2.0
//! Network devices of the host that a container gets: moved into its network namespace, `linux.netDevices` of the OCI
//! runtime spec 1.3.
//!
//! The rule: everything that can be checked is checked before the first device moves. A failure on the way brings those
//! back that have moved, if nobody else can be in the namespace: elsewhere a process of the pod may have put a device of
//! its own at their names. A device keeps its permanent addresses of global scope, its MAC address and its MTU, and is
//! up in the container. Addresses with a lifetime (DHCP, SLAAC) and routes are lost. When the container's namespace ends, the kernel returns hardware to the host's and removes virtual
//! devices (network_namespaces(7)).

use crate::address::{self, Address};
use crate::link;
use crate::{LOOPBACK, Socket};
use hull_sys as sys;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// The bytes that the kernel has for a link's name, IFNAMSIZ without its end.
const NAME_MAX: usize = 15;

/// A device to move.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Its name in the caller's network namespace.
    pub name: String,
    /// Its name in the container.
    pub inside: String,
}

/// A failure to move devices. Each message reads after "cannot".
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("use `{}` as the name of a network device: {why}", name.escape_debug())]
    BadName { name: String, why: &'static str },
    #[error("move network device `{name}` into the container: this host has no such device")]
    NotFound { name: String },
    #[error(
        "move network device `{name}` into the container: every network namespace has its own loopback device"
    )]
    Loopback { name: String },
    #[error("name a network device `{inside}` in the container: {by} has that name")]
    Taken { inside: String, by: String },
    #[error("move network device `{name}` into the container")]
    Move { name: String, source: sys::Error },
    #[error(
        "move network devices back after a failure: `{names}` stayed in the container's network namespace"
    )]
    Lost { names: String, source: Box<Self> },
    #[error("enter the container's network namespace")]
    Enter { source: sys::Error },
    #[error("open a netlink route socket")]
    Socket { source: sys::Error },
}

impl Error {
    /// Advice for the caller, where there is any.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::BadName { .. } => Some("correct `linux.netDevices`".into()),
            Self::NotFound { .. } => {
                Some("`ip link` lists the host's; one that a container has is not among them, also if its start failed".into())
            }
            Self::Loopback { .. } => Some("remove it from `linux.netDevices`; `lo` is up in the container".into()),
            Self::Taken { .. } => Some("set another `name` in `linux.netDevices`".into()),
            Self::Move { source, .. } if source.errno() == Errno::INVAL => {
                Some("devices such as bridges and tunnels cannot leave their network namespace (`netns-local`)".into())
            }
            Self::Lost { .. } => Some(
                "move them back by `nsenter --net=PATH ip link set NAME netns 1`, or remove the pod: hardware then returns by itself".into(),
            ),
            Self::Move { .. } | Self::Enter { .. } | Self::Socket { .. } => None,
        }
    }
}

/// Checks the names as the kernel does, `dev_valid_name`, and that each is given once.
///
/// # Errors
/// [`Error::BadName`] and [`Error::Taken`].
pub fn check(devices: &[Device]) -> Result<(), Error> {
    let mut inside = BTreeSet::new();
    for device in devices {
        check_name(&device.name)?;
        check_name(&device.inside)?;
        if !inside.insert(&device.inside) {
            let (inside, by) = (device.inside.clone(), "another one of `linux.netDevices`".into());
            return Err(Error::Taken { inside, by });
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Error> {
    let bad = |why| Err(Error::BadName { name: name.to_owned(), why });
    match name {
        "" => bad("it is empty"),
        "." | ".." => bad("the kernel refuses it"),
        _ if name.len() > NAME_MAX => bad("it has more than 15 bytes"),
        _ if name.contains(|one: char| {
            "/:%".contains(one) || one.is_whitespace() || one.is_control()
        }) =>
        {
            bad("it has a character that the kernel refuses: one of `/`, `:`, `%`, or white space")
        }
        _ => Ok(()),
    }
}

/// A device that is about to move.
struct Found {
    index: u32,
    up: bool,
    addresses: Vec<Address>,
}

/// Moves the devices from the network namespace of the calling thread into `netns`. All of them, or none if `netns` is
/// new (`is_new`): no process but ones that wait for the caller is in it.
///
/// # Errors
/// When a device is not there, a name is taken, or the kernel refuses: [`Error`].
pub fn move_into(netns: BorrowedFd<'_>, is_new: bool, devices: &[Device]) -> Result<(), Error> {
    check(devices)?;
    let here = Socket::route().map_err(|source| Error::Socket { source })?;
    let found: Vec<Found> =
        devices.iter().map(|device| find(&here, device)).collect::<Result<_, _>>()?;
    within(netns, || devices.iter().try_for_each(check_free))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty());
    let own =
        own.map_err(|errno| Error::Enter { source: sys::Error::new(errno, "open(ns/net)") })?;
    for (at, (device, of)) in devices.iter().zip(&found).enumerate() {
        let moved = depart(&here, of.index, netns, &device.inside)
            .map_err(|source| Error::Move { name: device.name.clone(), source })
            .and_then(|()| within(netns, || arrive(&device.inside, &of.addresses, true)));
        if let Err(error) = moved {
            let tried = devices.iter().zip(&found).take(at + 1);
            let names = if is_new { bring_back(netns, &own, tried) } else { gone(&here, tried) };
            return Err(if names.is_empty() {
                error
            } else {
                Error::Lost { names: names.join("`, `"), source: Box::new(error) }
            });
        }
    }
    Ok(())
}

fn find(here: &Socket, device: &Device) -> Result<Found, Error> {
    let name = device.name.clone();
    let moving = |source| Error::Move { name: device.name.clone(), source };
    let Some(of) = link::find(here, &name).map_err(moving)? else {
        return Err(Error::NotFound { name });
    };
    // Found by an alternative name, the kernel answers with the first one.
    if of.name != name {
        return Err(Error::BadName { name, why: "it is an alternative name of the device" });
    }
    if of.index == LOOPBACK {
        return Err(Error::Loopback { name });
    }
    let addresses = address::global(here, of.index).map_err(moving)?;
    Ok(Found { index: of.index, up: of.up, addresses })
}

/// In the container's namespace.
fn check_free(device: &Device) -> Result<(), Error> {
    let socket = Socket::route().map_err(|source| Error::Socket { source })?;
    let taken = link::find(&socket, &device.inside);
    match taken.map_err(|source| Error::Move { name: device.name.clone(), source })? {
        Some(_) => Err(Error::Taken {
            inside: device.inside.clone(),
            by: "a device in its network namespace".into(),
        }),
        None => Ok(()),
    }
}

/// Moves a link away from the socket's network namespace; it is then down and has no addresses.
fn depart(socket: &Socket, index: u32, to: BorrowedFd<'_>, name: &str) -> sys::Result<()> {
    let mut batch = socket.batch();
    link::move_to(&mut batch, index, to, name);
    batch.run()
}

/// Gives a link its addresses in the network namespace of the calling thread.
fn arrive(name: &str, addresses: &[Address], up: bool) -> Result<(), Error> {
    let moving = |source| Error::Move { name: name.to_owned(), source };
    let socket = Socket::route().map_err(|source| Error::Socket { source })?;
    let Some(of) = link::find(&socket, name).map_err(moving)? else {
        return Err(moving(sys::Error::new(Errno::NODEV, format!("RTM_GETLINK({name})"))));
    };
    let mut batch = socket.batch();
    for address in addresses {
        address::add(&mut batch, of.index, address, name);
    }
    if up {
        link::switch_on(&mut batch, of.index, name);
    }
    batch.run().map_err(moving)
}

/// The names of those that are not here any more.
fn gone<'d>(here: &Socket, moved: impl Iterator<Item = (&'d Device, &'d Found)>) -> Vec<String> {
    let is_here = |of: &Found| matches!(link::at(here, of.index), Ok(Some(_)));
    moved.filter(|(_, of)| !is_here(of)).map(|(device, _)| device.name.clone()).collect()
}

/// Moves devices back that have moved, and returns the names of those that could not be.
fn bring_back<'d>(
    netns: BorrowedFd<'_>,
    own: &OwnedFd,
    moved: impl Iterator<Item = (&'d Device, &'d Found)>,
) -> Vec<String> {
    let mut lost = Vec::new();
    for (device, of) in moved {
        let left = within(netns, || {
            let moving = |source| Error::Move { name: device.name.clone(), source };
            let socket = Socket::route().map_err(|source| Error::Socket { source })?;
            // The kernel moves a device first, and renames it then.
            let there = match link::find(&socket, &device.inside).map_err(moving)? {
                None => link::find(&socket, &device.name).map_err(moving)?,
                there => there,
            };
            let Some(there) = there else { return Ok(false) };
            depart(&socket, there.index, own.as_fd(), &device.name).map_err(moving)?;
            Ok(true)
        });
        let back = left.and_then(|has_moved| {
            if has_moved { arrive(&device.name, &of.addresses, of.up) } else { Ok(()) }
        });
        if back.is_err() {
            lost.push(device.name.clone());
        }
    }
    lost
}

fn within<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    sys::netns::within(netns, work).map_err(|source| Error::Enter { source })?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, inside: &str) -> Device {
        Device { name: name.into(), inside: inside.into() }
    }

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        check(&[device("eth0", "eth0"), device("a-very-long-nam", "x.1")]).unwrap();
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "eth%d", "a\n", "sixteen-bytes-xx"] {
            assert!(matches!(check(&[device("eth0", bad)]), Err(Error::BadName { .. })), "{bad:?}");
            assert!(matches!(check(&[device(bad, "eth0")]), Err(Error::BadName { .. })), "{bad:?}");
        }
        let twice = check(&[device("a", "eth0"), device("b", "eth0")]);
        assert!(matches!(twice, Err(Error::Taken { .. })), "{twice:?}");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Macvlan and ipvlan: each pod's link is a sub-interface of the node's uplink, without a bridge.
//!
//! ```text
//!  pod netns     eth0 ─┐
//!  pod netns     eth0 ─┼─ uplink ── the wire
//!  host netns   hull0 ─┘   (gateway; host ports, masquerade and guard as with a bridge)
//! ```
//!
//! The host's own link has the name and addresses that the bridge would have. The kernel isolates an
//! uplink from its sub-interfaces, so the node reaches its pods through this link. Machines on the wire
//! with a route to the pods' subnet reach pods without the node.
//!
//! The rule: a pod's link exists only in the pod's network namespace and disappears with it; the host
//! cannot see whether it still exists. So its address becomes free at once, and the kernel prevents
//! duplicates: it refuses a MAC address (macvlan) or an IP address (ipvlan) that another sub-interface has.

use super::config::Config;
use super::links;
use crate::error::Error;
use hull_netlink::link::LinkMode;
use hull_netlink::{Socket, link};
use hull_sys::{self as sys, netns};
use rustix::io::Errno;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// The uplink that is the parent of pods' links.
///
/// # Errors
/// When the configured link does not exist, or none is configured and there is no default route.
pub(crate) fn uplink(socket: &Socket, config: &Config) -> Result<link::Link, Error> {
    let found = match &config.uplink {
        Some(name) => links::find(socket, name)?,
        None => links::default_route_link(socket),
    };
    found.ok_or_else(|| Error::NoUplink { named: config.uplink.clone() })
}

/// Creates the pod's eth0, down. Replaces one from an earlier attach.
pub(crate) fn make(
    socket: &Socket,
    sub: &link::SubInterface<'_>,
    netns: BorrowedFd<'_>,
) -> Result<(), Error> {
    let failed = |source| Error::MakeSubInterface {
        link: sub.name.to_owned(),
        kind: sub.kind.name(),
        source,
    };
    let attempt = || {
        let mut batch = socket.batch();
        link::make_sub_interface(&mut batch, sub, Some(netns));
        batch.run()
    };
    match attempt() {
        Err(err) if err.errno() == Errno::EXIST => {
            remove(netns, sub.name, sub.kind)?;
            attempt().map_err(|err| match err.errno() {
                Errno::EXIST => Error::InsideTaken,
                _ => failed(err),
            })
        }
        other => other.map_err(failed),
    }
}

/// Removes the pod's link, if it is of this kind.
pub(crate) fn remove(netns: BorrowedFd<'_>, name: &str, kind: LinkMode) -> Result<(), Error> {
    let taken = netns::within(netns, || {
        let socket = Socket::route()?;
        match link::find(&socket, name)? {
            Some(found) if found.kind.as_deref() == Some(kind.name()) => {
                link::remove(&socket, &found)
            }
            _ => Ok(()),
        }
    });
    let failed = |source: sys::Error| Error::RemoveLink { link: name.to_owned(), source };
    taken.map_err(|source| Error::Enter { source })?.map_err(failed)
}

/// Turns the error for an address that its former holder still has into [`Error::AddressLingers`].
pub(crate) fn map_lingering(err: Error, ip: IpAddr) -> Error {
    let Error::Inside { source } = err else { return err };
    if matches!(source.errno(), Errno::BUSY | Errno::ADDRINUSE) {
        Error::AddressLingers { ip, source }
    } else {
        Error::Inside { source }
    }
}

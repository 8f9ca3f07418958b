// SPDX-License-Identifier: Apache-2.0
//! Pods' links of the kinds macvlan and ipvlan: each a link of its own on the node's uplink, no bridge.
//!
//! ```text
//!  pod netns     eth0 ─┐
//!  pod netns     eth0 ─┼─ uplink ── the wire
//!  host netns   hull0 ─┘   (gateway; host ports, masquerade and guard as with a bridge)
//! ```
//!
//! The host's end has the name and the addresses that the bridge would have: the kernel keeps links on
//! an uplink apart from the uplink itself, so that the node meets its pods there. Whoever has a route to
//! the pods' subnet on the wire reaches them without the node.
//!
//! The rule: a pod's link is in its network namespace alone and goes with it; nothing on the host tells
//! whether it is still there. So its address is free at once, and the kernel keeps two holders apart: a
//! hardware address (macvlan) or an address (ipvlan) that a link of the uplink has is refused to the next.

use super::config::Config;
use super::links;
use crate::error::Error;
use crate::netlink::{Socket, link};
use crate::types::Links;
use hull_sys::{self as sys, netns};
use rustix::io::Errno;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// The link that pods' links are made on.
///
/// # Errors
/// When there is none of the name, or no name and no default route.
pub(crate) fn uplink(socket: &Socket, config: &Config) -> Result<link::Link, Error> {
    let found = match &config.uplink {
        Some(name) => links::find(socket, name)?,
        None => links::link_elsewhere(socket),
    };
    found.ok_or_else(|| Error::NoUplink { named: config.uplink.clone() })
}

/// Makes the pod's eth0, switched off. One of an earlier attach is taken away first.
pub(crate) fn make(
    socket: &Socket,
    sub: &link::Sub<'_>,
    netns: BorrowedFd<'_>,
) -> Result<(), Error> {
    let failed =
        |source| Error::MakeSubLink { link: sub.name.to_owned(), kind: sub.kind.name(), source };
    let attempt = || {
        let mut batch = socket.batch();
        link::make_sub(&mut batch, sub, Some(netns));
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

/// Takes the pod's link away, if it is one of ours.
pub(crate) fn remove(netns: BorrowedFd<'_>, name: &str, kind: Links) -> Result<(), Error> {
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

/// Tells an address that its last holder still has from other failures.
pub(crate) fn lingering(err: Error, ip: IpAddr) -> Error {
    let Error::Inside { source } = err else { return err };
    if matches!(source.errno(), Errno::BUSY | Errno::ADDRINUSE) {
        Error::AddressLingers { ip, source }
    } else {
        Error::Inside { source }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Looks up links of the host, and derives the names and MAC addresses of pods' links.

use crate::error::Error;
use hull_netlink::{Socket, link, route};
use std::net::IpAddr;

/// Digits of a pod id in its link's name: a link name has at most 15 characters.
const SHORT: usize = 11;
pub(crate) const LINK_PREFIX: &str = "hull";
/// Documentation addresses (RFC 5737, RFC 3849): packets to them take the default route.
const UNASSIGNED: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

pub(crate) fn route_socket() -> Result<Socket, Error> {
    Socket::route().map_err(|source| Error::Socket { source })
}

/// The link with this name, if it exists.
pub(crate) fn find(socket: &Socket, name: &str) -> Result<Option<link::Link>, Error> {
    link::find(socket, name).map_err(|source| Error::FindLink { link: name.to_owned(), source })
}

/// The name of the host end of a pod's link.
pub(crate) fn link_name(id: &str) -> Result<String, Error> {
    let hex = id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match id.get(..SHORT) {
        Some(short) if hex => Ok(format!("{LINK_PREFIX}{short}")),
        _ => {
            Err(Error::BadPod { id: id.chars().take(64).flat_map(char::escape_default).collect() })
        }
    }
}

/// Derives a MAC address from an IP address. A later pod with the same IP address also has the same MAC
/// address, so the neighbours' ARP caches stay valid.
pub(crate) fn mac_of(ip: IpAddr) -> link::Mac {
    // The last bits of an IPv6 address: addresses are allocated from the start of the subnet.
    let end = match ip {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => u32::try_from(ip.to_bits() & u128::from(u32::MAX)).unwrap_or(0),
    };
    let [a, b, c, d] = end.to_be_bytes();
    // The first byte marks a locally administered unicast address.
    [0x0a, 0x68, a, b, c, d]
}

/// The link with the default route.
pub(crate) fn default_route_link(socket: &Socket) -> Option<link::Link> {
    UNASSIGNED.into_iter().find_map(|target| {
        let target: IpAddr = target.parse().ok()?;
        let index = route::egress_link(socket, target).ok()??;
        link::at(socket, index).ok()?
    })
}

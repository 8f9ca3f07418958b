// SPDX-License-Identifier: Apache-2.0
//! Links of the host: looked up, and the names and hardware addresses of pods' links.

use crate::error::Error;
use crate::netlink::{Socket, link, route};
use std::net::IpAddr;

/// Digits of a pod id in its link's name, which has room for 15 letters.
const SHORT: usize = 11;
pub(crate) const LINK_PREFIX: &str = "hull";
/// Addresses that nobody has (RFC 5737, RFC 3849): the way to them is the default route.
const ELSEWHERE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

pub(crate) fn route_socket() -> Result<Socket, Error> {
    Socket::route().map_err(|source| Error::Socket { source })
}

/// The link of that name, if there is one.
pub(crate) fn find(socket: &Socket, name: &str) -> Result<Option<link::Link>, Error> {
    link::find(socket, name).map_err(|source| Error::FindLink { link: name.to_owned(), source })
}

/// The name of the end on the host.
pub(crate) fn link_name(id: &str) -> Result<String, Error> {
    let hex = id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match id.get(..SHORT) {
        Some(short) if hex => Ok(format!("{LINK_PREFIX}{short}")),
        _ => {
            Err(Error::BadPod { id: id.chars().take(64).flat_map(char::escape_default).collect() })
        }
    }
}

/// A hardware address worked out from an address: whoever has the one has the other, so that what
/// neighbours remember of an earlier holder stays true.
pub(crate) fn mac_of(ip: IpAddr) -> link::Mac {
    // Of IPv6 the end: subnets are counted through from their start.
    let end = match ip {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => u32::try_from(ip.to_bits() & u128::from(u32::MAX)).unwrap_or(0),
    };
    let [a, b, c, d] = end.to_be_bytes();
    // The first byte: one that is administered locally, for one receiver.
    [0x0a, 0x68, a, b, c, d]
}

/// The link with the default route.
pub(crate) fn link_elsewhere(socket: &Socket) -> Option<link::Link> {
    ELSEWHERE.into_iter().find_map(|target| {
        let target: IpAddr = target.parse().ok()?;
        let index = route::link_towards(socket, target).ok()??;
        link::at(socket, index).ok()?
    })
}

// SPDX-License-Identifier: Apache-2.0
//! Lists the host's routes. `rtnetlink(7)`, RTM_GETROUTE.
//!
//! From the tables main and local, without broadcast, multicast and default routes.

use crate::socket::{LIST, Response, Socket};
use hull_sys::Result;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::NlasIterator;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use std::net::{Ipv4Addr, Ipv6Addr};

const NEW: u16 = 24;
const GET: u16 = 26;
const HEADER: usize = 12;
const TABLE_MAIN: u8 = 254;
const TABLE_LOCAL: u8 = 255;

/// A route to a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub to: IpNet,
    /// The index of the outgoing link; `None` for a black hole or a multipath route.
    pub link: Option<u32>,
    /// Whether the kernel created it for an address of the link: its subnet is directly on that link.
    pub on_link: bool,
}

/// Lists all IPv4 routes, or all IPv6 routes.
pub fn all(socket: &Socket, ipv4: bool) -> Result<Vec<Route>> {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 },
        ..RouteHeader::default()
    };
    let mut batch = socket.batch();
    batch.push(GET, LIST, "RTM_GETROUTE(all)", &message);
    Ok(batch.dump()?.iter().filter_map(read).collect())
}

fn read(response: &Response) -> Option<Route> {
    const DESTINATION: u16 = 1;
    const LINK: u16 = 4;
    const BY_KERNEL: u8 = 2;
    const INET: u8 = 2;
    /// Unicast and local routes, black holes and similar.
    const TYPES: [u8; 5] = [1, 2, 6, 7, 8];
    const CLONED: u32 = 0x200;
    let header: &[u8; HEADER] = response.body.first_chunk()?;
    let [family, length, _, _, table, protocol, _, kind, flags @ ..] = *header;
    let known = [TABLE_MAIN, TABLE_LOCAL].contains(&table) && TYPES.contains(&kind);
    if response.kind != NEW || !known || length == 0 || u32::from_ne_bytes(flags) & CLONED != 0 {
        return None;
    }
    let (mut to, mut link) = (None, None);
    for one in NlasIterator::new(response.body.get(HEADER..)?).map_while(|one| one.ok()) {
        let value = one.value();
        match one.kind() {
            DESTINATION if family == INET => {
                let ip = Ipv4Addr::from(*value.first_chunk::<4>()?);
                to = Ipv4Net::new(ip, length).ok().map(IpNet::from);
            }
            DESTINATION => {
                let ip = Ipv6Addr::from(*value.first_chunk::<16>()?);
                to = Ipv6Net::new(ip, length).ok().map(IpNet::from);
            }
            LINK => link = value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)),
            _ => {}
        }
    }
    Some(Route { to: to?, link, on_link: protocol == BY_KERNEL })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_cut_short_is_no_route() {
        let mut whole = vec![2, 24, 0, 0, TABLE_MAIN, 2, 253, 1, 0, 0, 0, 0];
        whole.extend([8, 0, 1, 0, 10, 1, 2, 0, 8, 0, 4, 0, 7, 0, 0, 0]);
        for length in 0..20 {
            assert!(read(&Response { kind: NEW, body: whole[..length].to_vec() }).is_none());
        }
        let found = read(&Response { kind: NEW, body: whole }).unwrap();
        let to = "10.1.2.0/24".parse().unwrap();
        assert_eq!(found.to, to);
        assert!(found.on_link && found.link.is_some());
    }
}

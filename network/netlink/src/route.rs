// SPDX-License-Identifier: Apache-2.0
//! Addresses and routes. `rtnetlink(7)`, RTM_*ADDR and RTM_*ROUTE.

use crate::socket::{Batch, Socket};
use hull_sys::Result;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rustix::io::Errno;
use std::net::IpAddr;

const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const ROUTE_HEADER: usize = 12;

/// Adds a request to assign the address to the link; succeeds if the link already has it.
///
/// Duplicate address detection is off, so an IPv6 address is usable at once: Hull allocates them uniquely.
pub fn add_address(batch: &mut Batch<'_>, index: u32, address: IpNet, link: &str) {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Address(address.addr()), AddressAttribute::Local(address.addr())];
    match address {
        IpNet::V4(net) => message.attributes.push(AddressAttribute::Broadcast(net.broadcast())),
        IpNet::V6(_) => {
            message.header.flags = AddressHeaderFlags::Nodad;
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Permanent));
        }
    }
    let call = format!("RTM_NEWADDR({address} on {link})");
    batch.push(NEW_ADDRESS, NLM_F_CREATE | NLM_F_REPLACE, call, &message);
}

/// Removes the address from the link; succeeds if the link does not have it, or is gone.
pub fn remove_address(socket: &Socket, index: u32, address: IpNet, link: &str) -> Result<()> {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    // Both: without `Address` the kernel does not compare the prefix length.
    message.attributes =
        vec![AddressAttribute::Address(address.addr()), AddressAttribute::Local(address.addr())];
    let mut batch = socket.batch();
    batch.push(DELETE_ADDRESS, 0, format!("RTM_DELADDR({address} on {link})"), &message);
    match batch.run() {
        Err(err) if matches!(err.errno(), Errno::ADDRNOTAVAIL | Errno::NODEV) => Ok(()),
        other => other,
    }
}

/// Adds a request for a default route through `gateway`.
pub fn add_default(batch: &mut Batch<'_>, index: u32, gateway: IpAddr, link: &str) {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(gateway),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Gateway(gateway.into()), RouteAttribute::Oif(index)];
    let call = format!("RTM_NEWROUTE(default via {gateway} on {link})");
    batch.push(NEW_ROUTE, NLM_F_CREATE | NLM_F_REPLACE, call, &message);
}

/// The index of the link that packets to `target` leave through; `None` without a route.
pub fn egress_link(socket: &Socket, target: IpAddr) -> Result<Option<u32>> {
    const OIF: u16 = 4;
    let mut message = RouteMessage::default();
    message.header.address_family = family(target);
    message.header.destination_prefix_length = if target.is_ipv4() { 32 } else { 128 };
    message.attributes = vec![RouteAttribute::Destination(RouteAddress::from(target))];
    let mut batch = socket.batch();
    batch.push(GET_ROUTE, 0, format!("RTM_GETROUTE({target})"), &message);
    let responses = match batch.query() {
        Ok(responses) => responses,
        Err(err)
            if matches!(
                err.errno(),
                Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL
            ) =>
        {
            return Ok(None);
        }
        Err(err) => return Err(err),
    };
    let oif = responses.iter().filter(|response| response.kind == NEW_ROUTE).find_map(|response| {
        let attributes = NlasIterator::new(response.body.get(ROUTE_HEADER..)?);
        let found = attributes.map_while(|found| found.ok()).find(|one| one.kind() == OIF)?;
        found.value().first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    });
    Ok(oif)
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

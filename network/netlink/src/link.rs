// SPDX-License-Identifier: Apache-2.0
//! Links: create, look up, remove, watch. `rtnetlink(7)`, RTM_*LINK.
//!
//! Responses are decoded attribute by attribute, so unknown attributes and longer structures of newer
//! kernels are ignored.

use crate::attributes::text;
use crate::socket::{Batch, LIST, Response, Socket};
use hull_sys::Result;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NlasIterator};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoIpVlan, InfoKind, InfoMacVlan,
    InfoPortData, InfoPortKind, InfoVeth, IpVlanMode, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, MacVlanMode,
};
use rustix::io::Errno;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Instant;

const NEW: u16 = 16;
const DELETE: u16 = 17;
const GET: u16 = 18;
const SET: u16 = 19;
const HEADER: usize = 16;
/// The multicast group of link events, `RTNLGRP_LINK`.
const LINK_GROUP: u32 = 1;
const IFNAME: u16 = 3;
/// The `operstate` of an operational link. RFC 2863.
const OPER_UP: u8 = 6;

/// The kind of link that connects pods to the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LinkMode {
    /// Veth pairs, with the host end a port of Hull's bridge.
    #[default]
    Bridge,
    /// Macvlan links on the node's uplink, each with its own MAC address.
    Macvlan,
    /// Ipvlan links on the node's uplink, all with the uplink's MAC address.
    Ipvlan,
}

impl LinkMode {
    /// The kernel's name for the kind of the host's own link in the pod network.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }
}

/// A MAC address.
pub type Mac = [u8; 6];

/// A link, as reported by the kernel.
#[derive(Debug, Clone, Default)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// The kind, as in `bridge` or `veth`; `None` for hardware.
    pub kind: Option<String>,
    pub alias: Option<String>,
    /// The index of the bridge that the link is a port of.
    pub controller: Option<u32>,
    pub mtu: u32,
    /// Whether the link is administratively up.
    pub up: bool,
    /// Whether the link is operational, so that packets pass.
    pub operational: bool,
    pub counters: Counters,
}

/// Traffic counters of a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// Adds a request to create the bridge `name`, up. Without spanning tree its ports forward at once.
pub fn make_bridge(batch: &mut Batch<'_>, name: &str, mac: Mac, mtu: u32) {
    let mut message = switched_on();
    let settings =
        vec![InfoBridge::StpState(BridgeStpState::Disabled), InfoBridge::ForwardDelay(0)];
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(settings)),
        ]),
    ];
    batch.push(NEW, NLM_F_CREATE | NLM_F_EXCL, format!("RTM_NEWLINK({name}, bridge)"), &message);
}

/// Adds requests to create a link that needs no settings beyond its kind, up.
pub fn make_plain(batch: &mut Batch<'_>, name: &str, kind: &str, alias: &str, mtu: u32) {
    let mut message = switched_on();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::from(kind))]),
    ];
    batch.push(NEW, NLM_F_CREATE | NLM_F_EXCL, format!("RTM_NEWLINK({name}, {kind})"), &message);
    // The kernel accepts an alias only for an existing link.
    let mut known = LinkMessage::default();
    known.attributes =
        vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::IfAlias(alias.to_owned())];
    batch.push(NEW, 0, format!("RTM_NEWLINK({name}, alias)"), &known);
}

/// A macvlan or ipvlan sub-interface.
#[derive(Debug)]
pub struct SubInterface<'s> {
    pub name: &'s str,
    /// Macvlan or ipvlan.
    pub kind: LinkMode,
    /// The index of the parent link.
    pub uplink: u32,
    /// The MAC address; ipvlan uses the uplink's instead.
    pub mac: Mac,
    pub mtu: u32,
}

/// Adds a request to create a sub-interface, down, in `netns` or in the current namespace.
pub fn make_sub_interface(
    batch: &mut Batch<'_>,
    sub: &SubInterface<'_>,
    netns: Option<BorrowedFd<'_>>,
) {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(sub.name.to_owned()),
        LinkAttribute::Link(sub.uplink),
        LinkAttribute::Mtu(sub.mtu),
    ];
    let (kind, data) = if sub.kind == LinkMode::Ipvlan {
        (InfoKind::IpVlan, InfoData::IpVlan(vec![InfoIpVlan::Mode(IpVlanMode::L2)]))
    } else {
        message.attributes.push(LinkAttribute::Address(sub.mac.to_vec()));
        (InfoKind::MacVlan, InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)]))
    };
    message.attributes.extend(netns.map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())));
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
    let call = format!("RTM_NEWLINK({}, {} on {})", sub.name, sub.kind.name(), sub.uplink);
    batch.push(NEW, NLM_F_CREATE | NLM_F_EXCL, call, &message);
}

/// A pod's veth pair.
#[derive(Debug)]
pub struct VethPair<'p> {
    /// The name of the host end.
    pub host: &'p str,
    /// The index of the bridge that the host end becomes a port of.
    pub bridge: u32,
    /// The full pod id; the link name has room for only part of it.
    pub alias: &'p str,
    /// The network namespace of the pod's end.
    pub netns: BorrowedFd<'p>,
    /// The name of the pod's end.
    pub inside: &'p str,
    /// The MAC address of the pod's end.
    pub mac: Mac,
    pub mtu: u32,
}

/// Adds a request to create both ends, down.
pub fn make_pair(batch: &mut Batch<'_>, pair: &VethPair<'_>) {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(pair.inside.to_owned()),
        LinkAttribute::Address(pair.mac.to_vec()),
        LinkAttribute::Mtu(pair.mtu),
        LinkAttribute::NetNsFd(pair.netns.as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(pair.host.to_owned()),
        LinkAttribute::Mtu(pair.mtu),
        LinkAttribute::Controller(pair.bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    let call = format!(
        "RTM_NEWLINK({}, veth, peer {} in [{}])",
        pair.host,
        pair.inside,
        pair.netns.as_raw_fd()
    );
    batch.push(NEW, NLM_F_CREATE | NLM_F_EXCL, call, &message);
}

/// Adds a request to set the host end's alias and hairpin mode, and bring it up.
pub fn finish_pair(batch: &mut Batch<'_>, pair: &VethPair<'_>) {
    // The kernel accepts these only for an existing link. With hairpin the bridge may send a packet back
    // through the port that it arrived on: a pod that connects to itself through a host port or a service
    // needs that where bridged packets pass the IP rules (br_netfilter).
    let port =
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]));
    let mut port_of = switched_on();
    port_of.attributes = vec![
        LinkAttribute::IfName(pair.host.to_owned()),
        LinkAttribute::IfAlias(pair.alias.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(InfoPortKind::Bridge), port]),
    ];
    batch.push(NEW, 0, format!("RTM_NEWLINK({}, alias, hairpin, up)", pair.host), &port_of);
}

/// Adds a request to bring the link up.
pub fn switch_on(batch: &mut Batch<'_>, index: u32, name: &str) {
    let mut message = switched_on();
    message.header.index = index;
    batch.push(SET, 0, format!("RTM_SETLINK({name}, up)"), &message);
}

/// Adds a request to move the link into another network namespace, where it has this name.
pub fn move_to(batch: &mut Batch<'_>, index: u32, netns: BorrowedFd<'_>, name: &str) {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes =
        vec![LinkAttribute::NetNsFd(netns.as_raw_fd()), LinkAttribute::IfName(name.to_owned())];
    batch.push(SET, 0, format!("RTM_SETLINK({index}, netns, {name})"), &message);
}

/// Removes the link; succeeds if it is already gone.
pub fn remove(socket: &Socket, link: &Link) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    let mut batch = socket.batch();
    batch.push(DELETE, 0, format!("RTM_DELLINK({})", link.name), &message);
    match batch.run() {
        Err(err) if err.errno() == Errno::NODEV => Ok(()),
        other => other,
    }
}

/// The link with this name, if it exists.
pub fn find(socket: &Socket, name: &str) -> Result<Option<Link>> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    one(socket, &message, format!("RTM_GETLINK({name})"))
}

/// The link with this index, if it exists.
pub fn at(socket: &Socket, index: u32) -> Result<Option<Link>> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    one(socket, &message, format!("RTM_GETLINK({index})"))
}

fn one(socket: &Socket, message: &LinkMessage, call: String) -> Result<Option<Link>> {
    let mut batch = socket.batch();
    batch.push(GET, 0, call, message);
    match batch.query() {
        Ok(responses) => Ok(responses.iter().find_map(read)),
        Err(err) if err.errno() == Errno::NODEV => Ok(None),
        Err(err) => Err(err),
    }
}

/// All links of the network namespace.
pub fn all(socket: &Socket) -> Result<Vec<Link>> {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Unspec;
    let mut batch = socket.batch();
    batch.push(GET, LIST, "RTM_GETLINK(all)", &message);
    Ok(batch.dump()?.iter().filter_map(read).collect())
}

/// The outcome of waiting for link notifications.
#[derive(Debug)]
pub enum LinkEvents {
    /// The names of removed links.
    Removed(Vec<String>),
    /// Notifications were lost because the receive buffer was full.
    Overrun,
    /// No notification arrived until the deadline.
    Timeout,
}

/// Opens a socket that receives link notifications. `rtnetlink(7)`, RTMGRP_LINK.
pub fn subscribe() -> Result<Socket> {
    Socket::subscribe(LINK_GROUP)
}

/// Waits for removed links until the deadline.
pub fn receive_events(events: &Socket, until: Instant) -> Result<LinkEvents> {
    let messages = match events.receive(until) {
        Err(err) if err.errno() == Errno::NOBUFS => return Ok(LinkEvents::Overrun),
        other => other?,
    };
    let Some(messages) = messages else { return Ok(LinkEvents::Timeout) };
    let gone = messages.iter().filter(|message| message.kind == DELETE);
    let name = |message: &Response| text(message.body.get(HEADER..)?, IFNAME);
    Ok(LinkEvents::Removed(gone.filter_map(name).collect()))
}

fn switched_on() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn read(response: &Response) -> Option<Link> {
    const MTU: u16 = 4;
    const CONTROLLER: u16 = 10;
    const OPERSTATE: u16 = 16;
    const LINKINFO: u16 = 18;
    const IFALIAS: u16 = 20;
    const STATS64: u16 = 23;
    const INFO_KIND: u16 = 1;
    if response.kind != NEW {
        return None;
    }
    let word = |bytes: &[u8]| bytes.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk));
    let header = response.body.get(..HEADER)?;
    let attributes = response.body.get(HEADER..)?;
    let mut link = Link {
        index: word(&header[4..])?,
        up: word(&header[8..])? & LinkFlags::Up.bits() != 0,
        name: text(attributes, IFNAME)?,
        alias: text(attributes, IFALIAS),
        ..Link::default()
    };
    for attribute in NlasIterator::new(attributes).map_while(|found| found.ok()) {
        let value = attribute.value();
        match attribute.kind() {
            MTU => link.mtu = word(value)?,
            CONTROLLER => link.controller = word(value),
            OPERSTATE => link.operational = value.first() == Some(&OPER_UP),
            LINKINFO => link.kind = text(value, INFO_KIND),
            STATS64 => link.counters = counters(value),
            _ => {}
        }
    }
    Some(link)
}

/// Decodes `struct rtnl_link_stats64`: packets, bytes, errors, dropped, each received and sent.
fn counters(value: &[u8]) -> Counters {
    let number = |at: usize| {
        let bytes = value.get(at * 8..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    };
    Counters {
        rx_packets: number(0),
        tx_packets: number(1),
        rx_bytes: number(2),
        tx_bytes: number(3),
        rx_errors: number(4),
        tx_errors: number(5),
        rx_dropped: number(6),
        tx_dropped: number(7),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loopback is there in every network namespace, and no user needs a right to ask for it.
    #[test]
    fn a_refusal_names_the_call_it_answers() {
        let socket = Socket::route().unwrap();
        let loopback = find(&socket, "lo").unwrap().unwrap();
        assert_eq!((loopback.index, loopback.name.as_str()), (1, "lo"));
        assert!(find(&socket, "hull-not-there").unwrap().is_none());
        let mut batch = socket.batch();
        batch.push_raw(9999, netlink_packet_core::NLM_F_ACK, "RTM_NONSENSE()", &[]);
        let refused = batch.run().unwrap_err().to_string();
        assert!(refused.starts_with("RTM_NONSENSE()"), "{refused}");
    }
    #[test]
    fn an_answer_cut_short_is_no_link() {
        for length in 0..HEADER {
            assert!(read(&Response { kind: NEW, body: vec![0; length] }).is_none());
        }
        // A name that claims to be longer than the message.
        let mut body = vec![0; HEADER];
        body.extend([40, 0, 3, 0, b'x']);
        assert!(read(&Response { kind: NEW, body }).is_none());
    }

    #[test]
    fn short_counters_read_as_zero() {
        let mut value = Vec::new();
        for number in 1..=5_u64 {
            value.extend(number.to_ne_bytes());
        }
        let expected = Counters {
            rx_packets: 1,
            tx_packets: 2,
            rx_bytes: 3,
            tx_bytes: 4,
            rx_errors: 5,
            ..Counters::default()
        };
        assert_eq!(counters(&value), expected);
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Links, addresses and routes: `rtnetlink(7)`.

use crate::Error;
use crate::netlink::{ACK, Attrs, CREATE, DUMP, EXCL, Family, Message, Netlink, attributes};
use ipnet::IpNet;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const BR_FORWARD_DELAY: u16 = 1;
const BR_STP_STATE: u16 = 5;
const UP: u32 = 1;

/// Counters of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in /proc/net/dev")]
pub struct InterfaceStats {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
}

/// `struct ifinfomsg`.
fn header(index: u32, flags: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(index.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes
}

/// Number of a link in this thread's namespace.
pub(crate) fn index_of(name: &str) -> Option<u32> {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
            .ok()?;
    rustix::net::netdevice::name_to_index(&socket, name).ok()
}

/// The kind of a link, such as `bridge`; `None` when it has none or is not there.
pub(crate) fn kind_of(netlink: &mut Netlink, index: u32) -> Result<Option<String>, Error> {
    let answers = netlink
        .ask(Message::new(GETLINK, 0, format!("look at link {index}")).raw(&header(index, 0)))?;
    let body = answers.first().and_then(|body| body.get(16..)).unwrap_or_default();
    let info = attributes(body).into_iter().find(|(kind, _)| *kind == IFLA_LINKINFO);
    let kind = info
        .and_then(|(_, info)| attributes(info).into_iter().find(|(kind, _)| *kind == INFO_KIND));
    Ok(kind.map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned()))
}

pub(crate) fn new_bridge(name: &str, mac: [u8; 6], mtu: Option<u32>) -> Message {
    let data = Attrs::new()
        .attr(BR_FORWARD_DELAY, &0u32.to_ne_bytes())
        .attr(BR_STP_STATE, &0u32.to_ne_bytes());
    let info = Attrs::new().text(INFO_KIND, "bridge").nest(INFO_DATA, data);
    let mut message = Message::new(NEWLINK, ACK | CREATE | EXCL, format!("make bridge `{name}`"))
        .raw(&header(0, UP))
        .text(IFLA_IFNAME, name)
        // Fixed: a bridge without one takes its lowest port's, and changes as pods come and go.
        .attr(IFLA_ADDRESS, &mac);
    if let Some(mtu) = mtu {
        message = message.attr(IFLA_MTU, &mtu.to_ne_bytes());
    }
    message.nest(IFLA_LINKINFO, info)
}

/// A veth whose other end is `eth0` in the namespace behind `netns`.
pub(crate) fn new_veth(
    name: &str,
    bridge: u32,
    mac: [u8; 6],
    mtu: Option<u32>,
    netns: BorrowedFd<'_>,
) -> Message {
    let mtu = mtu.map(u32::to_ne_bytes);
    // Not up yet: a peer can only be brought up from inside.
    let mut peer = Attrs::new()
        .raw(&header(0, 0))
        .text(IFLA_IFNAME, "eth0")
        .attr(IFLA_ADDRESS, &mac)
        .attr(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
    if let Some(mtu) = &mtu {
        peer = peer.attr(IFLA_MTU, mtu);
    }
    let info =
        Attrs::new().text(INFO_KIND, "veth").nest(INFO_DATA, Attrs::new().nest(VETH_PEER, peer));
    let mut message =
        Message::new(NEWLINK, ACK | CREATE | EXCL, format!("make link `{name}` to the pod"))
            .raw(&header(0, UP))
            .text(IFLA_IFNAME, name)
            .attr(IFLA_MASTER, &bridge.to_ne_bytes());
    if let Some(mtu) = &mtu {
        message = message.attr(IFLA_MTU, mtu);
    }
    message.nest(IFLA_LINKINFO, info)
}

/// Lets a port of a bridge send back what came from it: a pod that calls its own host port, where
/// bridged packets go through the IP tables (br_netfilter, as Kubernetes nodes have it).
pub(crate) fn hairpin(index: u32, name: &str) -> Message {
    const AF_BRIDGE: u8 = 7;
    const PROTINFO: u16 = 12;
    const BRPORT_MODE: u16 = 4;
    let mut head = header(index, 0);
    head[0] = AF_BRIDGE;
    Message::new(SETLINK, ACK, format!("let `{name}` send back what came from it"))
        .raw(&head)
        .nest(PROTINFO, Attrs::new().attr(BRPORT_MODE, &[1]))
}

pub(crate) fn delete(name: &str) -> Message {
    Message::new(DELLINK, ACK, format!("remove link `{name}`"))
        .raw(&header(0, 0))
        .text(IFLA_IFNAME, name)
}

pub(crate) fn up(index: u32, name: &str) -> Message {
    Message::new(NEWLINK, ACK, format!("bring `{name}` up")).raw(&header(index, UP))
}

fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(crate) fn new_address(index: u32, address: &IpNet, what: &str) -> Message {
    const LOCAL: u16 = 2;
    const ADDRESS: u16 = 1;
    const FLAGS: u16 = 8;
    // Ours alone: nothing to detect, and usable at once.
    const NODAD: u32 = 0x02;
    let ip = address.addr();
    let mut head = vec![family(ip), address.prefix_len(), 0, 0];
    head.extend(index.to_ne_bytes());
    let mut message =
        Message::new(NEWADDR, ACK | CREATE, format!("give {what} the address {address}"))
            .raw(&head)
            .attr(LOCAL, &octets(ip))
            .attr(ADDRESS, &octets(ip));
    if ip.is_ipv6() {
        message = message.attr(FLAGS, &NODAD.to_ne_bytes());
    }
    message
}

pub(crate) fn new_default_route(index: u32, gateway: IpAddr) -> Message {
    const OIF: u16 = 4;
    const GATEWAY: u16 = 5;
    const MAIN: u8 = 254;
    const BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    let head = [family(gateway), 0, 0, 0, MAIN, BOOT, 0, UNICAST, 0, 0, 0, 0];
    Message::new(NEWROUTE, ACK | CREATE, format!("route the pod by {gateway}"))
        .raw(&head)
        .attr(OIF, &index.to_ne_bytes())
        .attr(GATEWAY, &octets(gateway))
}

/// Counters of all interfaces of this thread's namespace.
pub(crate) fn stats() -> Result<Vec<InterfaceStats>, Error> {
    let mut netlink = Netlink::open(Family::Route)?;
    let answers = netlink.ask(Message::new(GETLINK, DUMP, "list interfaces").raw(&header(0, 0)))?;
    Ok(answers.iter().filter_map(|body| one(body.get(16..)?)).collect())
}

fn one(body: &[u8]) -> Option<InterfaceStats> {
    let all = attributes(body);
    let find = |wanted: u16| all.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
    let counters = find(IFLA_STATS64)?;
    // struct rtnl_link_stats64: packets, bytes, errors, each received then sent.
    let counter = |at: usize| {
        let raw = counters.get(at * 8..at * 8 + 8).and_then(|raw| raw.first_chunk::<8>());
        raw.map_or(0, |raw| u64::from_ne_bytes(*raw))
    };
    Some(InterfaceStats {
        name: String::from_utf8_lossy(find(IFLA_IFNAME)?).trim_end_matches('\0').to_owned(),
        rx_bytes: counter(2),
        tx_bytes: counter(3),
        rx_errors: counter(4),
        tx_errors: counter(5),
    })
}

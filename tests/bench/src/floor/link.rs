// SPDX-License-Identifier: Apache-2.0
//! The links of the floor's pods: one bridge, and a veth pair for each pod, in as few messages as the
//! kernel takes.

use hull_sys::{Error, Result};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// The bridge. Removed when the floor is dropped, or by the next one.
pub(super) const BRIDGE: &str = "cribenchfloor";
/// A pod's end of its pair.
const INSIDE: &str = "eth0";
const PREFIX: u8 = 24;
/// Addresses for benchmarks (RFC 2544).
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 250, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 250, 2);
/// In every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// A socket to the network namespace that the caller is in.
pub(super) struct Links(Socket);

impl Links {
    pub(super) fn open() -> Result<Self> {
        let failed = || Error::of_io(|| "socket(AF_NETLINK)");
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed())?;
        let _address = socket.bind_auto().map_err(failed())?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed())?;
        Ok(Self(socket))
    }

    /// Makes the bridge; gives its index.
    pub(super) fn bridge(&self) -> Result<u32> {
        // One that a killed run left.
        drop(self.remove_bridge());
        let mut message = switched_on();
        message.attributes = vec![
            LinkAttribute::IfName(BRIDGE.into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::ForwardDelay(0)])),
            ]),
        ];
        self.ask("RTM_NEWLINK(bridge)", vec![RouteNetlinkMessage::NewLink(message)])?;
        let index = self.index(BRIDGE)?;
        self.ask("RTM_NEWADDR(bridge)", vec![address(index, GATEWAY)])?;
        Ok(index)
    }

    pub(super) fn remove_bridge(&self) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(BRIDGE.into())];
        self.ask("RTM_DELLINK(bridge)", vec![RouteNetlinkMessage::DelLink(message)])
    }

    /// Makes a pair: `name` as a port of the bridge, the other end in `netns`.
    pub(super) fn pair(&self, name: &str, bridge: u32, netns: BorrowedFd<'_>) -> Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes =
            vec![LinkAttribute::IfName(INSIDE.into()), LinkAttribute::NetNsFd(netns.as_raw_fd())];
        let mut message = switched_on();
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Controller(bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        self.ask("RTM_NEWLINK(veth)", vec![RouteNetlinkMessage::NewLink(message)])
    }

    /// From inside: switches loopback and the pod's end on, gives it its address and default route.
    pub(super) fn configure(&self) -> Result<()> {
        let index = self.index(INSIDE)?;
        let mut loopback = switched_on();
        loopback.header.index = LOOPBACK_INDEX;
        let mut inside = switched_on();
        inside.header.index = index;
        self.ask(
            "RTM_SETLINK, RTM_NEWADDR, RTM_NEWROUTE",
            vec![
                RouteNetlinkMessage::SetLink(loopback),
                RouteNetlinkMessage::SetLink(inside),
                address(index, ADDRESS),
                default_route(),
            ],
        )
    }

    fn index(&self, name: &str) -> Result<u32> {
        rustix::net::netdevice::name_to_index(&self.0, name)
            .map_err(Error::of(|| format!("ioctl(SIOCGIFINDEX, {name})")))
    }

    /// Sends all messages at once and reads an answer to each.
    fn ask(&self, call: &str, messages: Vec<RouteNetlinkMessage>) -> Result<()> {
        let mut bytes = Vec::new();
        let count = messages.len();
        for inner in messages {
            let creates =
                !matches!(inner, RouteNetlinkMessage::SetLink(_) | RouteNetlinkMessage::DelLink(_));
            let mut message = NetlinkMessage::from(inner);
            message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
            if creates {
                message.header.flags |= NLM_F_CREATE | NLM_F_EXCL;
            }
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len(), 0);
            message.serialize(&mut bytes[start..]);
        }
        let failed = || Error::of_io(|| call);
        let _sent = self.0.send(&bytes, 0).map_err(failed())?;
        let mut answered = 0;
        while answered < count {
            let (answer, _from) = self.0.recv_from_full().map_err(failed())?;
            let mut at = 0;
            while at < answer.len() {
                let one = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[at..])
                    .map_err(|_| Error::new(Errno::BADMSG, call))?;
                at += (one.header.length as usize).next_multiple_of(4);
                answered += 1;
                if let NetlinkPayload::Error(err) = one.payload
                    && let Some(code) = err.code
                {
                    return Err(Error::new(Errno::from_raw_os_error(-code.get()), call));
                }
            }
        }
        Ok(())
    }
}

fn switched_on() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn address(index: u32, address: Ipv4Addr) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = PREFIX;
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
    RouteNetlinkMessage::NewAddress(message)
}

fn default_route() -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = netlink_packet_route::route::RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(GATEWAY))];
    RouteNetlinkMessage::NewRoute(message)
}

// SPDX-License-Identifier: Apache-2.0
//! A pod's eth0: made as one of a pair or on the uplink, set up inside, and waited for until packets go
//! through. What was begun when something fails is taken away by the caller.

use crate::bridge::Config;
use crate::host::{Ready, mac_of};
use crate::inside::{self, Address};
use crate::netlink::{Socket, link};
use crate::sysctl::OfPods;
use crate::{Bandwidth, Error, pair, rates, sublink};
use std::os::fd::BorrowedFd;

/// What pods' links are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Links {
    /// Pairs, whose ends on the host are ports of our bridge.
    #[default]
    Bridge,
    /// Each on the node's uplink, with a hardware address of its own.
    Macvlan,
    /// Each on the node's uplink, with that one's hardware address.
    Ipvlan,
}

impl Links {
    /// What the kernel calls the link that stands for the pods on the host.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }
}

/// An eth0 to be.
#[derive(Debug)]
pub(crate) struct Eth0<'e> {
    pub(crate) config: &'e Config,
    pub(crate) ready: Ready,
    pub(crate) id: &'e str,
    /// The end on the host of a pair.
    pub(crate) host_link: &'e str,
    pub(crate) netns: BorrowedFd<'e>,
    /// At least one.
    pub(crate) addresses: &'e [Address],
    pub(crate) bandwidth: Bandwidth,
    pub(crate) settings: &'e OfPods,
}

impl Eth0<'_> {
    pub(crate) fn make(&self, socket: &Socket) -> Result<(), Error> {
        let Some(first) = self.addresses.first() else {
            return Err(Error::Subnets { subnets: String::new() });
        };
        let (ip, mtu) = (first.address.addr(), self.ready.mtu);
        let Some(uplink) = self.ready.uplink else {
            return self.make_pair(socket, mac_of(ip));
        };
        let kind = self.config.links;
        if self.bandwidth != Bandwidth::default() {
            return Err(Error::NoRates { kind: kind.name() });
        }
        let sub = link::Sub { name: inside::NAME, kind, uplink, mac: mac_of(ip), mtu };
        sublink::make(socket, &sub, self.netns)?;
        inside::set_up(self.netns, self.addresses, self.settings)
            .map_err(|err| sublink::lingering(err, ip))
    }

    fn make_pair(&self, socket: &Socket, mac: link::Mac) -> Result<(), Error> {
        let Self { id, host_link: host, netns, .. } = *self;
        let Ready { index: bridge, mtu, .. } = self.ready;
        let pair = link::Pair { host, bridge, alias: id, netns, inside: inside::NAME, mac, mtu };
        pair::make(socket, &pair)?;
        rates::limit(socket, id, host, self.bandwidth, mtu)?;
        inside::set_up(netns, self.addresses, self.settings)?;
        pair::settle(socket, host)?;
        // The bridge lets nothing through before its first port does.
        pair::settle(socket, &self.config.bridge)
    }
}

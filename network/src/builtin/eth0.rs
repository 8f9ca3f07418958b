// SPDX-License-Identifier: Apache-2.0
//! A pod's eth0: made as one of a pair or on the uplink, set up inside, and waited for until packets go
//! through. What was begun when something fails is taken away by the caller.

use super::config::Config;
use super::host::Ready;
use super::links::mac_of;
use super::netns_setup::{self, Address};
use super::sysctl::OfPods;
use super::{macvlan, shaping, veth};
use crate::error::Error;
use crate::netlink::{Socket, link};
use crate::types::Bandwidth;
use std::os::fd::BorrowedFd;

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
        let sub = link::Sub { name: netns_setup::NAME, kind, uplink, mac: mac_of(ip), mtu };
        macvlan::make(socket, &sub, self.netns)?;
        netns_setup::set_up(self.netns, self.addresses, self.settings)
            .map_err(|err| macvlan::lingering(err, ip))
    }

    fn make_pair(&self, socket: &Socket, mac: link::Mac) -> Result<(), Error> {
        let Self { id, host_link: host, netns, .. } = *self;
        let Ready { index: bridge, mtu, .. } = self.ready;
        let pair =
            link::Pair { host, bridge, alias: id, netns, inside: netns_setup::NAME, mac, mtu };
        veth::make(socket, &pair)?;
        shaping::limit(socket, id, host, self.bandwidth, mtu)?;
        netns_setup::set_up(netns, self.addresses, self.settings)?;
        veth::settle(socket, host)?;
        // The bridge lets nothing through before its first port does.
        veth::settle(socket, &self.config.bridge)
    }
}

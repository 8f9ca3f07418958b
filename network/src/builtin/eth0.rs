// SPDX-License-Identifier: Apache-2.0
//! A pod's eth0: creates it as a veth end or on the uplink, configures it inside the pod, and waits until
//! it is operational. On failure the caller removes whatever exists by then.

use super::config::Config;
use super::host::HostState;
use super::links::mac_of;
use super::netns_setup::{self, Address};
use super::sysctl::PodSysctls;
use super::{macvlan, shaping, veth};
use crate::error::Error;
use crate::types::Bandwidth;
use hull_netlink::{Socket, link};
use std::os::fd::BorrowedFd;

/// Everything needed to create a pod's eth0.
#[derive(Debug)]
pub(crate) struct Eth0<'e> {
    pub(crate) config: &'e Config,
    pub(crate) host: &'e HostState,
    pub(crate) id: &'e str,
    /// The name of the host end, for a veth pair.
    pub(crate) host_link: &'e str,
    pub(crate) netns: BorrowedFd<'e>,
    /// At least one.
    pub(crate) addresses: &'e [Address],
    pub(crate) bandwidth: Bandwidth,
    pub(crate) settings: &'e PodSysctls,
}

impl Eth0<'_> {
    pub(crate) fn make(&self, socket: &Socket) -> Result<(), Error> {
        let Some(first) = self.addresses.first() else {
            return Err(Error::Subnets { subnets: String::new() });
        };
        let (ip, mtu) = (first.address.addr(), self.host.mtu);
        let Some(uplink) = self.host.uplink else {
            return self.make_pair(socket, mac_of(ip));
        };
        let kind = self.config.link_mode;
        if self.bandwidth != Bandwidth::default() {
            return Err(Error::NoRates { kind: kind.name() });
        }
        let sub =
            link::SubInterface { name: netns_setup::INTERFACE, kind, uplink, mac: mac_of(ip), mtu };
        macvlan::make(socket, &sub, self.netns)?;
        netns_setup::set_up(self.netns, self.addresses, self.settings)
            .map_err(|err| macvlan::map_lingering(err, ip))
    }

    fn make_pair(&self, socket: &Socket, mac: link::Mac) -> Result<(), Error> {
        let Self { id, host_link, netns, .. } = *self;
        let HostState { index: bridge, mtu, .. } = *self.host;
        let pair = link::VethPair {
            host: host_link,
            bridge,
            alias: id,
            netns,
            inside: netns_setup::INTERFACE,
            mac,
            mtu,
        };
        veth::make(socket, &pair)?;
        shaping::limit(socket, id, host_link, self.bandwidth, mtu)?;
        netns_setup::set_up(netns, self.addresses, self.settings)?;
        veth::wait_operational(socket, host_link)?;
        // The bridge is not operational before its first port is.
        veth::wait_operational(socket, &self.config.bridge)
    }
}

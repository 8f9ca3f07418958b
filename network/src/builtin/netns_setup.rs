// SPDX-License-Identifier: Apache-2.0
//! Configures links, addresses and routes inside the pod's network namespace.
//!
//! Each call enters the namespace on a thread of its own, so no other thread ever changes namespaces.

use super::sysctl::PodSysctls;
use crate::error::Error;
use hull_netlink::{LOOPBACK, Socket, link, route};
use hull_sys::{self as sys, netns};
use ipnet::IpNet;
use rustix::io::Errno;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// The name of the pod's link inside the pod.
pub(crate) const INTERFACE: &str = "eth0";

/// An address of the pod, and the gateway of its subnet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) address: IpNet,
    pub(crate) gateway: IpAddr,
}

/// Brings loopback and eth0 up, and assigns eth0 its addresses and default routes.
pub(crate) fn set_up(
    netns: BorrowedFd<'_>,
    addresses: &[Address],
    settings: &PodSysctls,
) -> Result<(), Error> {
    let done = netns::within(netns, || {
        for (setting, value) in ipv6_settings(addresses) {
            settings.set_if_present(&["ipv6", "conf", INTERFACE, setting], value)?;
        }
        configure(addresses).map_err(|source| Error::Inside { source })
    });
    done.map_err(|source| Error::Enter { source })?
}

/// The IPv6 settings of eth0, set before it is brought up.
///
/// With an IPv6 address: router advertisements from the bridge are ignored, and duplicate address
/// detection is off. The link-local address comes from a unique MAC address, and the bridge would flood
/// the probe to all pods and, with hairpin, back to its sender.
///
/// Without an IPv6 address IPv6 is disabled: eth0 would only receive router advertisements and announce
/// itself to all other pods, at a cost that grows with their number. Loopback keeps `::1`.
fn ipv6_settings(addresses: &[Address]) -> &'static [(&'static str, &'static str)] {
    if addresses.iter().any(|of| of.gateway.is_ipv6()) {
        &[("accept_ra", "0"), ("accept_dad", "0")]
    } else {
        &[("disable_ipv6", "1")]
    }
}

fn configure(addresses: &[Address]) -> sys::Result<()> {
    let socket = Socket::route()?;
    let name = format!("RTM_GETLINK({INTERFACE})");
    let eth0 =
        link::find(&socket, INTERFACE)?.ok_or_else(|| sys::Error::new(Errno::NODEV, name))?;
    let mut batch = socket.batch();
    link::switch_on(&mut batch, LOOPBACK, "lo");
    link::switch_on(&mut batch, eth0.index, INTERFACE);
    for of in addresses {
        route::add_address(&mut batch, eth0.index, of.address, INTERFACE);
        route::add_default(&mut batch, eth0.index, of.gateway, INTERFACE);
    }
    batch.run()
}

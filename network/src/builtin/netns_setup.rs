// SPDX-License-Identifier: Apache-2.0
//! The pod's side: what is done and asked inside its network namespace.
//!
//! Each call visits the namespace with a thread of its own, so that no other thread is ever elsewhere.

use super::sysctl::OfPods;
use crate::error::Error;
use crate::netlink::{LOOPBACK, Socket, link, route};
use hull_sys::{self as sys, netns};
use ipnet::IpNet;
use rustix::io::Errno;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// The pod's own link, inside.
pub(crate) const NAME: &str = "eth0";

/// An address of the pod, with the gateway of its subnet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) address: IpNet,
    pub(crate) gateway: IpAddr,
}

/// Switches loopback and eth0 on, and gives eth0 its addresses and default routes.
pub(crate) fn set_up(
    netns: BorrowedFd<'_>,
    addresses: &[Address],
    settings: &OfPods,
) -> Result<(), Error> {
    let done = netns::within(netns, || {
        for (setting, value) in ipv6_settings(addresses) {
            settings.set_if_known(&["ipv6", "conf", NAME, setting], value)?;
        }
        configure(addresses).map_err(|source| Error::Inside { source })
    });
    done.map_err(|source| Error::Enter { source })?
}

/// How eth0 is to keep to IPv6, set before it is switched on.
///
/// With an address of its own: nobody on the bridge may announce itself as its router, and its link-local
/// address is not asked after, which is worked out from a hardware address that nobody else has. (The bridge
/// would send the question to all pods, and with hairpin back to who asks.)
///
/// With none it speaks no IPv6: it would only listen to announcements of routers, and tell all others that
/// it is there, with each of which that costs them more. Loopback keeps `::1`.
fn ipv6_settings(addresses: &[Address]) -> &'static [(&'static str, &'static str)] {
    if addresses.iter().any(|of| of.gateway.is_ipv6()) {
        &[("accept_ra", "0"), ("accept_dad", "0")]
    } else {
        &[("disable_ipv6", "1")]
    }
}

fn configure(addresses: &[Address]) -> sys::Result<()> {
    let socket = Socket::route()?;
    let name = format!("RTM_GETLINK({NAME})");
    let eth0 = link::find(&socket, NAME)?.ok_or_else(|| sys::Error::new(Errno::NODEV, name))?;
    let mut batch = socket.batch();
    link::switch_on(&mut batch, LOOPBACK, "lo");
    link::switch_on(&mut batch, eth0.index, NAME);
    for of in addresses {
        route::add_address(&mut batch, eth0.index, of.address, NAME);
        route::add_default(&mut batch, eth0.index, of.gateway, NAME);
    }
    batch.run()
}

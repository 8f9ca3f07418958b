// SPDX-License-Identifier: Apache-2.0
//! The node's side that all pods share: the bridge with its addresses, forwarding, the table.
//!
//! The rule: nothing of it is made before the first pod needs it, and every attach looks whether it is
//! still there, so that a bridge or table taken away by hand is made again. Making it is done by one
//! thread at a time; looking takes no lock.

use super::config::Config;
use super::links::{find, link_elsewhere, mac_of};
use super::{macvlan, overlap, sysctl};
use crate::error::Error;
use crate::ipam::Subnet;
use crate::netlink::{Socket, link, route};
use crate::nft::{Layout, RuleCounts, Sockets, Table};
use crate::types::Links;
use hull_sys as sys;
use rustix::io::Errno;
use std::net::IpAddr;
use tracing::info;

/// Used when no route tells.
const MTU_DEFAULT: u32 = 1500;

/// The bridge, ready for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) index: u32,
    /// The index of the link that pods' links are on; none with a bridge.
    pub(crate) uplink: Option<u32>,
    pub(crate) mtu: u32,
    /// Of the table.
    pub(crate) rules: RuleCounts,
}

/// The pods' bridge, or what stands for it, if there is one of its name. A link of another kind is an
/// error.
pub(crate) fn find_bridge(socket: &Socket, config: &Config) -> Result<Option<link::Link>, Error> {
    let found = find(socket, &config.bridge)?;
    match found {
        Some(link) if link.kind.as_deref() != Some(config.links.name()) => {
            let kind =
                link.kind.map_or_else(|| "of hardware".to_owned(), |kind| format!("a {kind} link"));
            Err(Error::NotABridge { link: link.name, wanted: config.links.name(), kind })
        }
        other => Ok(other),
    }
}

/// Makes the bridge, or what is missing of it, and switches forwarding on.
pub(crate) fn make_bridge(
    socket: &Socket,
    config: &Config,
    subnets: &[Subnet],
) -> Result<Ready, Error> {
    let uplink = match config.links {
        Links::Bridge => None,
        Links::Macvlan | Links::Ipvlan => Some(macvlan::uplink(socket, config)?),
    };
    let mtu = match (config.mtu, &uplink) {
        (Some(mtu), _) => mtu,
        (None, Some(uplink)) => uplink.mtu,
        (None, None) => mtu_elsewhere(socket),
    };
    let on = uplink.map(|uplink| uplink.index);
    overlap::check(socket, config, subnets)?;
    let kind = config.links.name();
    let failed = |source| Error::MakeBridge { link: config.bridge.clone(), kind, source };
    let bridge = match find_bridge(socket, config)? {
        Some(bridge) => bridge,
        None => {
            new_bridge(socket, config, subnets, mtu, on).map_err(failed)?;
            info!(link = config.bridge, kind, mtu, "pod bridge made");
            let gone =
                || failed(sys::Error::new(Errno::NODEV, format!("RTM_GETLINK({})", config.bridge)));
            find_bridge(socket, config)?.ok_or_else(gone)?
        }
    };
    settings(config, subnets)?;
    let mut batch = socket.batch();
    link::switch_on(&mut batch, bridge.index, &config.bridge);
    for subnet in subnets {
        route::add_address(&mut batch, bridge.index, subnet.gateway_net(), &config.bridge);
    }
    batch.run().map_err(failed)?;
    Ok(Ready { index: bridge.index, uplink: on, mtu, rules: layout(config, subnets).rule_counts() })
}

fn new_bridge(
    socket: &Socket,
    config: &Config,
    subnets: &[Subnet],
    mtu: u32,
    on: Option<u32>,
) -> sys::Result<()> {
    let mac = subnets.first().map_or([2, 0, 0, 0, 0, 1], |subnet| mac_of(subnet.gateway()));
    let mut batch = socket.batch();
    match on {
        None => link::make_bridge(&mut batch, &config.bridge, mac, mtu),
        Some(uplink) => {
            let (name, kind) = (config.bridge.as_str(), config.links);
            link::make_sub(&mut batch, &link::Sub { name, kind, uplink, mac, mtu }, None);
        }
    }
    match batch.run() {
        // Somebody else was as quick. What it is, is looked at next.
        Err(err) if err.errno() == Errno::EXIST => Ok(()),
        other => other,
    }
}

fn settings(config: &Config, subnets: &[Subnet]) -> Result<(), Error> {
    let bridge = config.bridge.as_str();
    for subnet in subnets {
        let forwarding: &[&str] = if subnet.is_ipv4() {
            &["ipv4", "ip_forward"]
        } else {
            &["ipv6", "conf", "all", "forwarding"]
        };
        if sysctl::set(forwarding, "1")? {
            info!(setting = %sysctl::path(forwarding).display(), "forwarding switched on, as pods need it");
        }
    }
    // No neighbour on the bridge may announce itself as the node's router.
    sysctl::set_if_known(&["ipv6", "conf", bridge, "accept_ra"], "0")?;
    if subnets.iter().any(Subnet::is_ipv4) {
        // Host ports are reached over the node's loopback; `guard` in the table keeps pods out.
        sysctl::set(&["ipv4", "conf", bridge, "route_localnet"], "1")?;
    }
    Ok(())
}

/// Whether the bridge and the table are as `ready` says.
pub(crate) fn is_still(
    socket: &Socket,
    netfilter: &Sockets,
    config: &Config,
    ready: Ready,
) -> Result<bool, Error> {
    let bridge = find_bridge(socket, config)?;
    if !bridge.is_some_and(|bridge| bridge.index == ready.index && bridge.up) {
        return Ok(false);
    }
    has_table(netfilter, config, ready.rules)
}

/// Whether the table is there, with all its rules.
pub(crate) fn has_table(
    netfilter: &Sockets,
    config: &Config,
    rules: RuleCounts,
) -> Result<bool, Error> {
    let whole = netfilter.with(|socket| Table(&config.table).is_whole(socket, rules));
    whole.map_err(|source| Error::MakeTable { table: config.table.clone(), source })
}

/// What the table is to be made like.
pub(crate) fn layout<'c>(config: &'c Config, subnets: &[Subnet]) -> Layout<'c> {
    Layout {
        bridge: &config.bridge,
        subnets: subnets.iter().map(Subnet::net).collect(),
        masquerade: config.masquerade,
    }
}

/// The MTU of the link with the default route.
fn mtu_elsewhere(socket: &Socket) -> u32 {
    // Loopback has one of 64 KiB, which no other link can take.
    let mtu = link_elsewhere(socket).map_or(MTU_DEFAULT, |link| link.mtu);
    if mtu > 9216 { MTU_DEFAULT } else { mtu }
}

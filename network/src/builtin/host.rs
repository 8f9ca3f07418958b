// SPDX-License-Identifier: Apache-2.0
//! The host's side, shared by all pods: the bridge with its addresses, forwarding, the nftables table.
//!
//! The rule: nothing is created before the first pod needs it, and every attach checks that it still
//! exists, so a bridge or table that was removed by hand is created again. One thread at a time sets the
//! host up; checking takes no lock.

use super::config::Config;
use super::links::{default_route_link, find, mac_of};
use super::{macvlan, overlap, sysctl};
use crate::error::Error;
use crate::ipam::{Subnet, gateway_nets};
use crate::nft::{Layout, RuleCounts, Sockets, Table};
use hull_netlink::link::LinkMode;
use hull_netlink::{Socket, link, route};
use hull_sys as sys;
use rustix::io::Errno;
use tracing::info;

/// The MTU when there is no default route.
const MTU_DEFAULT: u32 = 1500;

/// The host's side as it was set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostState {
    /// The index of the bridge, or of the host's own macvlan or ipvlan link.
    pub(crate) index: u32,
    /// The index of the uplink that is the parent of pods' links; `None` with a bridge.
    pub(crate) uplink: Option<u32>,
    pub(crate) mtu: u32,
    /// The subnets that the bridge has an address of.
    pub(crate) subnets: Vec<Subnet>,
    /// The number of rules in each chain of the table.
    pub(crate) rules: RuleCounts,
}

/// The bridge, or the host's own macvlan or ipvlan link, if it exists. A link of another kind under that
/// name is an error.
pub(crate) fn find_bridge(socket: &Socket, config: &Config) -> Result<Option<link::Link>, Error> {
    let found = find(socket, &config.bridge)?;
    match found {
        Some(link) if link.kind.as_deref() != Some(config.link_mode.name()) => {
            let kind = link
                .kind
                .map_or_else(|| "a hardware link".to_owned(), |kind| format!("a {kind} link"));
            Err(Error::WrongLinkKind { link: link.name, wanted: config.link_mode.name(), kind })
        }
        other => Ok(other),
    }
}

/// Creates the bridge or completes its configuration, and enables forwarding. It gets the addresses of the
/// `current` subnets, which must not overlap with routes of the host, and of the `former` ones.
pub(crate) fn make_bridge(
    socket: &Socket,
    config: &Config,
    current: &[Subnet],
    former: &[Subnet],
) -> Result<HostState, Error> {
    let uplink = match config.link_mode {
        LinkMode::Bridge => None,
        LinkMode::Macvlan | LinkMode::Ipvlan => Some(macvlan::uplink(socket, config)?),
    };
    let mtu = match (config.mtu, &uplink) {
        (Some(mtu), _) => mtu,
        (None, Some(uplink)) => uplink.mtu,
        (None, None) => default_route_mtu(socket),
    };
    let on = uplink.map(|uplink| uplink.index);
    overlap::check(socket, config, current)?;
    let subnets: Vec<Subnet> = current.iter().chain(former).copied().collect();
    let kind = config.link_mode.name();
    let failed = |source| Error::MakeBridge { link: config.bridge.clone(), kind, source };
    let bridge = match find_bridge(socket, config)? {
        Some(bridge) => bridge,
        None => {
            new_bridge(socket, config, current, mtu, on).map_err(failed)?;
            info!(link = config.bridge, kind, mtu, "created the host's link of the pod network");
            let gone =
                || failed(sys::Error::new(Errno::NODEV, format!("RTM_GETLINK({})", config.bridge)));
            find_bridge(socket, config)?.ok_or_else(gone)?
        }
    };
    settings(config, &subnets)?;
    let addresses = gateway_nets(&subnets);
    // The kernel does not change the prefix length of an IPv6 address.
    for narrow in subnets.iter().map(Subnet::gateway_net).filter(|of| !addresses.contains(of)) {
        route::remove_address(socket, bridge.index, narrow, &config.bridge).map_err(failed)?;
    }
    let mut batch = socket.batch();
    link::switch_on(&mut batch, bridge.index, &config.bridge);
    for address in addresses {
        route::add_address(&mut batch, bridge.index, address, &config.bridge);
    }
    batch.run().map_err(failed)?;
    Ok(HostState {
        index: bridge.index,
        uplink: on,
        mtu,
        rules: layout(config, &subnets).rule_counts(),
        subnets,
    })
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
            let (name, kind) = (config.bridge.as_str(), config.link_mode);
            link::make_sub_interface(
                &mut batch,
                &link::SubInterface { name, kind, uplink, mac, mtu },
                None,
            );
        }
    }
    match batch.run() {
        // Another process created it at the same time; the caller checks its kind next.
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
            info!(setting = %sysctl::path(forwarding).display(), "enabled forwarding, which pods need");
        }
    }
    // Ignore router advertisements from the bridge: a pod must not become the node's router.
    sysctl::set_if_present(&["ipv6", "conf", bridge, "accept_ra"], "0")?;
    if subnets.iter().any(Subnet::is_ipv4) {
        // The node reaches host ports through loopback; the `guard` chain keeps pods out of it.
        sysctl::set(&["ipv4", "conf", bridge, "route_localnet"], "1")?;
    }
    Ok(())
}

/// Whether the bridge and the table are still as recorded in `ready`.
pub(crate) fn is_unchanged(
    socket: &Socket,
    netfilter: &Sockets,
    config: &Config,
    ready: &HostState,
) -> Result<bool, Error> {
    let bridge = find_bridge(socket, config)?;
    if !bridge.is_some_and(|bridge| bridge.index == ready.index && bridge.up) {
        return Ok(false);
    }
    has_table(netfilter, config, ready.rules)
}

/// Whether the table exists with all its rules.
pub(crate) fn has_table(
    netfilter: &Sockets,
    config: &Config,
    rules: RuleCounts,
) -> Result<bool, Error> {
    let whole = netfilter.with(|socket| Table(&config.table).is_intact(socket, rules));
    whole.map_err(|source| Error::MakeTable { table: config.table.clone(), source })
}

/// The layout of the table for this configuration.
pub(crate) fn layout<'c>(config: &'c Config, subnets: &[Subnet]) -> Layout<'c> {
    Layout {
        bridge: &config.bridge,
        subnets: subnets.iter().map(Subnet::net).collect(),
        masquerade: config.masquerade,
        cluster_cidrs: &config.cluster_cidrs,
    }
}

/// The MTU of the link with the default route.
fn default_route_mtu(socket: &Socket) -> u32 {
    // Loopback has an MTU of 64 KiB, which other links do not support.
    let mtu = default_route_link(socket).map_or(MTU_DEFAULT, |link| link.mtu);
    if mtu > 9216 { MTU_DEFAULT } else { mtu }
}

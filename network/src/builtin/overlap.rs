// SPDX-License-Identifier: Apache-2.0
//! Detects pod subnets that overlap with routes of this host.
//!
//! A route into the subnet diverts packets from its pods. A link whose own subnet contains the pod subnet
//! can no longer reach neighbours with addresses in the pod subnet. A wider static route is not an
//! overlap: clusters route their whole pod network that way, and the bridge's route is more specific.
//!
//! The rule: an overlapping subnet is refused when the bridge does not have it yet. If the bridge already
//! has it, there is only a warning: pods run, and only the overlapping addresses are unreachable.

use super::config::Config;
use super::links;
use crate::error::Error;
use crate::ipam::Subnet;
use hull_netlink::routes::{self, Route};
use hull_netlink::{Socket, link};
use ipnet::IpNet;
use tracing::warn;

/// A subnet that overlaps with a route of the host.
#[derive(Debug)]
pub(crate) struct Overlap {
    /// [`Error::SubnetOverlaps`], with subnet, route and link.
    pub(crate) error: Error,
    /// Whether the bridge has the subnet already.
    is_on_bridge: bool,
}

/// Compares the subnets with every route of the host.
///
/// # Errors
/// The overlap, with subnet, route and link.
pub(crate) fn check(socket: &Socket, config: &Config, subnets: &[Subnet]) -> Result<(), Error> {
    for subnet in subnets {
        match find(socket, config, *subnet)? {
            None => {}
            Some(Overlap { error, is_on_bridge: false }) => return Err(error),
            Some(Overlap { error, is_on_bridge: true }) => {
                warn!(error = %error, hint = error.hint(), "pods are unreachable at addresses where routes overlap");
            }
        }
    }
    Ok(())
}

/// The first route of the host that overlaps with the subnet.
pub(crate) fn find(
    socket: &Socket,
    config: &Config,
    subnet: Subnet,
) -> Result<Option<Overlap>, Error> {
    let bridge = links::find(socket, &config.bridge)?.map(|link| link.index);
    let all =
        routes::all(socket, subnet.is_ipv4()).map_err(|source| Error::ListRoutes { source })?;
    let route = overlapping(&all, subnet.net(), bridge);
    Ok(route.map(|route| {
        let is_on_bridge = bridge_has(&all, subnet.net(), bridge);
        Overlap { error: error_of(socket, subnet, route), is_on_bridge }
    }))
}

/// The first route of the host, but for default routes, that contains the subnet: it may lead to addresses that pods
/// should reach.
pub(crate) fn find_wider(
    socket: &Socket,
    config: &Config,
    subnet: Subnet,
) -> Result<Option<Error>, Error> {
    let bridge = links::find(socket, &config.bridge)?.map(|link| link.index);
    let all =
        routes::all(socket, subnet.is_ipv4()).map_err(|source| Error::ListRoutes { source })?;
    Ok(wider(&all, subnet.net(), bridge).map(|route| error_of(socket, subnet, route)))
}

/// Two halves of all addresses are a default route too, which tunnels set.
fn wider(all: &[Route], subnet: IpNet, bridge: Option<u32>) -> Option<&Route> {
    let others = all.iter().filter(|route| route.link.is_none() || route.link != bridge);
    let mut others = others.filter(|route| route.to.prefix_len() > 1 && route.to.contains(&subnet));
    others.next()
}

fn error_of(socket: &Socket, subnet: Subnet, route: &Route) -> Error {
    let found = route.link.and_then(|index| link::at(socket, index).ok().flatten());
    Error::SubnetOverlaps {
        subnet: subnet.net(),
        route: route.to,
        link: found.map(|link| link.name),
    }
}

/// The subnets that the bridge has, from the routes that the kernel made for its addresses. For leases of earlier
/// releases, which do not name their subnets.
pub(crate) fn of_bridge(socket: &Socket, config: &Config) -> Result<Vec<Subnet>, Error> {
    let Some(bridge) = links::find(socket, &config.bridge)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for ipv4 in [true, false] {
        let all = routes::all(socket, ipv4).map_err(|source| Error::ListRoutes { source })?;
        let of_bridge =
            all.iter().filter(|route| route.on_link && route.link == Some(bridge.index));
        found.extend(of_bridge.filter_map(|route| Subnet::new(route.to).ok()));
    }
    // Every link has an IPv6 link-local route.
    found.retain(|subnet| !is_link_local(subnet.net()));
    Ok(found)
}

fn is_link_local(net: IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.addr().is_link_local(),
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
    }
}

fn overlapping(all: &[Route], subnet: IpNet, bridge: Option<u32>) -> Option<&Route> {
    let others = all.iter().filter(|route| route.link.is_none() || route.link != bridge);
    let mut others = others.filter(|route| {
        subnet.contains(&route.to) || (route.on_link && route.to.contains(&subnet))
    });
    others.next()
}

/// Whether the bridge already has the subnet.
fn bridge_has(all: &[Route], subnet: IpNet, bridge: Option<u32>) -> bool {
    bridge.is_some() && all.iter().any(|route| route.to == subnet && route.link == bridge)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: Option<u32> = Some(9);

    fn route(to: &str, link: u32, on_link: bool) -> Route {
        Route { to: to.parse().unwrap(), link: Some(link), on_link }
    }

    fn overlaps(route: Route) -> bool {
        overlapping(&[route], "10.88.0.0/16".parse().unwrap(), BRIDGE).is_some()
    }

    #[test]
    fn a_route_around_the_subnet_is_wider_unless_it_is_a_default_route() {
        let is_wider =
            |route: Route| wider(&[route], "10.88.0.0/16".parse().unwrap(), BRIDGE).is_some();
        assert!(
            is_wider(route("10.0.0.0/8", 2, false)) && is_wider(route("10.88.0.0/16", 2, false))
        );
        assert!(!is_wider(route("0.0.0.0/0", 2, false)) && !is_wider(route("0.0.0.0/1", 2, false)));
        assert!(!is_wider(route("10.0.0.0/8", 9, false)), "the bridge's own");
        assert!(
            !is_wider(route("10.88.7.0/24", 2, false))
                && !is_wider(route("172.16.0.0/12", 2, false))
        );
    }

    #[test]
    fn routes_into_the_subnet_overlap_and_links_that_have_all_of_it() {
        assert!(overlaps(route("10.88.0.0/16", 2, true)));
        assert!(overlaps(route("10.88.7.0/24", 2, false)));
        assert!(overlaps(route("10.88.7.1/32", 1, true)), "an address of the host's own");
        assert!(overlaps(route("10.0.0.0/8", 2, true)), "the link's own subnet");
        assert!(overlaps(Route { link: None, ..route("10.88.0.0/16", 0, false) }), "a black hole");
    }

    #[test]
    fn the_bridges_own_routes_and_a_clusters_wider_one_do_not() {
        assert!(!overlaps(route("10.88.0.0/16", 9, true)));
        assert!(!overlaps(route("10.88.0.1/32", 9, true)));
        assert!(!overlaps(route("10.0.0.0/8", 2, false)), "set, not of the link");
        assert!(!overlaps(route("10.89.0.0/16", 2, true)));
        assert!(!overlaps(route("fd00::/64", 2, true)));
    }

    #[test]
    fn a_subnet_is_begun_when_the_bridge_has_it() {
        let subnet = "10.88.0.0/16".parse().unwrap();
        assert!(bridge_has(&[route("10.88.0.0/16", 9, true)], subnet, BRIDGE));
        assert!(!bridge_has(&[route("10.88.0.0/16", 9, true)], subnet, None));
        assert!(!bridge_has(&[route("10.88.0.0/16", 2, true)], subnet, BRIDGE));
    }
}

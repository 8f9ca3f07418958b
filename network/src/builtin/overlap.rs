// SPDX-License-Identifier: Apache-2.0
//! Pod subnets that somebody else on this host uses already.
//!
//! A route into the subnet takes packets away from its pods; a link whose own subnet is a wider one
//! loses sight of those of its neighbours that have addresses as pods do. A wider route that was set
//! is neither: that is how clusters lead their whole pod network somewhere, and the bridge's own is
//! the more specific one.
//!
//! The rule: a subnet that overlaps is not begun with. One that the bridge has already is used on, with
//! a warning: its pods run, and only the overlap itself is out of reach.

use super::config::Config;
use super::links;
use crate::error::Error;
use crate::ipam::Subnet;
use crate::netlink::routes::{self, Route};
use crate::netlink::{Socket, link};
use ipnet::IpNet;
use tracing::warn;

/// Looks at every route of the host.
///
/// # Errors
/// When there is an overlap, naming subnet, route and link.
pub(crate) fn check(socket: &Socket, config: &Config, subnets: &[Subnet]) -> Result<(), Error> {
    let bridge = links::find(socket, &config.bridge)?.map(|link| link.index);
    for subnet in subnets {
        let all =
            routes::all(socket, subnet.is_ipv4()).map_err(|source| Error::ListRoutes { source })?;
        let Some(route) = overlapping(&all, subnet.net(), bridge) else { continue };
        let found = route.link.and_then(|index| link::at(socket, index).ok().flatten());
        let overlap = Error::SubnetOverlaps {
            subnet: subnet.net(),
            route: route.to,
            link: found.map(|link| link.name),
        };
        if !is_begun(&all, subnet.net(), bridge) {
            return Err(overlap);
        }
        warn!(error = %overlap, hint = overlap.hint(), "pods are out of reach where routes overlap");
    }
    Ok(())
}

fn overlapping(all: &[Route], subnet: IpNet, bridge: Option<u32>) -> Option<&Route> {
    let others = all.iter().filter(|route| route.link.is_none() || route.link != bridge);
    let mut others = others.filter(|route| {
        subnet.contains(&route.to) || (route.of_link && route.to.contains(&subnet))
    });
    others.next()
}

/// Whether the bridge has the subnet.
fn is_begun(all: &[Route], subnet: IpNet, bridge: Option<u32>) -> bool {
    bridge.is_some() && all.iter().any(|route| route.to == subnet && route.link == bridge)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: Option<u32> = Some(9);

    fn route(to: &str, link: u32, of_link: bool) -> Route {
        Route { to: to.parse().unwrap(), link: Some(link), of_link }
    }

    fn overlaps(route: Route) -> bool {
        overlapping(&[route], "10.88.0.0/16".parse().unwrap(), BRIDGE).is_some()
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
        assert!(is_begun(&[route("10.88.0.0/16", 9, true)], subnet, BRIDGE));
        assert!(!is_begun(&[route("10.88.0.0/16", 9, true)], subnet, None));
        assert!(!is_begun(&[route("10.88.0.0/16", 2, true)], subnet, BRIDGE));
    }
}

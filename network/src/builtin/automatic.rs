// SPDX-License-Identifier: Apache-2.0
//! The choice of the pods' subnet where the configuration names none: the first of a few that no route and no
//! address of this host overlaps.
//!
//! The candidates are private (RFC 1918), and none is a default of a cluster or of another program that makes
//! networks: not 10.42, 10.43, 10.85, 10.88, 10.96 to 10.111, 10.128 to 10.131, 10.217, 10.244, 172.17 to 172.20,
//! 192.168.122. Their routes would not always show: podman makes its bridge when its first container starts.

use super::config::Config;
use super::overlap;
use crate::error::Error;
use crate::ipam::Subnet;
use hull_netlink::Socket;
use ipnet::{IpNet, Ipv4Net};
use std::net::Ipv4Addr;
use tracing::debug;

/// In the order of preference; the last two for hosts with a link that has all of 10.0.0.0/8.
const CANDIDATES: [(Ipv4Addr, u8); 6] = [
    (Ipv4Addr::new(10, 190, 0, 0), 16),
    (Ipv4Addr::new(10, 191, 0, 0), 16),
    (Ipv4Addr::new(10, 192, 0, 0), 16),
    (Ipv4Addr::new(10, 193, 0, 0), 16),
    (Ipv4Addr::new(172, 27, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 190, 0), 24),
];

/// The subnets to choose from.
pub(crate) fn candidates() -> Vec<IpNet> {
    CANDIDATES
        .iter()
        .map(|(address, length)| Ipv4Net::new_assert(*address, *length).into())
        .collect()
}

/// Whether the subnet is among those that can be chosen.
pub(crate) fn is_candidate(subnet: &Subnet) -> bool {
    candidates().contains(&subnet.net())
}

/// Chooses a subnet. `preferred` is what was chosen before: it stays if it is a candidate and still free.
///
/// # Errors
/// [`Error::NoSubnetFree`] when every candidate overlaps with a route of this host.
pub(crate) fn choose(
    socket: &Socket,
    config: &Config,
    preferred: &[Subnet],
) -> Result<Vec<Subnet>, Error> {
    let mut all = candidates();
    let rank = |net: &IpNet| preferred.iter().position(|subnet| subnet.net() == *net);
    all.sort_by_key(|net| rank(net).unwrap_or(usize::MAX));
    let mut overlaps = Vec::new();
    // Where wider routes, as to a company's network, contain each of them, one of these is still better than none.
    let mut contained = None;
    for net in all {
        let subnet = Subnet::new(net)?;
        match overlap::find(socket, config, subnet)? {
            None => match overlap::find_wider(socket, config, subnet)? {
                None => return Ok(vec![subnet]),
                Some(error) => {
                    debug!(error = %error, "not the best subnet for pods");
                    contained = contained.or(Some(subnet));
                }
            },
            Some(overlap) => {
                debug!(error = %overlap.error, "not a subnet for pods");
                overlaps.push(overlap.error.to_string());
            }
        }
    }
    if let Some(subnet) = contained {
        return Ok(vec![subnet]);
    }
    Err(Error::NoSubnetFree { overlaps: overlaps.join("; ") })
}

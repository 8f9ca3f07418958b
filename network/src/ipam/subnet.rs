// SPDX-License-Identifier: Apache-2.0
//! A pod subnet, and the roles of its addresses.
//!
//! The first address is the gateway's. Pods get the following ones, except the broadcast address of IPv4.
//! Addresses are numbered by their offset from the network address.

use super::interval_set::IntervalSet;
use crate::error::Error;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A subnet that pods get addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    net: IpNet,
    first: u128,
    last: u128,
}

impl Subnet {
    /// Fails when the subnet has no address for a pod.
    pub(crate) fn new(net: IpNet) -> Result<Self, Error> {
        let net = net.trunc();
        if let Some(why) = unusable(net) {
            return Err(Error::SubnetUnusable { subnet: net, why });
        }
        let free_bits = net.max_prefix_len() - net.prefix_len();
        if free_bits < 2 {
            return Err(Error::SubnetTooSmall { subnet: net });
        }
        let broadcast = u128::MAX >> (128 - u32::from(free_bits));
        let last = if net.addr().is_ipv4() { broadcast - 1 } else { broadcast };
        Ok(Self { net, first: 2, last })
    }

    pub(crate) fn net(&self) -> IpNet {
        self.net
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.net.addr().is_ipv4()
    }

    /// The bridge's address in the subnet.
    pub(crate) fn gateway(&self) -> IpAddr {
        self.at(1)
    }

    /// The bridge's address with the prefix length.
    pub(crate) fn gateway_net(&self) -> IpNet {
        self.with_length(self.gateway())
    }

    /// An address with the subnet's prefix length.
    pub(crate) fn with_length(&self, ip: IpAddr) -> IpNet {
        let length = self.net.prefix_len();
        match ip {
            IpAddr::V4(ip) => Ipv4Net::new_assert(ip, length).into(),
            IpAddr::V6(ip) => Ipv6Net::new_assert(ip, length).into(),
        }
    }

    /// Whether this address can be assigned to a pod.
    pub(crate) fn assigns(&self, ip: IpAddr) -> bool {
        self.net.contains(&ip) && (self.first..=self.last).contains(&self.distance(ip))
    }

    /// The next free address after `last`, wrapping around at the end of the subnet.
    pub(crate) fn next_free(&self, last: Option<IpAddr>, taken: &IntervalSet) -> Option<IpAddr> {
        let base = bits(self.net.addr());
        let (first, end) = (base + self.first, base + self.last);
        let behind = last.and_then(|last| bits(last).checked_add(1));
        let start = behind.filter(|start| (first..=end).contains(start)).unwrap_or(first);
        let found = taken.first_free(start, end).or_else(|| taken.first_free(first, end));
        found.map(|ip| self.at(ip - base))
    }

    fn distance(&self, ip: IpAddr) -> u128 {
        match (ip, self.net.addr()) {
            (IpAddr::V4(ip), IpAddr::V4(net)) => {
                u128::from(ip.to_bits().wrapping_sub(net.to_bits()))
            }
            (IpAddr::V6(ip), IpAddr::V6(net)) => ip.to_bits().wrapping_sub(net.to_bits()),
            _ => u128::MAX,
        }
    }

    fn at(&self, distance: u128) -> IpAddr {
        match self.net.addr() {
            IpAddr::V4(net) => {
                // An offset within the subnet, so it fits.
                let distance = u32::try_from(distance).unwrap_or(u32::MAX);
                Ipv4Addr::from_bits(net.to_bits().wrapping_add(distance)).into()
            }
            IpAddr::V6(net) => Ipv6Addr::from_bits(net.to_bits().wrapping_add(distance)).into(),
        }
    }
}

/// An address as a number. IPv4 and IPv6 addresses are kept in separate sets.
pub(crate) fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Addresses that no pod can have, and the reason. A subnet must not overlap with them.
const UNUSABLE: [(&str, &str); 7] = [
    ("0.0.0.0/8", "these addresses mean this host"),
    ("127.0.0.0/8", "these are addresses of loopback"),
    ("224.0.0.0/4", "these are multicast addresses"),
    ("255.255.255.255/32", "this is the broadcast address"),
    ("::/127", "these are unspecified and loopback"),
    ("fe80::/10", "these are addresses of one link only"),
    ("ff00::/8", "these are multicast addresses"),
];

fn unusable(net: IpNet) -> Option<&'static str> {
    let overlaps = |(of, _): &&(&str, &str)| {
        of.parse::<IpNet>().is_ok_and(|of| of.contains(&net) || net.contains(&of))
    };
    UNUSABLE.iter().find(overlaps).map(|(_, why)| *why)
}

/// The bridge's addresses in these subnets, with prefix lengths. A link has an IPv6 address only once, whatever the
/// prefix length: with that of the widest subnet.
pub(crate) fn gateway_nets(subnets: &[Subnet]) -> Vec<IpNet> {
    let mut found: Vec<IpNet> = Vec::new();
    for net in subnets.iter().map(Subnet::gateway_net) {
        let same = |of: &IpNet| *of == net || (net.addr().is_ipv6() && of.addr() == net.addr());
        match found.iter_mut().find(|of| same(of)) {
            Some(of) if of.prefix_len() > net.prefix_len() => *of = net,
            Some(_) => {}
            None => found.push(net),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::new(text.parse().unwrap()).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn network_gateway_and_broadcast_are_no_pods() {
        let small = subnet("10.1.2.9/29");
        assert_eq!(small.gateway_net().to_string(), "10.1.2.9/29");
        let none = IntervalSet::default();
        assert_eq!(small.next_free(None, &none), Some(ip("10.1.2.10")));
        let after = |last: &str| small.next_free(Some(ip(last)), &none);
        assert_eq!(after("10.1.2.14"), Some(ip("10.1.2.10")), "wraps before the broadcast");
        assert_eq!(after("192.0.2.1"), Some(ip("10.1.2.10")), "of another subnet");
        for not in ["10.1.2.8", "10.1.2.9", "10.1.2.15", "10.1.2.16", "10.1.2.7", "fd00::3"] {
            assert!(!small.assigns(ip(not)), "{not}");
        }
        let six = subnet("fd00:1::/64");
        assert_eq!(six.gateway(), ip("fd00:1::1"));
        assert!(six.assigns(ip("fd00:1::ffff:ffff:ffff:ffff")), "IPv6 has no broadcast");
        assert!(!six.assigns(ip("fd00:1::")));
    }

    #[test]
    fn the_widest_subnets_do_not_overflow() {
        for (net, last, first) in [
            ("4000::/2", "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::2"),
            ("64.0.0.0/3", "95.255.255.254", "64.0.0.2"),
        ] {
            let (net, mut taken) = (subnet(net), IntervalSet::default());
            assert!(net.assigns(ip(last)));
            assert_eq!(net.next_free(Some(ip(last)), &taken), Some(ip(first)));
            taken.insert(bits(ip(last)));
            assert_eq!(net.next_free(Some(ip(last)), &taken), Some(ip(first)));
        }
    }

    #[test]
    fn a_subnet_without_room_for_a_pod_is_refused() {
        for text in ["10.0.0.0/31", "10.0.0.1/32", "fd00::/127", "fd00::/128"] {
            Subnet::new(text.parse().unwrap()).unwrap_err();
        }
        let (small, mut taken) = (subnet("10.0.0.0/30"), IntervalSet::default());
        assert_eq!(small.next_free(None, &taken), Some(ip("10.0.0.2")));
        taken.insert(bits(ip("10.0.0.2")));
        assert_eq!(small.next_free(None, &taken), None, "room for one");
    }
}

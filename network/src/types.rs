// SPDX-License-Identifier: Apache-2.0
//! The types that a caller hands in or gets back.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// What a pod asks of its network.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// Its id.
    pub pod: Pod<'r>,
    /// Its namespace, in Kubernetes.
    pub namespace: &'r str,
    /// Its name there.
    pub name: &'r str,
    /// Its uid there.
    pub uid: &'r str,
    /// Its network namespace, empty but for a loopback that is off.
    pub netns: BorrowedFd<'r>,
    /// Ports of the node that are to lead to it, and ports that it only tells of.
    pub ports: &'r [PortMapping],
    /// How fast it may be.
    pub bandwidth: Bandwidth,
    /// Its resolver's settings, for networks that serve names.
    pub dns: &'r Dns,
    /// The cgroup that it is in, below the hierarchies' roots.
    pub cgroup: &'r str,
    /// Its annotations.
    pub annotations: &'r HashMap<String, String>,
}

/// Rates, in bits per second. `None`: as fast as it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// To the pod.
    pub ingress_bits: Option<u64>,
    /// From the pod.
    pub egress_bits: Option<u64>,
}

/// A resolver's settings, as in resolv.conf(5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// `nameserver`.
    pub servers: Vec<String>,
    /// `search`.
    pub searches: Vec<String>,
    /// `options`.
    pub options: Vec<String>,
}

/// A pod, by its names.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'p> {
    /// 64 hex digits.
    pub id: &'p str,
    /// The first eleven of them.
    pub short: &'p str,
}

/// What pods' links are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Links {
    /// Pairs, whose ends on the host are ports of our bridge.
    #[default]
    Bridge,
    /// Each on the node's uplink, with a hardware address of its own.
    Macvlan,
    /// Each on the node's uplink, with that one's hardware address.
    Ipvlan,
}

impl Links {
    /// What the kernel calls the link that stands for the pods on the host.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }
}

/// What one link of a pod has let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceStats {
    /// Its name inside, as in `eth0`.
    pub name: String,
    /// Received.
    pub rx_bytes: u64,
    /// Received.
    pub rx_packets: u64,
    /// Received and broken.
    pub rx_errors: u64,
    /// Received and dropped for want of room.
    pub rx_dropped: u64,
    /// Sent.
    pub tx_bytes: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Not sent, for an error.
    pub tx_errors: u64,
    /// Dropped before they were sent.
    pub tx_dropped: u64,
}

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in an IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the node that leads to a port of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The protocol of both ports.
    pub protocol: Protocol,
    /// Where the pod listens.
    pub container_port: u16,
    /// Where the node is reached. Zero: nowhere, the mapping only tells what the pod listens on.
    pub host_port: u16,
    /// The node's address that it is reached at. `None` and the unspecified address: at any.
    pub host_ip: Option<IpAddr>,
}

impl PortMapping {
    /// The one address of the node that it is for, if it is for one.
    pub(crate) fn only_at(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }

    /// Whether it is for packets to `ip`'s family at all.
    pub(crate) fn is_for(&self, ip: IpAddr) -> bool {
        self.host_ip.is_none_or(|host| host.is_ipv4() == ip.is_ipv4())
    }

    /// Whether some packet to the node would match both.
    pub(crate) fn clashes(&self, other: &Self) -> bool {
        let families = match (self.host_ip, other.host_ip) {
            (Some(a), Some(b)) => a.is_ipv4() == b.is_ipv4(),
            _ => true,
        };
        let addresses = match (self.only_at(), other.only_at()) {
            (Some(a), Some(b)) => a == b,
            _ => families,
        };
        self.protocol == other.protocol && self.host_port == other.host_port && addresses
    }
}

/// As in `tcp 127.0.0.1:8080`.
impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only_at() {
            None => write!(f, "{} {}", self.protocol, self.host_port),
            Some(IpAddr::V4(ip)) => write!(f, "{} {ip}:{}", self.protocol, self.host_port),
            Some(IpAddr::V6(ip)) => write!(f, "{} [{ip}]:{}", self.protocol, self.host_port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host_ip: Option<&str>, host_port: u16) -> PortMapping {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port, host_ip }
    }

    #[test]
    fn ports_clash_where_one_packet_could_go_to_both() {
        assert!(at(None, 80).clashes(&at(None, 80)));
        assert!(at(None, 80).clashes(&at(Some("10.0.0.1"), 80)));
        assert!(at(Some("0.0.0.0"), 80).clashes(&at(Some("10.0.0.1"), 80)));
        assert!(at(None, 80).clashes(&at(Some("fd00::1"), 80)));
        assert!(!at(None, 80).clashes(&at(None, 81)));
        assert!(!at(Some("10.0.0.2"), 80).clashes(&at(Some("10.0.0.1"), 80)));
        assert!(!at(Some("0.0.0.0"), 80).clashes(&at(Some("::"), 80)));
        let udp = PortMapping { protocol: Protocol::Udp, ..at(None, 80) };
        assert!(!at(None, 80).clashes(&udp));
    }
}

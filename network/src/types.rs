// SPDX-License-Identifier: Apache-2.0
//! The types that callers pass in and get back.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// Everything that a network needs to know in order to attach a pod.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The pod's id.
    pub pod: Pod<'r>,
    /// The pod's Kubernetes namespace.
    pub namespace: &'r str,
    /// The pod's Kubernetes name.
    pub name: &'r str,
    /// The pod's Kubernetes uid.
    pub uid: &'r str,
    /// The pod's network namespace, empty except for a loopback link that is down.
    pub netns: BorrowedFd<'r>,
    /// Host ports to publish. Mappings without a host port only document a container port.
    pub ports: &'r [PortMapping],
    /// The pod's rate limits.
    pub bandwidth: Bandwidth,
    /// The pod's resolver settings, for networks that run a DNS service.
    pub dns: &'r Dns,
    /// The path of the pod's cgroup, relative to the root of each hierarchy.
    pub cgroup: &'r str,
    /// The pod's annotations.
    pub annotations: &'r HashMap<String, String>,
    /// The network that the pod asks for.
    pub network: RequestedNetwork<'r>,
}

/// The network that a pod asks for. Kubernetes leaves it to the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RequestedNetwork<'r> {
    /// The one that the node's configuration decides on.
    #[default]
    Configured,
    /// Only loopback in a namespace of its own.
    Loopback,
    /// The one that the CNI configuration with this name describes, and no other.
    Cni(&'r str),
}

/// Rate limits in bits per second; `None` means unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Limit for traffic to the pod.
    pub ingress_bits: Option<u64>,
    /// Limit for traffic from the pod.
    pub egress_bits: Option<u64>,
}

/// A resolver's settings, as in resolv.conf(5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// The `nameserver` entries.
    pub servers: Vec<String>,
    /// The `search` list.
    pub searches: Vec<String>,
    /// The `options` list.
    pub options: Vec<String>,
}

/// A pod's id, in full and shortened.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'p> {
    /// 64 hexadecimal digits.
    pub id: &'p str,
    /// The first eleven digits, as used in the name of the pod's link.
    pub short: &'p str,
}

/// The network that attaches a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Hull's own network.
    Builtin,
    /// The plugins that CNI configurations name.
    Cni,
    /// Neither: pods have only loopback.
    None,
}

/// As messages name it.
impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Builtin => "the built-in network",
            Self::Cni => "CNI plugins",
            Self::None => "no network",
        })
    }
}

/// Traffic counters of one link in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceStats {
    /// The link's name inside the pod, as in `eth0`.
    pub name: String,
    /// The number of received bytes.
    pub rx_bytes: u64,
    /// The number of received packets.
    pub rx_packets: u64,
    /// Packets received with errors.
    pub rx_errors: u64,
    /// Received packets that were dropped for lack of buffers.
    pub rx_dropped: u64,
    /// The number of sent bytes.
    pub tx_bytes: u64,
    /// The number of sent packets.
    pub tx_packets: u64,
    /// Packets not sent because of an error.
    pub tx_errors: u64,
    /// Packets dropped before transmission.
    pub tx_dropped: u64,
}

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The Transmission Control Protocol.
    Tcp,
    /// The User Datagram Protocol.
    Udp,
    /// The Stream Control Transmission Protocol.
    Sctp,
}

impl Protocol {
    /// The protocol number in an IP header.
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

/// A host port that is forwarded to a container port of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The protocol of both ports.
    pub protocol: Protocol,
    /// The port that the pod listens on.
    pub container_port: u16,
    /// The port on the node. Zero: nothing is published, the mapping only documents the container port.
    pub host_port: u16,
    /// The node's address that the port is published on. `None` and the unspecified address mean all.
    pub host_ip: Option<IpAddr>,
}

impl PortMapping {
    /// The address that the port is published on, unless it is published on all.
    pub(crate) fn only_at(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }

    /// Whether the mapping applies to the address family of `ip`.
    pub(crate) fn is_for(&self, ip: IpAddr) -> bool {
        self.host_ip.is_none_or(|host| host.is_ipv4() == ip.is_ipv4())
    }

    /// Whether some packet to the node would match both mappings.
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

/// Formats as in `tcp 127.0.0.1:8080`.
impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only_at() {
            None => write!(f, "{} {}", self.protocol, self.host_port),
            Some(IpAddr::V4(ip)) => write!(f, "{} {ip}:{}", self.protocol, self.host_port),
            Some(IpAddr::V6(ip)) => write!(f, "{} [{ip}]:{}", self.protocol, self.host_port),
        }
    }
}

/// The host's end of a pod's link, by which the built-in network reaches the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// It is up, at the bridge.
    Whole,
    /// It does not exist.
    Missing,
    /// It is switched off.
    Down,
    /// It is not at the bridge.
    Unplugged,
    /// The pod has no end on the host: its link is on the uplink, of a CNI plugin, or none.
    Elsewhere,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host_ip: Option<&str>, host_port: u16) -> PortMapping {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port, host_ip }
    }

    #[test]
    fn ports_clash_when_one_packet_matches_both() {
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

// SPDX-License-Identifier: Apache-2.0
//! Ports of the node that lead to a port of a pod.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

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

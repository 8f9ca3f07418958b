// SPDX-License-Identifier: Apache-2.0
//! The map elements that forward a pod's host ports to the pod. Pure.
//!
//! Keys and data are laid out as in registers: each value starts at a four-byte word.

use super::expr::Field;
use super::message::{DELETE_ELEMENT, comment};
use crate::types::PortMapping;
use hull_netlink::Attributes;
use std::net::IpAddr;

/// The published host ports of one pod.
#[derive(Debug)]
pub(crate) struct Published<'p> {
    pub(crate) pod: &'p str,
    pub(crate) addresses: &'p [IpAddr],
    pub(crate) ports: &'p [PortMapping],
}

/// A data type: its number in nftables, and its length in a register.
pub(super) type Type = (u32, u32);
const IPV4: Type = (7, 4);
const IPV6: Type = (8, 16);
const PROTOCOL: Type = (12, 4);
const PORT: Type = (13, 4);

/// The type number of a concatenation.
pub(super) fn concatenated(types: &[Type]) -> u32 {
    types.iter().fold(0, |all, (number, _)| all << 6 | number)
}

pub(super) fn length(types: &[Type]) -> u32 {
    types.iter().map(|(_, length)| length).sum()
}

/// A map, with the types of its keys and data.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) name: &'static str,
    pub(super) key: Vec<Type>,
    pub(super) data: Vec<Type>,
}

/// An element of a map.
#[derive(Debug, Clone)]
pub(super) struct Element {
    pub(super) map: &'static str,
    pub(super) key: Vec<u8>,
    pub(super) data: Vec<u8>,
    pub(super) note: String,
}

impl Element {
    pub(super) fn attributes(&self, kind: u16) -> Attributes {
        let value = |bytes: &[u8]| Attributes::default().bytes(1, bytes);
        let key = Attributes::default().nested(1, value(&self.key));
        if kind == DELETE_ELEMENT {
            return key;
        }
        key.nested(2, value(&self.data)).bytes(6, &comment(0, &self.note))
    }
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn address(self) -> Type {
        match self {
            Self::V4 => IPV4,
            Self::V6 => IPV6,
        }
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    pub(super) fn source(self) -> Field {
        match self {
            Self::V4 => (1, 12, 4),
            Self::V6 => (1, 8, 16),
        }
    }

    pub(super) fn destination(self) -> Field {
        match self {
            Self::V4 => (1, 16, 4),
            Self::V6 => (1, 24, 16),
        }
    }

    /// The length of an address in four-byte words.
    pub(super) fn words(self) -> u32 {
        self.address().1 / 4
    }

    pub(super) fn ports(self) -> Map {
        let name = if self == Self::V4 { "ports4" } else { "ports6" };
        Map { name, key: vec![PROTOCOL, PORT], data: vec![self.address(), PORT] }
    }

    pub(super) fn ports_at(self) -> Map {
        let name = if self == Self::V4 { "ports4_at" } else { "ports6_at" };
        Map { name, key: vec![self.address(), PROTOCOL, PORT], data: vec![self.address(), PORT] }
    }
}

pub(super) fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(super) fn all_elements(of: &Published<'_>) -> Vec<Element> {
    [Family::V4, Family::V6].into_iter().flat_map(|family| elements(of, family)).collect()
}

/// The elements that forward host ports to the pod's address of this family.
pub(super) fn elements(of: &Published<'_>, family: Family) -> Vec<Element> {
    let Some(pod) = of.addresses.iter().find(|ip| Family::of(**ip) == family) else {
        return Vec::new();
    };
    let note = format!("pod {}", of.pod);
    let word = |port: u16| [port.to_be_bytes(), [0; 2]].concat();
    let lead = |port: &PortMapping| {
        let asked = [vec![port.protocol.number(), 0, 0, 0], word(port.host_port)].concat();
        let (map, key) = match port.only_at() {
            None => (family.ports().name, asked),
            Some(ip) => (family.ports_at().name, [bytes(ip), asked].concat()),
        };
        let data = [bytes(*pod), word(port.container_port)].concat();
        Element { map, key, data, note: note.clone() }
    };
    of.ports.iter().filter(|port| port.is_for(*pod)).map(lead).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Protocol;

    fn ips() -> Vec<IpAddr> {
        vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]
    }

    fn port(host_ip: Option<&str>) -> PortMapping {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip }
    }

    fn maps(ports: &[PortMapping]) -> Vec<&'static str> {
        let of = Published { pod: "a", addresses: &ips(), ports };
        all_elements(&of).into_iter().map(|element| element.map).collect()
    }

    #[test]
    fn a_port_goes_into_the_maps_of_its_addresses() {
        assert_eq!(maps(&[port(None)]), ["ports4", "ports6"]);
        assert_eq!(maps(&[port(Some("0.0.0.0"))]), ["ports4"]);
        assert_eq!(maps(&[port(Some("::1"))]), ["ports6_at"]);
        let twice = [port(Some("10.9.0.1")), port(Some("10.9.0.2"))];
        assert_eq!(maps(&twice), ["ports4_at", "ports4_at"]);
    }

    #[test]
    fn keys_and_data_are_words() {
        let of = Published { pod: "a", addresses: &ips(), ports: &[port(Some("10.9.0.1"))] };
        let found = all_elements(&of);
        assert_eq!(found.len(), 1, "an IPv4 host IP gives no IPv6 element");
        assert_eq!(found[0].key, [10, 9, 0, 1, 6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(found[0].data, [10, 0, 0, 2, 0, 80, 0, 0]);
        let map = Family::V4.ports_at();
        assert_eq!(found[0].key.len(), length(&map.key) as usize);
        assert_eq!(found[0].data.len(), length(&map.data) as usize);
    }

    #[test]
    fn types_are_concatenated_as_nft_does() {
        assert_eq!(concatenated(&[PROTOCOL, PORT]), 12 << 6 | 13);
    }
}

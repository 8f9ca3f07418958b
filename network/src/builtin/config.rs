// SPDX-License-Identifier: Apache-2.0
//! The settings of the built-in network, and the result of an attach.

use crate::types::Links;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;

/// How the pod network is to be.
#[derive(Debug, Clone)]
pub struct Config {
    /// What pods' links are.
    pub links: Links,
    /// The link that macvlan and ipvlan links are made on. `None`: the one with the default route.
    pub uplink: Option<String>,
    /// The name of the bridge, or of the link that stands for it.
    pub bridge: String,
    /// Where pods' addresses come from: an IPv4 subnet, an IPv6 subnet, or one of each.
    pub pod_cidr: Vec<IpNet>,
    /// Of all links. `None`: as the link with the default route.
    pub mtu: Option<u32>,
    /// Whether pods leave the node with the node's address.
    pub masquerade: bool,
    /// The name of our nftables table, of family inet.
    pub table: String,
    /// Where leases are kept.
    pub state_dir: PathBuf,
}

/// What a pod got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its addresses, with the length of their subnet; IPv4 and IPv6 in the order of the subnets.
    pub ips: Vec<IpNet>,
    /// The gateway of the first.
    pub gateway: IpAddr,
    /// The name of the end on the host, where its link has two.
    pub host_link: String,
    /// The MTU of both ends.
    pub mtu: u32,
}

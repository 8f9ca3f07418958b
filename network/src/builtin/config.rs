// SPDX-License-Identifier: Apache-2.0
//! The settings of the built-in network, and the result of attaching a pod.

use hull_netlink::link::LinkMode;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;

/// Settings of the built-in network.
#[derive(Debug, Clone)]
pub struct Config {
    /// The kind of link that pods get.
    pub link_mode: LinkMode,
    /// The parent of macvlan and ipvlan links. `None`: the link with the default route.
    pub uplink: Option<String>,
    /// The name of the bridge, or of the host's own macvlan or ipvlan link.
    pub bridge: String,
    /// The pods' subnets: one IPv4 subnet, one IPv6 subnet, or one of each. Empty: a free one is chosen, unless
    /// `wait_for_pod_cidr`.
    pub pod_cidr: Vec<IpNet>,
    /// Whether pods wait for [`set_pod_cidr`](super::BuiltinNetwork::set_pod_cidr) while `pod_cidr` is empty.
    pub wait_for_pod_cidr: bool,
    /// The MTU of all links. `None`: the MTU of the link with the default route.
    pub mtu: Option<u32>,
    /// Whether packets from pods leave the node with the node's address.
    pub masquerade: bool,
    /// Destinations that see the pods' own addresses although `masquerade` is set: the cluster's pods.
    pub cluster_cidrs: Vec<IpNet>,
    /// The name of Hull's nftables table, of family inet.
    pub table: String,
    /// The directory for leases.
    pub state_dir: PathBuf,
}

/// The result of attaching a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The pod's addresses with their prefix lengths, in the order of the configured subnets.
    pub ips: Vec<IpNet>,
    /// The gateway for the first address.
    pub gateway: IpAddr,
    /// The name of the link's host end, if the link has one.
    pub host_link: String,
    /// The MTU of the link.
    pub mtu: u32,
}

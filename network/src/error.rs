// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with the pod network, and what the operator can do about it.

use crate::types::PortMapping;
use hull_sys as sys;
use ipnet::IpNet;
use rustix::io::Errno;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// Why a pod could not be attached to its network or detached from it, or the network is not usable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("use pod subnet {subnet}: it has no room for a pod")]
    SubnetTooSmall { subnet: IpNet },
    #[error("use pod subnets {subnets}: at most one of IPv4 and one of IPv6, and at least one")]
    Subnets { subnets: String },
    #[error("change the pod subnets to {subnets}: pod {pod} has an address of the old ones")]
    SubnetInUse { subnets: String, pod: String },
    #[error("use pod subnet {subnet}: this host has a route to {route} by {}", shown(link.as_deref()))]
    SubnetOverlaps { subnet: IpNet, route: IpNet, link: Option<String> },
    #[error("list the host's routes")]
    ListRoutes { source: sys::Error },
    #[error("find a free address in {subnet}")]
    SubnetFull { subnet: IpNet },
    #[error("name a link after pod `{id}`: this is no pod id")]
    BadPod { id: String },
    #[error("give host port {port} to the pod: pod {holder} has {held}")]
    PortTaken { port: PortMapping, held: PortMapping, holder: String },
    #[error("give host port {port} to the pod: it asks for that port twice")]
    PortTwice { port: PortMapping },
    #[error("lead host port {port} to container port 0")]
    NoContainerPort { port: PortMapping },
    #[error("lead host port {port} to the pod: it has no address of the family of {host_ip}")]
    NoSuchFamily { port: PortMapping, host_ip: IpAddr },
    #[error("read the addresses given out in {}", path.display())]
    ReadLeases { path: PathBuf, source: io::Error },
    #[error("record the pod's addresses in {}", path.display())]
    WriteLease { path: PathBuf, source: io::Error },
    #[error("remove the record of the pod's addresses {}", path.display())]
    RemoveLease { path: PathBuf, source: io::Error },
    #[error("set {} to {value}", path.display())]
    Sysctl { path: PathBuf, value: String, source: io::Error },
    #[error("speak to the kernel about links")]
    Socket { source: sys::Error },
    #[error("watch links go")]
    WatchLinks { source: io::Error },
    #[error("look for link {link}")]
    FindLink { link: String, source: sys::Error },
    #[error("use {link} as the pods' {wanted}: it is {kind}")]
    NotABridge { link: String, wanted: &'static str, kind: String },
    #[error("make {kind} {link}")]
    MakeBridge { link: String, kind: &'static str, source: sys::Error },
    #[error("find the link that pods' links are made on: {}", no_uplink(named.as_deref()))]
    NoUplink { named: Option<String> },
    #[error("make nftables table `inet {table}`")]
    MakeTable { table: String, source: sys::Error },
    #[error("remove nftables table `inet {table}`")]
    RemoveTable { table: String, source: sys::Error },
    #[error("make the pod's link {link}: there is one of that name already, not of this pod")]
    LinkTaken { link: String },
    #[error("make the pod's eth0: its network namespace has one already")]
    InsideTaken,
    #[error("make the pod's link {link}")]
    MakeLink { link: String, source: sys::Error },
    #[error("make the pod's {link}, a {kind} link")]
    MakeSubLink { link: String, kind: &'static str, source: sys::Error },
    #[error("give the pod {ip}: a link of an earlier pod still has it")]
    AddressLingers { ip: IpAddr, source: sys::Error },
    #[error("limit the pod's rate: its link is of kind {kind} and has no end on the host")]
    NoRates { kind: &'static str },
    #[error("limit the rate of the pod's link {link}")]
    LimitRate { link: String, source: sys::Error },
    #[error("remove link {link}")]
    RemoveLink { link: String, source: sys::Error },
    #[error("enter the pod's network namespace")]
    Enter { source: sys::Error },
    #[error("set up links and addresses in the pod's network namespace")]
    Inside { source: sys::Error },
    #[error("lead the node's ports to the pod in nftables table `inet {table}`")]
    MakePorts { table: String, source: sys::Error },
    #[error("take the pod's ports out of nftables table `inet {table}`")]
    RemovePorts { table: String, source: sys::Error },
    #[error("try out whether this kernel can make {what}")]
    Probe { what: &'static str, source: sys::Error },
    #[error("remove the pod network: {count} pods are attached to it")]
    StillAttached { count: usize },
    #[error("give the pod {what}: the pod network is `none`")]
    NoNetwork { what: &'static str },
    #[error(transparent)]
    Cni(#[from] crate::cni::error::Error),
}

const NFT_MODULES: &str =
    "modprobe -a nf_tables nf_conntrack nft_chain_nat nft_nat nft_masq nft_ct nft_fib_inet";

const RATE_MODULES: &str = "modprobe -a ifb sch_tbf sch_ingress cls_u32 act_mirred";

impl Error {
    /// What the operator can do about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::SubnetTooSmall { .. } | Self::Subnets { .. } => {
                Some("set `pod_cidr` under `[network]`, as in [\"10.88.0.0/16\"]".into())
            }
            Self::SubnetInUse { .. } => Some("remove the pods of this node first (drain it)".into()),
            Self::SubnetOverlaps { route, .. } => {
                let six = if route.addr().is_ipv4() { "" } else { "-6 " };
                Some(format!("set another `pod_cidr` under `[network]`, or remove that route; see `ip {six}route show table all to root {route}`"))
            }
            Self::SubnetFull { subnet } => {
                Some(format!("widen {subnet} under `[network]`, or lower the kubelet's `maxPods`"))
            }
            Self::PortTaken { holder, .. } => Some(format!(
                "remove pod {holder}, use another `hostPort`, or another `hostIP` for both"
            )),
            Self::PortTwice { .. } => Some("name each `hostPort` of the pod once".into()),
            Self::NoContainerPort { .. } => Some("set the `containerPort` that the pod listens on".into()),
            Self::NoSuchFamily { host_ip, .. } => {
                let family = if host_ip.is_ipv4() { "IPv4" } else { "IPv6" };
                Some(format!("add an {family} subnet to `pod_cidr` under `[network]`, or change the `hostIP`"))
            }
            Self::Sysctl { path, value, .. } => {
                Some(format!("make /proc/sys writable for hull, or set it before: echo {value} > {}", path.display()))
            }
            Self::NotABridge { link, .. } => Some(format!(
                "set another `bridge` under `[network]`, or remove that link: ip link delete {link}"
            )),
            Self::LinkTaken { link } => Some(format!("see what it is with `ip -d link show {link}`, then: ip link delete {link}")),
            Self::InsideTaken => Some("give every pod a network namespace of its own".into()),
            Self::WriteLease { path, .. } | Self::RemoveLease { path, .. } | Self::ReadLeases { path, .. } => {
                Some(format!("check space and permissions of {}", path.display()))
            }
            Self::StillAttached { .. } => Some("remove the pods first".into()),
            Self::NoUplink { .. } => Some(
                "set `uplink` under `[network]` to a link of this node (see `ip link`), or `mode = \"bridge\"`".into(),
            ),
            Self::AddressLingers { .. } => Some(
                "the next try gets another address; see what holds the earlier pod's network namespace with `lsns -t net`".into(),
            ),
            Self::NoRates { .. } => Some(
                "leave the pod's bandwidth annotations out, or set `mode = \"bridge\"` under `[network]`".into(),
            ),
            Self::Cni(source) => source.hint(),
            Self::NoNetwork { .. } => Some(
                "set another `mode` under `[network]`, or run the pod on the host's network".into(),
            ),
            Self::MakeBridge { source, kind, .. } | Self::MakeSubLink { source, kind, .. } => {
                links_hint(source, kind)
            }
            Self::MakeLink { source, .. } => pair_hint(source),
            Self::LimitRate { source, .. } => rate_hint(source),
            Self::Probe { what, source } => probe_hint(what, source),
            Self::MakeTable { source, .. }
            | Self::RemoveTable { source, .. }
            | Self::MakePorts { source, .. }
            | Self::RemovePorts { source, .. } => nft_hint(source),
            Self::Inside { source } => inside_hint(source),
            Self::Socket { source }
            | Self::ListRoutes { source }
            | Self::FindLink { source, .. }
            | Self::RemoveLink { source, .. }
            | Self::Enter { source } => permission(source),
            Self::BadPod { .. } | Self::WatchLinks { .. } => None,
        }
    }
}

fn pair_hint(source: &hull_sys::Error) -> Option<String> {
    match source.errno() {
        Errno::XFULL => Some(
            "a bridge of the kernel has room for 1,023 pods: lower the kubelet's `maxPods` to 1000, or set `mode = \"macvlan\"` under `[network]`".into(),
        ),
        _ => links_hint(source, "veth"),
    }
}

fn rate_hint(source: &hull_sys::Error) -> Option<String> {
    match source.errno() {
        Errno::OPNOTSUPP | Errno::NOENT => Some(format!(
            "load the kernel's modules: {RATE_MODULES}; or leave the pod's bandwidth annotations out"
        )),
        _ => permission(source),
    }
}

fn probe_hint(what: &str, source: &hull_sys::Error) -> Option<String> {
    match what {
        PROBE_BRIDGE => links_hint(source, "bridge"),
        PROBE_VETH => links_hint(source, "veth"),
        PROBE_MACVLAN => links_hint(source, "macvlan"),
        PROBE_IPVLAN => links_hint(source, "ipvlan"),
        _ => nft_hint(source),
    }
}

fn inside_hint(source: &hull_sys::Error) -> Option<String> {
    match source.errno() {
        Errno::ACCESS => Some("IPv6 is switched off in the pod: allow it (net.ipv6.conf.default.disable_ipv6=0), or leave IPv6 out of `pod_cidr`".into()),
        _ => permission(source),
    }
}

pub(crate) const PROBE_BRIDGE: &str = "bridges";
pub(crate) const PROBE_VETH: &str = "veth pairs";
pub(crate) const PROBE_MACVLAN: &str = "macvlan links";
pub(crate) const PROBE_IPVLAN: &str = "ipvlan links";
pub(crate) const PROBE_NFT: &str = "the nftables rules that pods need";

fn shown(link: Option<&str>) -> String {
    link.map_or_else(|| "no link".to_owned(), |link| format!("link {link}"))
}

fn no_uplink(named: Option<&str>) -> String {
    named.map_or_else(
        || "there is no default route to tell it".to_owned(),
        |name| format!("there is no link {name}"),
    )
}

fn permission(source: &sys::Error) -> Option<String> {
    matches!(source.errno(), Errno::PERM | Errno::ACCESS)
        .then(|| "run hull serve as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN".into())
}

fn links_hint(source: &sys::Error, module: &str) -> Option<String> {
    match source.errno() {
        Errno::OPNOTSUPP if module == "bridge" => {
            Some("load the kernel module: modprobe bridge".into())
        }
        Errno::OPNOTSUPP => Some(format!(
            "load the kernel module: modprobe {module}; without it set another `mode` under `[network]`"
        )),
        _ => permission(source),
    }
}

fn nft_hint(source: &sys::Error) -> Option<String> {
    match source.errno() {
        Errno::OPNOTSUPP | Errno::NOENT | Errno::INVAL | Errno::PROTONOSUPPORT => {
            Some(format!("load the kernel's modules: {NFT_MODULES}"))
        }
        _ => permission(source),
    }
}

// SPDX-License-Identifier: Apache-2.0
//! The errors of the pod network, and hints for the operator.

use crate::held_ports::Holder;
use crate::types::PortMapping;
use hull_sys as sys;
use ipnet::IpNet;
use rustix::io::Errno;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// A failure to attach a pod to its network, to detach it, or to use the network at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("use pod subnet {subnet}: it is too small for a gateway and a pod")]
    SubnetTooSmall { subnet: IpNet },
    #[error("use pod subnets {subnets}: set one IPv4 subnet, one IPv6 subnet, or one of each")]
    Subnets { subnets: String },
    #[error(
        "change the pod subnets to {subnets}: pod {pod} has the address that the bridge would get"
    )]
    SubnetInUse { subnets: String, pod: String },
    #[error("use pod subnet {subnet}: {why}")]
    SubnetUnusable { subnet: IpNet, why: &'static str },
    #[error(
        "use pod subnet {subnet}: IPv6 needs an MTU of at least {MTU_MIN_V6} bytes, and `network.mtu` is {mtu}"
    )]
    MtuTooSmall { subnet: IpNet, mtu: u32 },
    #[error("find a pod subnet: the kubelet has not announced the node's subnets yet")]
    PodCidrAwaited,
    #[error("find a pod subnet: every one that Hull tries is in use on this host ({overlaps})")]
    NoSubnetFree { overlaps: String },
    #[error("use pod subnet {subnet}: this host has a route to {route} through {}", shown(link.as_deref()))]
    SubnetOverlaps { subnet: IpNet, route: IpNet, link: Option<String> },
    #[error("list the host's routes")]
    ListRoutes { source: sys::Error },
    #[error("find a free address in {subnet}: pods have all of them")]
    SubnetFull { subnet: IpNet },
    #[error("derive a link name from pod id `{id}`: the id is not 64 hexadecimal digits")]
    BadPod { id: String },
    #[error("publish host port {port} for the pod: pod {holder} has {held}")]
    PortTaken { port: PortMapping, held: PortMapping, holder: String },
    #[error(
        "publish host port {port} for the pod: the port is in use, {holder} of this node listens on it at {}", listens_at(*ip)
    )]
    PortHeld {
        port: PortMapping,
        /// The address at which it listens; unspecified for all of the node's.
        ip: IpAddr,
        holder: Holder,
    },
    #[error("publish host port {port} for the pod: the pod requests it twice")]
    PortTwice { port: PortMapping },
    #[error("publish host port {port}: its container port is 0")]
    NoContainerPort { port: PortMapping },
    #[error("publish host port {port}: the pod has no address in the family of host IP {host_ip}")]
    NoSuchFamily { port: PortMapping, host_ip: IpAddr },
    #[error("read the pods' address leases")]
    ReadLeases { source: hull_records::Error },
    #[error("write the pod's address lease")]
    WriteLease { source: hull_records::Error },
    #[error("remove the pod's address lease")]
    RemoveLease { source: hull_records::Error },
    #[error("set {} to {value}", path.display())]
    Sysctl { path: PathBuf, value: String, source: io::Error },
    #[error("open a netlink route socket")]
    Socket { source: sys::Error },
    #[error("start the thread that waits for links to be removed")]
    WatchLinks { source: io::Error },
    #[error("look up link {link}")]
    FindLink { link: String, source: sys::Error },
    #[error("use link {link} as the pods' {wanted}: it is {kind}")]
    WrongLinkKind { link: String, wanted: &'static str, kind: String },
    #[error("create {kind} {link}")]
    MakeBridge { link: String, kind: &'static str, source: sys::Error },
    #[error("find the uplink for pods' links: {}", no_uplink(named.as_deref()))]
    NoUplink { named: Option<String> },
    #[error("write nftables table `inet {table}`")]
    MakeTable { table: String, source: sys::Error },
    #[error("remove nftables table `inet {table}`")]
    RemoveTable { table: String, source: sys::Error },
    #[error("create the pod's link {link}: a link of that name exists and is not this pod's")]
    LinkTaken { link: String },
    #[error("create the pod's eth0: its network namespace already has one")]
    InsideTaken,
    #[error("create the pod's link {link}")]
    MakeLink { link: String, source: sys::Error },
    #[error("create the pod's {kind} link {link}")]
    MakeSubInterface { link: String, kind: &'static str, source: sys::Error },
    #[error("assign {ip} to the pod: the link of an earlier pod still has it")]
    AddressLingers { ip: IpAddr, source: sys::Error },
    #[error("limit the pod's rate: a {kind} link has no end on the host")]
    NoRates { kind: &'static str },
    #[error("limit the rate of the pod's link {link}")]
    LimitRate { link: String, source: sys::Error },
    #[error("remove address {address} from link {link}")]
    RemoveAddress { link: String, address: IpNet, source: sys::Error },
    #[error("remove link {link}")]
    RemoveLink { link: String, source: sys::Error },
    #[error("enter the pod's network namespace")]
    Enter { source: sys::Error },
    #[error("configure links and addresses in the pod's network namespace")]
    Inside { source: sys::Error },
    #[error("add the pod's host ports to nftables table `inet {table}`")]
    MakePorts { table: String, source: sys::Error },
    #[error("remove the pod's host ports from nftables table `inet {table}`")]
    RemovePorts { table: String, source: sys::Error },
    #[error("probe kernel support for {what}")]
    Probe { what: &'static str, source: sys::Error },
    #[error("remove the pod network: {count} pods are still attached")]
    StillAttached { count: usize },
    #[error("provide {what} for the pod: its network is `none`")]
    NoNetwork { what: &'static str },
    #[error(transparent)]
    Cni(#[from] crate::cni::error::Error),
}

const NFT_MODULES: &str =
    "modprobe -a nf_tables nf_conntrack nft_chain_nat nft_nat nft_masq nft_ct nft_fib_inet";

/// Smallest MTU of a link with IPv6, in bytes: RFC 8200, section 5.
pub(crate) const MTU_MIN_V6: u32 = 1280;

const AWAITED_HINT: &str = "give the node subnets (the controller manager's --allocate-node-cidrs, or the kubelet's --pod-cidr), or set `pod_cidr`, or `wait_for_pod_cidr = false`, under `[network]`";

const RATE_MODULES: &str = "modprobe -a ifb sch_tbf sch_ingress cls_u32 act_mirred";

impl Error {
    /// Advice for the operator, where there is any.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::SubnetTooSmall { .. } | Self::SubnetUnusable { .. } | Self::Subnets { .. } => {
                Some("set `pod_cidr` under `[network]`, as in [\"10.244.1.0/24\"]".into())
            }
            Self::MtuTooSmall { .. } => Some(format!(
                "set `mtu` under `[network]` to {MTU_MIN_V6} or more, or give the node no IPv6 subnet"
            )),
            Self::SubnetInUse { pod, .. } => Some(format!("remove pod {pod} first")),
            Self::PodCidrAwaited => Some(AWAITED_HINT.into()),
            Self::NoSubnetFree { .. } => Some("set `pod_cidr` under `[network]` to a subnet that this host can spare".into()),
            Self::SubnetOverlaps { route, .. } => {
                let six = if route.addr().is_ipv4() { "" } else { "-6 " };
                Some(format!("choose another `pod_cidr` under `[network]`, or remove that route; see `ip {six}route show table all to root {route}`"))
            }
            Self::SubnetFull { subnet } => {
                Some(format!("enlarge {subnet} (`pod_cidr` under `[network]`), remove pods, or lower the kubelet's `maxPods`"))
            }
            Self::PortTaken { holder, .. } => Some(format!(
                "remove pod {holder}, use another `hostPort`, or another `hostIP` for both"
            )),
            Self::PortHeld { ip, holder, .. } => Some(held_hint(*ip, holder)),
            Self::PortTwice { .. } => Some("list each `hostPort` of the pod once".into()),
            Self::NoContainerPort { .. } => Some("set the `containerPort` that the pod listens on".into()),
            Self::NoSuchFamily { host_ip, .. } => Some(family_hint(host_ip)),
            Self::Sysctl { path, value, .. } => {
                Some(format!("make /proc/sys writable for hull, or set it yourself: echo {value} > {}", path.display()))
            }
            Self::WrongLinkKind { link, .. } => Some(format!(
                "set another `bridge` under `[network]`, or remove that link: ip link delete {link}"
            )),
            Self::LinkTaken { link } => Some(format!("inspect it with `ip -d link show {link}`, then remove it: ip link delete {link}")),
            Self::InsideTaken => Some("give every pod a network namespace of its own".into()),
            Self::WriteLease { source } | Self::RemoveLease { source } | Self::ReadLeases { source } => {
                source.hint()
            }
            Self::StillAttached { .. } => Some("remove the pods first".into()),
            Self::NoUplink { .. } => Some(
                "set `uplink` under `[network]` to a link of this node (see `ip link`), or `mode = \"bridge\"`".into(),
            ),
            Self::AddressLingers { .. } => Some(
                "the next attempt uses another address; find what holds the earlier pod's network namespace with `lsns -t net`".into(),
            ),
            Self::NoRates { .. } => Some(
                "remove the pod's bandwidth annotations, or set `mode = \"bridge\"` under `[network]`".into(),
            ),
            Self::Cni(source) => source.hint(),
            Self::NoNetwork { .. } => Some(
                "choose another `mode` under `[network]`, or run the pod on the host's network".into(),
            ),
            Self::MakeBridge { source, kind, .. } | Self::MakeSubInterface { source, kind, .. } => {
                mtu_hint(source).or_else(|| links_hint(source, kind))
            }
            Self::MakeLink { source, .. } => mtu_hint(source).or_else(|| pair_hint(source)),
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
            | Self::RemoveAddress { source, .. }
            | Self::Enter { source } => permission(source),
            Self::BadPod { .. } | Self::WatchLinks { .. } => None,
        }
    }
}

/// The place of a listener, as in `every address (0.0.0.0)`.
fn listens_at(ip: IpAddr) -> String {
    if ip.is_unspecified() { format!("every address ({ip})") } else { ip.to_string() }
}

fn held_hint(ip: IpAddr, holder: &Holder) -> String {
    let change = if ip.is_unspecified() {
        "use another `hostPort`"
    } else {
        "use another `hostPort`, or a `hostIP` at which it does not listen"
    };
    if holder.may_be_stopped() {
        return format!("{change}; or stop {holder} if nobody needs it");
    }
    change.to_owned()
}

fn family_hint(host_ip: &IpAddr) -> String {
    let family = if host_ip.is_ipv4() { "IPv4" } else { "IPv6" };
    format!("add an {family} subnet to `pod_cidr` under `[network]`, or change the `hostIP`")
}

fn pair_hint(source: &hull_sys::Error) -> Option<String> {
    match source.errno() {
        Errno::XFULL => Some(
            "a Linux bridge has at most 1,023 ports: lower the kubelet's `maxPods` to 1000, or set `mode = \"macvlan\"` under `[network]`".into(),
        ),
        _ => links_hint(source, "veth"),
    }
}

/// The kernel refuses a value of a link: the MTU is the only one that a setting names.
fn mtu_hint(source: &hull_sys::Error) -> Option<String> {
    matches!(source.errno(), Errno::INVAL | Errno::RANGE).then(|| {
        "check `mtu` under `[network]`: a link of a pod cannot have a larger MTU than its `uplink`, or its driver".into()
    })
}

fn rate_hint(source: &hull_sys::Error) -> Option<String> {
    match source.errno() {
        Errno::OPNOTSUPP | Errno::NOENT => Some(format!(
            "load the kernel modules: {RATE_MODULES}; or remove the pod's bandwidth annotations"
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
        Errno::ACCESS => Some("IPv6 is disabled in the pod: enable it (net.ipv6.conf.default.disable_ipv6=0), or remove the IPv6 subnet from `pod_cidr`".into()),
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
        || "this host has no default route".to_owned(),
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
            "load the kernel module: modprobe {module}; without it choose another `mode` under `[network]`"
        )),
        _ => permission(source),
    }
}

fn nft_hint(source: &sys::Error) -> Option<String> {
    match source.errno() {
        Errno::OPNOTSUPP | Errno::NOENT | Errno::INVAL | Errno::PROTONOSUPPORT => {
            Some(format!("load the kernel modules: {NFT_MODULES}"))
        }
        _ => permission(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held_ports::{Families, Held, held};
    use crate::types::Protocol;
    use std::net::TcpListener;

    #[test]
    fn another_host_ip_is_offered_only_where_the_holder_does_not_have_it() {
        for (at, offers) in [("0.0.0.0:0", false), ("127.0.0.1:0", true)] {
            let listener = TcpListener::bind(at).unwrap();
            let address = listener.local_addr().unwrap();
            let port = PortMapping {
                protocol: Protocol::Tcp,
                container_port: 80,
                host_port: address.port(),
                host_ip: Some("127.0.0.1".parse().unwrap()),
            };
            let found = held(&port, Families { v4: true, v6: false });
            let Held::Whole { ip, holder } = found else { panic!("{found:?}") };
            let refused = Error::PortHeld { port, ip, holder };
            assert!(refused.to_string().contains(&address.ip().to_string()), "{refused}");
            let hint = refused.hint().unwrap();
            assert_eq!(hint.contains("`hostIP` at which it does not listen"), offers, "{hint}");
        }
    }

    #[test]
    fn a_value_of_a_link_that_the_kernel_refuses_leads_to_the_mtu() {
        let refused = |errno| Error::MakeLink {
            link: "hull0123".into(),
            source: sys::Error::of(|| "RTM_NEWLINK(hull0123)")(errno),
        };
        for errno in [Errno::INVAL, Errno::RANGE] {
            assert!(refused(errno).hint().unwrap().contains("`mtu` under `[network]`"));
        }
        assert!(!refused(Errno::OPNOTSUPP).hint().unwrap().contains("mtu"));
    }
}

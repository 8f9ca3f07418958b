// SPDX-License-Identifier: Apache-2.0
//! Why a pod could not be attached to its network, or detached from it.

use ipnet::IpNet;
use std::io;
use std::path::PathBuf;

/// Why a pod could not be attached to its network, or detached from it. Texts read after "cannot".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A netlink request was refused.
    #[error("{what}")]
    Netlink {
        /// What was asked for.
        what: String,
        /// The answer.
        source: io::Error,
    },
    /// The pod's namespace.
    #[error("enter the pod's network namespace")]
    Enter {
        /// Why.
        source: hull_sys::Error,
    },
    /// No address left.
    #[error("find a free address in {subnet}")]
    SubnetFull {
        /// Which.
        subnet: IpNet,
    },
    /// Too small to hold a gateway and a pod.
    #[error("use {subnet} for pods: it is too small")]
    SubnetTooSmall {
        /// Which.
        subnet: IpNet,
    },
    /// No subnet at all.
    #[error("find the pods' subnet: none is configured")]
    NoSubnet,
    /// Somebody else's link has our name.
    #[error("use `{name}` as the pods' bridge: a link of that name is there and is no bridge")]
    NotABridge {
        /// Which.
        name: String,
    },
    /// Two pods want a port.
    #[error("give the pod host port {port}/{protocol}: pod {holder} has it")]
    PortTaken {
        /// Which.
        port: u16,
        /// tcp, udp or sctp.
        protocol: &'static str,
        /// The other pod.
        holder: String,
    },
    /// A record of an address.
    #[error("keep the record {}", path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A setting of the kernel.
    #[error("set {path} to {value}")]
    Sysctl {
        /// Which.
        path: String,
        /// To what.
        value: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What the operator can do about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::SubnetFull { subnet } | Self::SubnetTooSmall { subnet } => Some(format!(
                "widen {subnet} under `[network] pod_cidr`, or lower the kubelet's `maxPods`"
            )),
            Self::NoSubnet => Some("set `[network] pod_cidr`".into()),
            Self::NotABridge { name } => Some(format!(
                "choose another name under `[network] bridge`, or remove the link: ip link del {name}"
            )),
            Self::PortTaken { holder, .. } => {
                Some(format!("choose another host port, or remove pod {holder}"))
            }
            Self::Netlink { source, .. } if source.raw_os_error() == Some(95) => Some(
                "the kernel lacks it: load veth, bridge and nf_tables (see `hull check`)".into(),
            ),
            Self::Netlink { source, .. } if source.raw_os_error() == Some(1) => {
                Some("hull needs CAP_NET_ADMIN: run it as root".into())
            }
            Self::Netlink { .. }
            | Self::Enter { .. }
            | Self::Record { .. }
            | Self::Sysctl { .. } => None,
        }
    }
}

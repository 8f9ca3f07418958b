// SPDX-License-Identifier: Apache-2.0
//! The names, addresses and options of the cluster that a host may have.
//!
//! ```text
//! /var/tmp/hull-cluster/hub, n1, n2 …   its machines
//! /var/tmp/hull-cluster/pki             keys; admin.conf is the kubeconfig
//! /var/tmp/hull-cluster/options.json    how it was started
//! /hull-cluster-<machine>               cgroups
//! ```

use super::machine::Machine;
use crate::expect::ExpectExt;
use crate::shell::{self, Ran};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Where network plugins are configured on a node, and where a DaemonSet installs its own; /var/lib is the node's.
pub const CNI_CONF: &str = "/var/lib/cni/net.d";
/// The directory of plugins that a DaemonSet installs.
pub const CNI_BIN: &str = "/var/lib/cni/bin";
/// The directory of Debian's plugins.
pub const DEBIAN_CNI: &str = "/usr/lib/cni";

/// The network of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pods {
    /// Hull's own network of pods.
    BuiltIn,
    /// The reference plugins of CNI: bridge, host-local, portmap.
    Bridge,
    /// Flannel, as a DaemonSet: routes between the nodes, and the reference plugins below.
    Flannel,
}

impl Pods {
    /// Every network, with the name that users give.
    pub const ALL: [(&'static str, Self); 3] =
        [("hull", Self::BuiltIn), ("bridge", Self::Bridge), ("flannel", Self::Flannel)];

    /// The network of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(of, _)| *of == name).map(|(_, network)| network)
    }

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, of)| *of == self).map_or("", |(name, _)| name)
    }
}

/// The container runtime of all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runtime {
    /// The Hull under test.
    Hull,
    /// containerd with runc, of `scripts/baselines`.
    Containerd,
}

impl Runtime {
    /// The runtime of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Hull, Self::Containerd].into_iter().find(|runtime| runtime.name() == name)
    }

    /// Its name, which is that of its daemon's program and log too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hull => "hull",
            Self::Containerd => "containerd",
        }
    }

    /// Its socket on a node.
    #[must_use]
    pub fn socket(self) -> &'static str {
        match self {
            Self::Hull => super::hull::SOCKET,
            Self::Containerd => "/run/containerd/containerd.sock",
        }
    }
}

/// How a cluster is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Number of nodes.
    pub nodes: u8,
    /// Feature gates of all components: `A=true,B=false`.
    pub gates: String,
    /// Whether pods and Services have IPv4 and IPv6 addresses.
    pub dual_stack: bool,
    /// The network of pods.
    pub network: Pods,
    /// The container runtime. Only Hull has a network of its own, so another one needs one of the others.
    pub runtime: Runtime,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            gates: String::new(),
            dual_stack: false,
            network: Pods::BuiltIn,
            runtime: Runtime::Hull,
        }
    }
}

/// Addresses. Nothing outside of the machines' network namespaces has them.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// The hub's address; nodes have those from `.11`.
    pub hub: &'static str,
    /// The hub's IPv6 address.
    pub hub6: &'static str,
    /// The address of the Service of the API server.
    pub api_service: &'static str,
    /// The address of the Service of the DNS server.
    pub dns_service: &'static str,
}

impl Network {
    /// Address of the registry.
    #[must_use]
    pub fn registry(&self) -> String {
        format!("{}:5000", self.hub)
    }

    /// The addresses of a node.
    #[must_use]
    pub fn node(&self, number: u8) -> (String, String) {
        (
            format!("192.168.213.{}", 10 + u16::from(number)),
            format!("fd00:213::{}", 10 + u16::from(number)),
        )
    }
}

/// The cluster of this host.
#[derive(Debug, Clone)]
pub struct Layout {
    /// How it is to be.
    pub options: Options,
    /// Its addresses, the same for every cluster.
    pub network: Network,
}

impl Layout {
    /// A cluster with these options.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let network = Network {
            hub: "192.168.213.1",
            hub6: "fd00:213::1",
            api_service: "10.96.0.1",
            dns_service: "10.96.0.10",
        };
        Self { options, network }
    }

    /// The cluster that runs, as it was started.
    #[must_use]
    pub fn running() -> Option<Self> {
        let text = fs::read_to_string(root().join("options.json")).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        let nodes = value["nodes"].as_u64().and_then(|nodes| u8::try_from(nodes).ok())?;
        Some(Self::new(Options {
            nodes,
            gates: value["gates"].as_str().unwrap_or_default().to_owned(),
            dual_stack: value["dual_stack"] == true,
            network: Pods::named(value["cni"].as_str()?)?,
            runtime: Runtime::named(value["runtime"].as_str()?)?,
        }))
    }

    /// Writes down how it was started.
    pub fn record(&self) {
        let Options { nodes, gates, dual_stack, network, runtime } = &self.options;
        let value = json!({
            "nodes": nodes, "gates": gates, "dual_stack": dual_stack, "cni": network.name(),
            "runtime": runtime.name(),
        });
        fs::write(root().join("options.json"), value.to_string()).or_fail("write the options");
    }

    /// The directory of keys.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        root().join("pki")
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki().join("admin.conf")
    }

    /// Subnets of pods.
    #[must_use]
    pub fn pods(&self) -> &'static str {
        if self.options.dual_stack { "10.244.0.0/16,fd00:10:244::/56" } else { "10.244.0.0/16" }
    }

    /// Subnets of the pods of a node.
    #[must_use]
    pub fn subnets(&self, number: u8) -> Vec<String> {
        let mut subnets = vec![format!("10.244.{number}.0/24")];
        if self.options.dual_stack {
            subnets.push(format!("fd00:10:244:{number:x}::/64"));
        }
        subnets
    }

    /// Subnets of Services.
    #[must_use]
    pub fn services(&self) -> &'static str {
        if self.options.dual_stack { "10.96.0.0/16,fd00:10:96::/112" } else { "10.96.0.0/16" }
    }
}

/// The directory of the cluster.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from("/var/tmp/hull-cluster")
}

/// The directory and the cgroup of a machine of the cluster.
#[must_use]
pub fn machine(name: &str) -> (PathBuf, String) {
    (root().join(name), format!("hull-cluster-{name}"))
}

/// The hub of the running cluster.
#[must_use]
pub fn hub() -> Option<Machine> {
    let (dir, cgroup) = machine("hub");
    Machine::running(&dir, &cgroup)
}

/// Runs kubectl in the hub's network.
#[must_use]
pub fn kubectl(hub: &Machine, layout: &Layout, arguments: &[&str]) -> Ran {
    shell::finish(kubectl_command(hub, layout).args(arguments))
}

/// kubectl in the hub's network, with the files of the host; not started yet.
#[must_use]
pub fn kubectl_command(hub: &Machine, layout: &Layout) -> Command {
    let mut command = in_network(hub, layout);
    command.arg(hub.path(&format!("{}/programs/kubectl", hub.dir().display())));
    command
}

/// The beginning of a command that runs in the hub's network, with the kubeconfig; a program and arguments follow.
#[must_use]
pub fn in_network(hub: &Machine, layout: &Layout) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/proc/{}/ns/net", hub.pid()))
        .arg("--")
        .env("KUBECONFIG", layout.kubeconfig())
        .env("KUBERNETES_SERVICE_HOST", "");
    command
}

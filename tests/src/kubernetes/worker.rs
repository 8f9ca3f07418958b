// SPDX-License-Identifier: Apache-2.0
//! A node of a cluster: a machine with a container runtime, a kubelet and kube-proxy.

use super::cgroups::{RUNTIME, SYSTEM};
use super::layout::{self, CNI_BIN, CNI_CONF, DEBIAN_CNI, Layout, Pods, Runtime};
use super::machine::Machine;
use super::service::Service;
use super::{containerd, hull, kubelet, runtime_class};
use crate::eventually::{blocking, with_long_timeout};
use crate::expect::ExpectExt;
use crate::shell;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest that a node may take until it is ready.
const READY_MAX: Duration = Duration::from_secs(120);

/// The CNI configuration of nodes with the reference plugins, without the node's subnets.
const CNI: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": {{.PodCIDRRanges}}, "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
"#;

/// Links the machine to the hub, and starts its container runtime.
pub fn prepare(node: &Machine, hub: &Machine, layout: &Layout, number: u8) {
    link(node, hub, layout, number);
    let mirrors = mirrors(node, layout);
    for dir in [CNI_CONF, CNI_BIN] {
        fs::create_dir_all(node.path(dir)).or_fail("make the directories of network plugins");
    }
    let executor = executor();
    match layout.options.runtime {
        Runtime::Hull => {
            let settings = hull_settings(node, layout, &mirrors);
            hull::configure(node, &format!("{settings}{}", runtime_class::HANDLER));
            let _hull = executor.block_on(hull::start(node));
        }
        Runtime::Containerd => {
            if layout.options.network == Pods::Bridge {
                let subnets = layout.subnets(number);
                let ranges = subnets.iter().map(|subnet| json!([{"subnet": subnet}]));
                let ranges = Value::Array(ranges.collect()).to_string();
                let text = CNI.replace("{{.PodCIDRRanges}}", &ranges);
                let file = node.path(CNI_CONF).join("10-pods.conflist");
                fs::write(file, text).or_fail("write the configuration of the plugins");
            }
            let _containerd = executor.block_on(containerd::start(node, &mirrors));
        }
    }
}

/// Links the machine to the hub, and starts Hull for a kubelet that no cluster gives a subnet.
pub fn prepare_alone(node: &Machine, hub: &Machine, layout: &Layout, number: u8) {
    link(node, hub, layout, number);
    let mirrors = mirrors(node, layout);
    let subnets = layout.subnets(number);
    let text = format!("[image]\nconfig_path = {mirrors:?}\n[network]\npod_cidr = {subnets:?}\n");
    hull::configure(node, &text);
    let _hull = executor().block_on(hull::start(node));
}

fn executor() -> tokio::runtime::Runtime {
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    made.or_fail("make an executor")
}

fn link(node: &Machine, hub: &Machine, layout: &Layout, number: u8) {
    let (address, address6) = layout.network.node(number);
    let link = format!("n{number}");
    let mut command = layout::in_network(hub, layout);
    let pid = node.pid().to_string();
    command.args(["sh", "-c", LINK, "link", &link, &pid]);
    let _output = shell::finish(&mut command).good();
    let script = format!(
        "ip addr add {address}/24 dev eth0 && ip -6 addr add {address6}/64 dev eth0 nodad && ip link set eth0 up && \
         ip route add default via {} && ip -6 route add default via {} && \
         sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        layout.network.hub, layout.network.hub6
    );
    let mut command = node.command(SYSTEM, "sh");
    let _output = shell::finish(command.args(["-c", &script])).good();
}

/// `$1` is the link on the bridge, `$2` the machine's PID 1.
const LINK: &str =
    r#"ip link add "$1" type veth peer name eth0 netns "$2" && ip link set "$1" master br0 up"#;

/// Writes the mirrors of all registries: the hub's registry. Hull and containerd read the same files.
fn mirrors(node: &Machine, layout: &Layout) -> PathBuf {
    let dir = node.dir().join("certs.d");
    let default = dir.join("_default");
    fs::create_dir_all(&default).or_fail("make the directory of mirrors");
    let registry = layout.network.registry();
    let hosts = format!("[host.\"http://{registry}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
    fs::write(default.join("hosts.toml"), hosts).or_fail("write the mirrors");
    dir
}

/// The settings of docs/network.md for several nodes, or those for network plugins.
fn hull_settings(node: &Machine, layout: &Layout, mirrors: &Path) -> String {
    let mut text = format!("[image]\nconfig_path = {mirrors:?}\n[network]\n");
    if layout.options.network == Pods::BuiltIn {
        let cluster: Vec<&str> = layout.pods().split(',').collect();
        let _infallible = write!(
            text,
            "mode = \"bridge\"\nwait_for_pod_cidr = true\ncluster_cidrs = {cluster:?}\n"
        );
        return text;
    }
    let _infallible = write!(
        text,
        "mode = \"cni\"\n[network.cni]\nconf_dir = {CNI_CONF:?}\nbin_dirs = [{CNI_BIN:?}, {DEBIAN_CNI:?}]\n"
    );
    if layout.options.network == Pods::Bridge {
        let template = node.dir().join("cni.template");
        fs::write(&template, CNI).or_fail("write the template of the CNI configuration");
        let _infallible = writeln!(text, "conf_template = {template:?}");
    }
    text
}

/// Starts the kubelet and kube-proxy, and waits until the node is ready.
pub fn join(node: &Machine, hub: &Machine, layout: &Layout, number: u8) {
    let name = format!("n{number}");
    let (address, address6) = layout.network.node(number);
    let addresses =
        if layout.options.dual_stack { format!("{address},{address6}") } else { address.clone() };
    register(hub, layout, &name, number);
    let arguments = [
        format!("--kubeconfig={}", layout.kubeconfig().display()),
        format!("--hostname-override={name}"),
        format!("--node-ip={addresses}"),
        format!("--runtime-cgroups={}/{RUNTIME}", node.cgroups().root()),
    ];
    let mut kubelet = kubelet::start(node, &kubelet_configuration(node, layout), &arguments);
    let mut proxy = node.command(SYSTEM, node.dir().join("programs/kube-proxy"));
    proxy.arg("--config").arg(proxy_configuration(node, layout, &name));
    let _proxy = Service::start(node, "kube-proxy", proxy);
    let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    wait(&mut kubelet, || {
        let ran = layout::kubectl(hub, layout, &["get", "node", &name, "-o", ready]);
        if ran.stdout == "True" { Ok(()) } else { Err(format!("{}{}", ran.stdout, ran.stderr)) }
    });
}

/// Makes the Node with its subnets before the kubelet does without, so that the kubelet announces them from the start.
fn register(hub: &Machine, layout: &Layout, name: &str, number: u8) {
    let subnets = layout.subnets(number);
    let object = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDR": subnets[0], "podCIDRs": subnets},
    });
    let file = layout::root().join(format!("{name}.json"));
    fs::write(&file, object.to_string()).or_fail("write the Node");
    let _output =
        layout::kubectl(hub, layout, &["create", "-f", &file.display().to_string()]).good();
    let (address, address6) = layout.network.node(number);
    for subnet in &subnets {
        let (family, via) = if subnet.contains(':') { ("-6", &address6) } else { ("-4", &address) };
        let mut command = layout::in_network(hub, layout);
        let route = ["ip", family, "route", "replace", subnet, "via", via];
        let _output = shell::finish(command.args(route)).good();
    }
}

/// Asks until there is a value; the kubelet has to run meanwhile.
fn wait<T>(kubelet: &mut Service, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let result = blocking(with_long_timeout(READY_MAX), || {
        kubelet.assert_running();
        ask()
    });
    result.unwrap_or_else(|last| panic!("a node is not ready: {last}; {}", kubelet.last_lines()))
}

fn kubelet_configuration(node: &Machine, layout: &Layout) -> Value {
    let mut configuration = kubelet::configuration(node);
    let cluster = json!({
        "clusterDNS": [layout.network.dns_service],
        "clusterDomain": "cluster.local",
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "enableDebuggingHandlers": true,
        "containerLogMonitorInterval": "5s",
        "featureGates": gates(layout),
        "containerRuntimeEndpoint": format!("unix://{}", layout.options.runtime.socket()),
    });
    kubelet::merge(&mut configuration, &cluster);
    configuration
}

fn proxy_configuration(node: &Machine, layout: &Layout, name: &str) -> PathBuf {
    let value = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": layout.kubeconfig()},
        "clusterCIDR": layout.pods(),
        "hostnameOverride": name,
        // These are settings of the whole host.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "featureGates": gates(layout),
    });
    let path = node.dir().join("kube-proxy.json");
    fs::write(&path, value.to_string()).or_fail("write the configuration of kube-proxy");
    path
}

/// `A=true,B=false` as an object.
fn gates(layout: &Layout) -> Value {
    let gates = layout.options.gates.split(',').filter_map(|gate| gate.split_once('='));
    gates.map(|(name, value)| (name.to_owned(), Value::Bool(value == "true"))).collect()
}

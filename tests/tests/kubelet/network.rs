// SPDX-License-Identifier: Apache-2.0
//! The network of pods, as a kubelet announces its subnets and network plugins come and go.

use crate::{container, started_as};
use hull_proto::cri::StatusRequest;
use hull_tests::ExpectExt as _;
use hull_tests::eventually::{deadline, eventually};
use hull_tests::kubernetes::cgroups::SYSTEM;
use hull_tests::kubernetes::standalone::{Settings, Standalone};
use hull_tests::{paths, shell};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::mpsc;

/// Where the reference plugins of Debian are.
const PLUGINS: &str = "/usr/lib/cni";
/// The beginning of addresses in the subnet that the fixture's kubelet announces.
const ANNOUNCED: &str = "10.217.0.";

/// A pod that runs until it is ended.
fn idle(host_network: bool) -> Value {
    let script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    json!({
        "hostNetwork": host_network,
        "terminationGracePeriodSeconds": 2,
        "containers": [container("c", &["sh", "-c", script])],
    })
}

/// A kubelet that announces no subnet.
fn silent(hull: &str) -> Settings {
    Settings { hull: hull.into(), kubelet: json!({"podCIDR": ""}) }
}

async fn address(node: &Standalone, name: &str) -> String {
    node.pod_until(name, "runs with an address", |pod| {
        let running = pod["status"]["phase"] == "Running";
        running.then(|| pod["status"]["podIP"].as_str().map(str::to_owned)).flatten()
    })
    .await
}

/// NetworkReady and its message.
async fn network_ready(node: &Standalone) -> (bool, String) {
    let mut runtime = node.cri().runtime.clone();
    let status = runtime.status(StatusRequest::default()).await.or_fail("get the status");
    let conditions = status.into_inner().status.or_fail("find the status").conditions;
    let found = conditions.into_iter().find(|one| one.r#type == "NetworkReady");
    let found = found.or_fail("find NetworkReady");
    (found.status, found.message)
}

/// Restarts the kubelet, which announces the subnet from now on.
async fn announce(node: &mut Standalone) {
    node.end_kubelet(Signal::SIGTERM);
    node.configure_kubelet(&json!({"podCIDR": format!("{ANNOUNCED}0/24")}));
    node.start_kubelet().await;
}

fn ping(node: &Standalone, name: &str, to: &str) {
    let command = format!("ping -c 1 -W 5 {to}");
    node.apply(
        name,
        &json!({"restartPolicy": "Never", "containers": [container("c", &["sh", "-c", &command])]}),
    );
}

#[tokio::test]
async fn a_static_pod_keeps_its_address_when_the_kubelet_learns_the_subnet() {
    let Some(mut node) = started_as(silent("")).await else { return };
    node.apply("old", &idle(false));
    let old = address(&node, "old").await;
    assert!(!old.starts_with(ANNOUNCED), "nobody has announced it: {old}");

    announce(&mut node).await;
    node.apply("new", &idle(false));
    let new = address(&node, "new").await;
    assert!(new.starts_with(ANNOUNCED), "{new}; the old pod has {old}");
    assert_eq!(address(&node, "old").await, old);
    // Old and new pods reach each other.
    ping(&node, "reaches", &old);
    node.pod_in("reaches", "Succeeded").await;

    // The bridge's former address goes with the last pod that has one of that subnet.
    node.stop("old").await;
    eventually("the bridge has only the announced subnet", || async {
        let mut command = node.machine().command(SYSTEM, "ip");
        command.args(["-o", "-4", "addr", "show", "hull0"]);
        let shown = shell::finish(&mut command).good();
        let only = shown.contains(ANNOUNCED) && shown.lines().count() == 1;
        if only { Ok(()) } else { Err(shown) }
    })
    .await;
}

#[tokio::test]
async fn pods_wait_for_the_subnet_where_the_node_is_told_to() {
    let settings = silent("[network]\nwait_for_pod_cidr = true\n");
    let Some(mut node) = started_as(settings).await else { return };
    node.apply("host", &idle(true));
    node.apply("waits", &idle(false));
    node.pod_in("host", "Running").await;
    let (ready, message) = network_ready(&node).await;
    assert!(!ready && message.contains("wait_for_pod_cidr"), "{message}");
    let pod = node.pod("waits").or_fail("find the pod");
    assert_eq!(pod["status"]["phase"], "Pending", "{pod}");

    announce(&mut node).await;
    let got = address(&node, "waits").await;
    assert!(got.starts_with(ANNOUNCED), "{got}");
    assert!(network_ready(&node).await.0);
}

#[tokio::test]
async fn a_network_plugin_that_comes_later_attaches_new_pods() {
    if fs::metadata(Path::new(PLUGINS).join("bridge")).is_err() {
        paths::cannot_run("kubelet", "CNI plugins (apt-get install containernetworking-plugins)");
        return;
    }
    let hull =
        format!("[network.cni]\nconf_dir = \"/var/lib/cni/net.d\"\nbin_dirs = [{PLUGINS:?}]\n");
    let Some(node) = started_as(Settings { hull, kubelet: json!({}) }).await else { return };
    node.apply("before", &idle(false));
    let before = address(&node, "before").await;
    assert!(before.starts_with(ANNOUNCED), "{before}");

    // As the DaemonSet of a network plugin does.
    let dir = node.machine().path("/var/lib/cni/net.d");
    fs::create_dir_all(&dir).or_fail("make the directory of networks");
    let network = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [{
        "type": "bridge", "bridge": "cni0", "isGateway": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.218.0.0/24"}]]},
    }]});
    fs::write(dir.join("10-pods.conflist"), network.to_string()).or_fail("configure a network");
    eventually("NetworkReady names the pod of the other network", || async {
        let (ready, message) = network_ready(&node).await;
        let named = message.contains("drain this node") && message.contains("/before-node");
        if ready && named { Ok(()) } else { Err(message) }
    })
    .await;
    node.apply("after", &idle(false));
    let after = address(&node, "after").await;
    assert!(after.starts_with("10.218.0."), "the cluster's network was ignored: {after}");
    assert_eq!(address(&node, "before").await, before);
    node.stop("before").await;
    node.stop("after").await;
}

/// The node's neighbour: it has the address of a pod of another node, and one outside of the cluster.
const NEIGHBOUR: &str = "ip netns add other && ip link set uplink netns other && \
    ip netns exec other ip addr add 192.168.213.1/24 dev uplink && \
    ip netns exec other ip addr add 10.244.9.5/32 dev uplink && \
    ip netns exec other ip addr add 203.0.113.5/32 dev uplink && \
    ip netns exec other ip link set uplink up && \
    ip netns exec other ip route add 10.217.0.0/24 via 192.168.213.2 && \
    ip route replace default via 192.168.213.1";

#[tokio::test]
async fn pods_of_other_nodes_see_a_pods_own_address() {
    let hull = "[network]\nmasquerade = true\ncluster_cidrs = [\"10.244.0.0/16\"]\n".to_owned();
    let Some(node) = started_as(Settings { hull, kubelet: json!({}) }).await else { return };
    let mut command = node.machine().command(SYSTEM, "sh");
    let _output = shell::finish(command.args(["-c", NEIGHBOUR])).good();
    let namespace = node.machine().path("/run/netns/other");
    let bound = |address: [u8; 4]| {
        let address = SocketAddr::from((Ipv4Addr::from(address), 7000));
        let listener = node.machine().in_namespace(&namespace, || TcpListener::bind(address));
        let listener = listener.or_fail("listen in the neighbour");
        let (sender, seen) = mpsc::channel();
        std::thread::spawn(move || {
            if let Ok((_stream, from)) = listener.accept() {
                drop(sender.send(from.ip().to_string()));
            }
        });
        seen
    };
    let (pod, outside) = (bound([10, 244, 9, 5]), bound([203, 0, 113, 5]));
    let script = "ip -4 -o addr show eth0; nc -w 5 10.244.9.5 7000 < /dev/null && \
        nc -w 5 203.0.113.5 7000 < /dev/null";
    let command = container("c", &["sh", "-c", script]);
    node.apply("calls", &json!({"restartPolicy": "Never", "containers": [command]}));
    let ended = node.pod_in("calls", "Succeeded").await;
    let from = |seen: mpsc::Receiver<String>| {
        seen.recv_timeout(deadline()).or_fail("see the pod's connection")
    };
    let own = ended["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    assert!(own.starts_with(ANNOUNCED), "{ended}");
    assert_eq!(from(pod), own, "a pod of another node");
    assert_eq!(from(outside), "192.168.213.2", "a host outside of the cluster");
}

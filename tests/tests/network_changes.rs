// SPDX-License-Identifier: Apache-2.0
//! A node whose network changes while pods run: between the built-in network and network plugins, and between
//! subnets of pods.

use hull_proto::cri::{self as api, NamespaceMode, PodSandboxConfig, StatusRequest};
use hull_tests::cri::{pod_namespaces, shell};
use hull_tests::host::Names;
use hull_tests::shell::{names, run};
use hull_tests::{Cri, ExpectExt as _, Node, eventually, fixture, paths};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

const REFERENCE: &str = "/usr/lib/cni";

/// The bridge of the network plugins, which Hull's is not. Gone when dropped.
struct PluginBridge(String);

impl PluginBridge {
    fn of(names: &Names) -> Self {
        Self(format!("{}c", names.bridge))
    }
}

impl Drop for PluginBridge {
    fn drop(&mut self) {
        drop(run("ip", ["link", "delete", &self.0]));
    }
}

fn conf_dir(names: &Names) -> PathBuf {
    names.root.join("host/net.d")
}

fn settings(names: &Names, mode: &str) -> String {
    format!(
        "mode = {mode:?}\npod_cidr = [\"10.213.{}.0/24\"]\n[network.cni]\nconf_dir = {:?}\nbin_dirs = [{REFERENCE:?}]\nnetns_dir = {:?}\n",
        names.bridge.trim_start_matches("hlt"),
        conf_dir(names).display().to_string(),
        names.root.join("state/netns").display().to_string(),
    )
}

fn lacks_plugins(test: &str) -> bool {
    let lacks = !Path::new(REFERENCE).join("bridge").is_file();
    if lacks {
        paths::cannot_run(test, "CNI plugins (apt-get install containernetworking-plugins)");
    }
    lacks
}

/// Writes a configuration, as a cluster's agent does when it is ready.
fn configure(node: &Node) {
    let (names, dir) = (node.names(), conf_dir(node.names()));
    fs::create_dir_all(&dir).or_fail("make the directory of networks");
    let text = format!(
        r#"{{"cniVersion": "1.0.0", "name": "cluster", "plugins": [
            {{"type": "bridge", "bridge": "{}", "isGateway": true, "ipam": {{"type": "host-local",
              "dataDir": "{}", "ranges": [[{{"subnet": "10.212.{}.0/24"}}]],
              "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
            {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}"#,
        PluginBridge::of(names).0,
        names.root.join("host/ipam").display(),
        names.bridge.trim_start_matches("hlt"),
    );
    fs::write(dir.join("10-cluster.conflist"), text).or_fail("configure the network");
}

/// The addresses that plugins have given out.
fn given(node: &Node) -> Vec<String> {
    let all = names(&node.names().root.join("host/ipam/cluster"));
    all.into_iter().filter(|name| name.starts_with("10.")).collect()
}

/// NetworkReady, and its message.
async fn network(cri: &Cri) -> (bool, String) {
    let status = cri.runtime.clone().status(StatusRequest { verbose: false }).await;
    let status = status.or_fail("get the status").into_inner().status.unwrap_or_default();
    let network = status.conditions.into_iter().find(|of| of.r#type == "NetworkReady");
    let network = network.or_fail("find NetworkReady");
    (network.status, network.message)
}

async fn announce(cri: &Cri, pod_cidr: &str) {
    let network_config = Some(api::NetworkConfig { pod_cidr: pod_cidr.into() });
    let runtime_config = Some(api::RuntimeConfig { network_config });
    let request = api::UpdateRuntimeConfigRequest { runtime_config };
    cri.runtime.clone().update_runtime_config(request).await.or_fail("announce subnets");
}

/// A pod that serves a page, and its address.
async fn server(cri: &Cri, config: PodSandboxConfig) -> (String, String) {
    let pod = cri.run_pod_with(config).await.or_fail("run a pod");
    let page = "mkdir /w && echo served > /w/index.html && exec httpd -f -p 80 -h /w";
    let _web = cri.run(&pod, shell("web", &fixture::busybox(), page)).await;
    let ip = cri.pod_ip(&pod).await;
    (pod, ip)
}

async fn serves(address: &str) {
    eventually(format!("{address} answers the host"), || async {
        let ask = || {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
            let mut said = String::new();
            stream.read_to_string(&mut said).map(|_| said)
        };
        let said = ask().map_err(|err: std::io::Error| err.to_string())?;
        if said.ends_with("served\n") { Ok(()) } else { Err(said) }
    })
    .await;
}

/// The pod's config with the node's host port.
fn with_port(node: &Node, name: &str) -> PodSandboxConfig {
    let mut config = node.cri().pod_config(name);
    config.port_mappings.push(api::PortMapping {
        container_port: 80,
        host_port: node.host_port().into(),
        ..api::PortMapping::default()
    });
    config
}

/// Of a drained node, once the kernel has removed the last pod's link.
async fn bridge_goes(node: &Node, cri: &Cri) {
    eventually("the bridge goes", || async {
        let _status = network(cri).await;
        let bridge = run("ip", ["link", "show", &node.names().bridge]);
        if bridge.code == 0 { Err(format!("{bridge:?}")) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_cluster_whose_plugins_come_later_takes_over_new_pods_and_leaves_the_old_ones() {
    if lacks_plugins("from the built-in network to plugins") {
        return;
    }
    let mut node = Node::start_on_network(|names| settings(names, "auto")).await;
    let _bridge = PluginBridge::of(node.names());
    let cri = node.cri();
    let _id = cri.pull(&fixture::busybox()).await.or_fail("pull busybox");
    let (ready, message) = network(&cri).await;
    assert!(ready && message.contains("the built-in network, because"), "{message}");
    assert!(message.contains("net.d has no network configuration"), "{message}");
    let (old, old_ip) = server(&cri, with_port(&node, "old")).await;
    assert!(old_ip.starts_with("10.213."), "{old_ip}");
    let log = node.daemon_log();
    assert!(log.contains("network of new pods") && log.contains("the built-in network"), "{log}");

    configure(&node);
    let (ready, message) = network(&cri).await;
    assert!(ready && message.contains("CNI plugins, because"), "{message}");
    assert!(message.contains("10-cluster.conflist has network `cluster`"), "{message}");
    assert!(message.contains("drain this node") && message.contains("/old"), "{message}");
    assert!(node.daemon_log().contains("drain the node"), "the log says so too");
    let refused = cri.run_pod_with(with_port(&node, "second")).await.unwrap_err();
    assert!(refused.message().contains("/old has"), "{}", refused.message());
    let (new, new_ip) = server(&cri, cri.pod_config("new")).await;
    assert!(new_ip.starts_with("10.212."), "{new_ip}");
    let port = format!("127.0.0.1:{}", node.host_port());
    serves(&port).await;
    serves(&format!("{old_ip}:80")).await;
    serves(&format!("{new_ip}:80")).await;

    // The next daemon knows who has attached which pod.
    node.kill();
    node.start_again().await;
    let cri = node.cri();
    let (_, message) = network(&cri).await;
    assert!(message.contains("drain this node") && message.contains("/old"), "{message}");
    serves(&port).await;
    serves(&format!("{new_ip}:80")).await;
    cri.remove_pod(&old).await.or_fail("remove the old pod");
    TcpStream::connect(&port).unwrap_err();
    assert_eq!(given(&node).len(), 1, "the new pod's address");
    let (_, message) = network(&cri).await;
    assert!(!message.contains("drain"), "{message}");
    // The cluster's pods may have the subnet that it had.
    bridge_goes(&node, &cri).await;

    // And back: the cluster's network is removed under a pod that it has attached.
    fs::remove_dir_all(conf_dir(node.names())).or_fail("remove the configuration");
    let (ready, message) = network(&cri).await;
    assert!(ready && message.contains("the built-in network, because"), "{message}");
    assert!(message.contains("drain this node") && message.contains("/new"), "{message}");
    let (third, third_ip) = server(&cri, cri.pod_config("third")).await;
    assert!(third_ip.starts_with("10.213."), "{third_ip}");
    serves(&format!("{new_ip}:80")).await;
    node.restart().await;
    let cri = node.cri();
    for pod in [&new, &third] {
        cri.remove_pod(pod).await.or_fail("remove a pod");
    }
    assert_eq!(given(&node), [""; 0], "the plugins were called for it");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_pod_of_another_mode_is_torn_down_by_the_network_that_made_it() {
    if lacks_plugins("modes that change between daemons") {
        return;
    }
    let mut node = Node::start_on_network(|names| settings(names, "bridge")).await;
    let _bridge = PluginBridge::of(node.names());
    let cri = node.cri();
    let _id = cri.pull(&fixture::busybox()).await.or_fail("pull busybox");
    configure(&node);
    let (ready, message) = network(&cri).await;
    assert!(ready && message.contains("the built-in network"), "{message}");
    assert!(message.contains("CNI is not used, although"), "{message}");
    let (old, old_ip) = server(&cri, with_port(&node, "old")).await;
    assert!(old_ip.starts_with("10.213."), "{old_ip}");
    node.terminate();
    let file = node.names().root.join("hull.toml");
    let text = fs::read_to_string(&file).or_fail("read the config");
    fs::write(&file, text.replace("mode = \"bridge\"", "mode = \"cni\"")).or_fail("change it");
    node.start_again().await;
    let cri = node.cri();
    let (_, message) = network(&cri).await;
    assert!(message.contains("drain this node") && message.contains("/old"), "{message}");
    serves(&format!("127.0.0.1:{}", node.host_port())).await;
    cri.remove_pod(&old).await.or_fail("remove the old pod");
    TcpStream::connect(("127.0.0.1", node.host_port())).unwrap_err();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn plugins_that_cannot_be_used_are_not_passed_over() {
    let mut node = Node::start_on_network(|names| settings(names, "auto")).await;
    let cri = node.cri();
    let dir = conf_dir(node.names());
    fs::create_dir_all(&dir).or_fail("make the directory of networks");
    let config = node.names().root.join("hull.toml").display().to_string();
    let checked = || run(paths::hull(), ["--config", &config, "check"]);
    let said = checked().stdout;
    assert!(said.contains("the built-in network, because"), "{said}");
    for (text, why) in [
        ("{", "not a JSON object"),
        (
            r#"{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "absent"}]}"#,
            "find CNI plugin `absent`",
        ),
    ] {
        fs::write(dir.join("10-x.conflist"), text).or_fail("write a configuration");
        let (ready, message) = network(&cri).await;
        assert!(!ready && message.contains(why), "{message}");
        let refused = cri.run_pod("web").await.unwrap_err();
        assert!(refused.message().contains(why), "{}", refused.message());
        let said = checked();
        assert!(said.code == 1 && said.stdout.contains(why), "{said:?}");
    }
    // A file of loopback alone does not say that a cluster has plugins.
    let text = r#"{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}"#;
    fs::write(dir.join("99-loopback.conf"), text).or_fail("write a configuration");
    fs::remove_file(dir.join("10-x.conflist")).or_fail("remove the other");
    let (ready, message) = network(&cri).await;
    assert!(ready && message.contains("the built-in network"), "{message}");
    node.restart().await;
    assert!(network(&node.cri()).await.0);
}

#[tokio::test]
async fn pods_wait_for_the_kubelets_subnets_and_keep_theirs_when_those_change() {
    let wait = |_: &Names| "mode = \"bridge\"\nwait_for_pod_cidr = true\n".to_owned();
    let mut node = Node::start_on_network(wait).await;
    let cri = node.cri();
    let _id = cri.pull(&fixture::busybox()).await.or_fail("pull busybox");
    let (ready, message) = network(&cri).await;
    assert!(!ready && message.contains("the kubelet has not announced"), "{message}");
    let refused = cri.run_pod("early").await.unwrap_err();
    assert!(refused.message().contains("hint:"), "{refused}");
    let mut on_host = cri.pod_config("on-host");
    pod_namespaces(&mut on_host).network = NamespaceMode::Node.into();
    let on_host = cri.run_pod_with(on_host).await.or_fail("run a pod on the host's network");

    let number = node.names().bridge.trim_start_matches("hlt").to_owned();
    let of_bridge = || {
        let text = run("ip", ["-o", "-4", "addr", "show", "dev", &node_bridge(&number)]).stdout;
        text.lines()
            .filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned))
            .collect::<Vec<_>>()
    };
    announce(&cri, &format!("10.213.{number}.0/25")).await;
    assert!(network(&cri).await.0);
    let (old, old_ip) = server(&cri, cri.pod_config("old")).await;
    assert_eq!(old_ip, format!("10.213.{number}.2"));
    announce(&cri, &format!("10.213.{number}.128/25")).await;
    let (new, new_ip) = server(&cri, cri.pod_config("new")).await;
    assert_eq!(new_ip, format!("10.213.{number}.130"));
    assert_eq!(of_bridge().len(), 2);
    // The next daemon knows both: what the kubelet announced, and what the pod has.
    node.kill();
    node.start_again().await;
    let cri = node.cri();
    assert!(network(&cri).await.0, "announced before");
    let (third, third_ip) = server(&cri, cri.pod_config("third")).await;
    assert_eq!(third_ip, format!("10.213.{number}.131"));
    for ip in [&old_ip, &new_ip, &third_ip] {
        serves(&format!("{ip}:80")).await;
    }
    cri.remove_pod(&old).await.or_fail("remove the old pod");
    eventually("the bridge's old address goes with its last pod", || async {
        let have = of_bridge();
        if have == [format!("10.213.{number}.129/25")] { Ok(()) } else { Err(format!("{have:?}")) }
    })
    .await;
    serves(&format!("{new_ip}:80")).await;
    for pod in [&new, &third, &on_host] {
        cri.remove_pod(pod).await.or_fail("remove a pod");
    }
    node.nothing_is_left().await;
}

fn node_bridge(number: &str) -> String {
    format!("hlt{number}")
}

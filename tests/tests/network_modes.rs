// SPDX-License-Identifier: Apache-2.0
//! Names, resolver, exec and port-forward, which are the same for every kind of pod network.

use hull_proto::cri::{self as api, NamespaceMode, PodSandboxConfig};
use hull_tests::cri::{pod_namespaces, security, shell};
use hull_tests::crictl::{Forward, TRANSPORTS, lacks_crictl};
use hull_tests::host::Names;
use hull_tests::shell::run;
use hull_tests::{Cri, ExpectExt as _, Node, eventually, fixture, paths};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

const PORT: u16 = 8086;

/// A link of the node that pods' links can be on. Gone when dropped.
struct Uplink(String);

impl Uplink {
    fn made(names: &Names) -> Self {
        let this = Self(names.bridge.replacen("hlt", "hltu", 1));
        this.take_away();
        let far = format!("{}p", this.0);
        let _made =
            run("ip", ["link", "add", &this.0, "type", "veth", "peer", "name", &far]).good();
        for name in [&this.0, &far] {
            let _up = run("ip", ["link", "set", name, "up"]).good();
        }
        this
    }

    fn take_away(&self) {
        drop(run("ip", ["link", "delete", &self.0]));
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.take_away();
    }
}

/// The config of a pod as a kubelet sends it, with a user namespace where `mapped`, on the host's network where `on_host`.
fn pod_config(cri: &Cri, mapped: bool, on_host: bool) -> PodSandboxConfig {
    let mut config = cri.pod_config("web");
    config.hostname = "web-0".into();
    config.dns_config = Some(api::DnsConfig {
        servers: vec!["10.96.0.10".into()],
        searches: vec!["tests.svc.cluster.local".into()],
        options: vec!["ndots:5".into()],
    });
    let namespaces = pod_namespaces(&mut config);
    if mapped {
        let ids = vec![api::IdMapping { host_id: 200_000, container_id: 0, length: 65_536 }];
        let mode = NamespaceMode::Pod.into();
        namespaces.userns_options = Some(api::UserNamespace { mode, uids: ids.clone(), gids: ids });
    }
    if on_host {
        namespaces.network = NamespaceMode::Node.into();
    }
    config
}

/// Fetches a page from the pod's loopback through a forwarded port.
fn forwarded(node: &Node, by: &str, pod: &str, port: u16) -> String {
    let forward = Forward::start(node, by, pod, port);
    let mut stream = TcpStream::connect(("127.0.0.1", forward.port)).or_fail("reach crictl");
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").or_fail("ask");
    let mut said = String::new();
    let _length = stream.read_to_string(&mut said).or_fail("hear the answer");
    said
}

/// Runs a pod and looks at all that a network's mode must not change.
async fn all_is_right(node: &Node, mapped: bool, on_host: bool, has_address: bool) {
    let (cri, image) = (node.cri(), fixture::busybox());
    let pod = cri.run_pod_with(pod_config(&cri, mapped, on_host)).await.or_fail("run the pod");
    // Pods on the host's network, of tests that run at once, share its ports.
    let port = if on_host { node.host_port() } else { PORT };
    let page = format!(
        "mkdir /w && echo served > /w/index.html && exec httpd -f -p 127.0.0.1:{port} -h /w"
    );
    let mut server = shell("main", &image, &page);
    if on_host {
        security(&mut server).namespace_options.get_or_insert_default().network =
            NamespaceMode::Node.into();
    }
    let made = cri.run(&pod, server).await;
    let said = |command: &'static [&'static str]| {
        let (cri, made) = (cri.clone(), made.clone());
        async move { cri.exec(&made, command).await.or_fail("exec").stdout }
    };
    let hostname = if on_host {
        fs::read_to_string("/proc/sys/kernel/hostname").or_fail("read the node's name")
    } else {
        "web-0\n".to_owned()
    };
    assert_eq!(said(&["hostname"]).await, hostname);
    assert_eq!(said(&["cat", "/etc/hostname"]).await, hostname);
    assert_eq!(said(&["sh", "-c", "echo $HOSTNAME"]).await, hostname);
    assert_eq!(
        said(&["cat", "/etc/resolv.conf"]).await,
        "search tests.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    );
    let hosts = said(&["cat", "/etc/hosts"]).await;
    let ip = cri.pod_ip(&pod).await;
    assert_eq!(!ip.is_empty(), has_address, "{ip}");
    if on_host {
        assert_eq!(hosts, fs::read_to_string("/etc/hosts").or_fail("read the node's hosts"));
    } else {
        assert!(hosts.contains("127.0.0.1\tlocalhost"), "{hosts}");
        assert!(!has_address || hosts.contains(&format!("{ip}\tweb-0")), "{hosts}");
    }
    let url = format!("http://127.0.0.1:{port}/index.html");
    eventually("the server answers over loopback", || async {
        let asked = cri.exec(&made, &["wget", "-q", "-O", "-", &url]).await.or_fail("exec wget");
        if asked.stdout == "served\n" { Ok(()) } else { Err(format!("{asked:?}")) }
    })
    .await;
    for by in TRANSPORTS {
        let page = forwarded(node, by, &pod, port);
        assert!(page.ends_with("served\n"), "{by}: {page:?}");
    }
    cri.remove_all_pods().await.or_fail("remove the pod");
}

#[tokio::test]
async fn names_exec_and_port_forward_are_right_on_the_bridge_and_on_the_hosts_network() {
    if lacks_crictl("names and port-forward on the bridge and the host's network") {
        return;
    }
    let node = Node::start().await;
    for mapped in [false, true] {
        all_is_right(&node, mapped, false, true).await;
        all_is_right(&node, mapped, true, false).await;
    }
    node.nothing_is_left().await;
}

#[tokio::test]
async fn names_exec_and_port_forward_are_right_with_links_on_the_uplink() {
    if lacks_crictl("names and port-forward with links on the uplink") {
        return;
    }
    let mut uplink = None;
    let node = Node::start_on_network(|names| {
        let made = uplink.insert(Uplink::made(names));
        format!("mode = \"macvlan\"\nuplink = {:?}\n", made.0)
    })
    .await;
    for mapped in [false, true] {
        all_is_right(&node, mapped, false, true).await;
    }
    node.nothing_is_left().await;
    // The uplink goes after the node.
    drop(node);
    drop(uplink);
}

#[tokio::test]
async fn names_exec_and_port_forward_are_right_without_a_network() {
    if lacks_crictl("names and port-forward without a network") {
        return;
    }
    let node = Node::start_on_network(|_| "mode = \"none\"\n".to_owned()).await;
    for mapped in [false, true] {
        all_is_right(&node, mapped, false, false).await;
    }
    // What only a network can give is refused, not dropped.
    let cri = node.cri();
    let mut config = cri.pod_config("web");
    config.port_mappings =
        vec![api::PortMapping { container_port: 80, host_port: 8080, ..Default::default() }];
    let refused = cri.run_pod_with(config).await.unwrap_err();
    let said = refused.message();
    assert!(
        said.contains("host port") && said.contains("`none`") && said.contains("hint"),
        "{said}"
    );
    node.nothing_is_left().await;
}

#[tokio::test]
async fn names_exec_and_port_forward_are_right_with_network_plugins() {
    let test = "names and port-forward with network plugins";
    if lacks_crictl(test) {
        return;
    }
    if !Path::new("/usr/lib/cni/bridge").is_file() {
        paths::cannot_run(test, "CNI plugins (apt-get install containernetworking-plugins)");
        return;
    }
    let settings = |names: &Names| {
        let at = |dir: &str| names.root.join(dir).display().to_string();
        format!(
            "mode = \"cni\"\n[network.cni]\nconf_dir = {:?}\nbin_dirs = [\"/usr/lib/cni\"]\nnetns_dir = {:?}\n",
            at("host/net.d"),
            at("state/netns")
        )
    };
    let node = Node::start_on_network(settings).await;
    let conf_dir = node.names().root.join("host/net.d");
    fs::create_dir_all(&conf_dir).or_fail("make the directory of networks");
    let text = format!(
        r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [
            {{"type": "bridge", "bridge": "{}", "isGateway": true, "ipam": {{"type": "host-local",
              "dataDir": "{}", "ranges": [[{{"subnet": "{}"}}]]}}}}]}}"#,
        node.names().bridge,
        node.names().root.join("host/ipam").display(),
        node.subnet(),
    );
    fs::write(conf_dir.join("10-pods.conflist"), text).or_fail("configure the network");
    for mapped in [false, true] {
        all_is_right(&node, mapped, false, true).await;
    }
}

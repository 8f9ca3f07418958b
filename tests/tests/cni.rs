// SPDX-License-Identifier: Apache-2.0
//! A node whose pods' network is made by CNI plugins: the reference ones of Debian, and a script that
//! fails on request.

use hull_proto::cri::{PodSandboxConfig, PodSandboxState, PortMapping, Protocol, StatusRequest};
use hull_tests::cri::shell;
use hull_tests::host::Names;
use hull_tests::scrape::Scrape;
use hull_tests::shell::{names, run};
use hull_tests::{Cri, ExpectExt as _, Node, eventually, fixture, paths};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const REFERENCE: &str = "/usr/lib/cni";

/// A plugin that hands on what it is asked to the reference one beside it, and fails or waits first
/// where a file says so.
const WRAPPER: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$CNI_COMMAND $CNI_CONTAINERID" >> "$here/calls"
if [ -e "$here/refuse.$CNI_COMMAND" ]; then
    echo '{"cniVersion": "1.0.0", "code": 107, "msg": "the agent is away"}'
    exit 1
fi
[ -e "$here/wait.$CNI_COMMAND" ] && cat "$here/wait.$CNI_COMMAND" > /dev/null
exec /usr/lib/cni/bridge
"#;

fn dir(names: &Names) -> PathBuf {
    names.root.join("host")
}

fn settings(names: &Names) -> String {
    let at = dir(names);
    format!(
        "mode = \"cni\"\n[network.cni]\nconf_dir = {:?}\nbin_dirs = [{:?}, {REFERENCE:?}]\nnetns_dir = {:?}\n",
        at.join("net.d").display().to_string(),
        at.join("bin").display().to_string(),
        names.root.join("state/netns").display().to_string(),
    )
}

/// A node with plugins; `None` where there are none, which is said loudly.
async fn node(test: &str) -> Option<Node> {
    if ![&format!("{REFERENCE}/bridge"), "/usr/sbin/iptables"]
        .iter()
        .all(|of| Path::new(of).is_file())
    {
        paths::cannot_run(
            test,
            "CNI plugins (apt-get install containernetworking-plugins iptables)",
        );
        return None;
    }
    let node = Node::start_on_network(settings).await;
    let bin = dir(node.names()).join("bin");
    fs::create_dir_all(&bin).or_fail("make a directory");
    let plugin = bin.join("watched");
    fs::write(&plugin, WRAPPER).or_fail("write the plugin");
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).or_fail("make it a program");
    Some(node)
}

/// Configures the network: the node's own bridge and subnet, by plugins.
fn configure(node: &Node, first: &str) {
    let names = node.names();
    let conf_dir = dir(names).join("net.d");
    fs::create_dir_all(&conf_dir).or_fail("make the directory of networks");
    let text = format!(
        r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [
            {{"type": "{first}", "bridge": "{bridge}", "isGateway": true, "hairpinMode": true,
              "ipam": {{"type": "host-local", "dataDir": "{data}", "ranges": [[{{"subnet": "{subnet}"}}]],
                        "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
            {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}"#,
        bridge = names.bridge,
        subnet = node.subnet(),
        data = dir(names).join("ipam").display(),
    );
    fs::write(conf_dir.join("10-pods.conflist"), text).or_fail("configure the network");
}

/// Addresses that are given out.
fn given(node: &Node) -> Vec<String> {
    let files = names(&dir(node.names()).join("ipam/pods"));
    files.into_iter().filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
}

async fn network_ready(cri: &Cri) -> Result<(), String> {
    let status = cri.runtime.clone().status(StatusRequest::default()).await;
    let status = status.or_fail("ask for the status").into_inner().status.unwrap_or_default();
    let network = status.conditions.into_iter().find(|of| of.r#type == "NetworkReady");
    let network = network.or_fail("find NetworkReady");
    if network.status { Ok(()) } else { Err(network.message) }
}

/// A pod with the node's host port.
fn with_port(node: &Node, name: &str) -> PodSandboxConfig {
    let mut config = node.cri().pod_config(name);
    config.port_mappings.push(PortMapping {
        protocol: Protocol::Tcp.into(),
        container_port: 80,
        host_port: node.host_port().into(),
        ..PortMapping::default()
    });
    config
}

#[tokio::test]
async fn pods_of_network_plugins_reach_each_other_and_leave_nothing() {
    let Some(node) = node("a pod of network plugins").await else { return };
    configure(&node, "bridge");
    let cri = node.cri();
    assert_eq!(network_ready(&cri).await, Ok(()));
    let image = fixture::busybox();
    let _id = cri.pull(&image).await.or_fail("pull busybox");

    let named = ["run", "--rm", "--network", "pods", &image, "ip", "route"];
    assert!(node.hull(&named).good().contains("default"));
    let none = node.hull(&["run", "--rm", "--network", "nope", &image, "true"]);
    assert!(none.code == 125 && none.stderr.contains("`nope`"), "{none:?}");
    assert!(none.stderr.contains("pods"), "the hint names those that there are: {none:?}");

    let web = cri.run_pod_with(with_port(&node, "web")).await.or_fail("run the web pod");
    let page = "mkdir /www && echo served > /www/index.html && exec httpd -f -p 80 -h /www";
    let _web = cri.run(&web, shell("web", &image, page)).await;
    let ip = cri.pod_ip(&web).await;
    let client_pod = cri.run_pod("client").await.or_fail("run the client's pod");
    let client = cri.run_idle(&client_pod, "client", &image).await;
    let url = format!("http://{ip}/");
    let got = eventually("the other pod answers", || async {
        let got = cri.exec(&client, &["wget", "-q", "-O", "-", &url]).await.or_fail("exec wget");
        if got.code == 0 { Ok(got.stdout) } else { Err(got.stderr) }
    })
    .await;
    assert_eq!(got, "served\n");
    let url = format!("http://{}:{}/", node.gateway(), node.host_port());
    assert_eq!(run("curl", ["-s", "-m", "5", &url]).good(), "served\n", "by the host port");

    let taken = cri.run_pod_with(with_port(&node, "second")).await.unwrap_err();
    assert!(taken.message().contains("/web has"), "{}", taken.message());

    for pod in [&web, &client_pod] {
        cri.stop_pod(pod).await.or_fail("stop the pod");
        cri.stop_pod(pod).await.or_fail("stop it again");
    }
    assert_eq!(given(&node), [""; 0]);
    let rules = run("iptables-save", [""; 0]).good();
    assert!(!rules.contains(&node.host_port().to_string()), "{rules}");
}

#[tokio::test]
async fn a_node_is_ready_when_a_network_is_there_without_a_restart() {
    let Some(node) = node("a node without a network").await else { return };
    let cri = node.cri();
    let why = network_ready(&cri).await.unwrap_err();
    assert!(why.contains("net.d has no *.conflist") && why.contains("network plugin"), "{why}");
    let refused = cri.run_pod("early").await.unwrap_err();
    assert!(
        refused.message().contains("net.d") && refused.message().contains("hint:"),
        "{refused}"
    );
    node.nothing_is_left().await;

    configure(&node, "missing");
    let why = network_ready(&cri).await.unwrap_err();
    assert!(why.contains("find CNI plugin `missing`"), "{why}");
    configure(&node, "bridge");
    assert_eq!(network_ready(&cri).await, Ok(()));
    let pod = cri.run_pod("late").await.or_fail("run a pod");
    assert!(cri.pod_ip(&pod).await.starts_with("10.213."));
}

#[tokio::test]
async fn hull_check_judges_the_set_up_of_plugins() {
    let Some(node) = node("hull check of network plugins").await else { return };
    let config = node.names().root.join("hull.toml").display().to_string();
    let checked = || run(paths::hull(), ["--config", &config, "check"]);
    let of_network = |text: &str| -> String {
        let mut lines = text.lines().skip_while(|line| !line.contains("pod network"));
        let first = lines.next().unwrap_or_default().to_owned();
        lines.fold(first, |text, line| text + "\n" + line)
    };
    let none = checked();
    let said = of_network(&none.stdout);
    assert!(none.code == 1 && said.starts_with("MISSING"), "{none:?}");
    assert!(said.contains("net.d has no *.conflist") && said.contains("hint: install"), "{said}");

    configure(&node, "missing");
    let said = of_network(&checked().stdout);
    assert!(said.starts_with("MISSING") && said.contains("find CNI plugin `missing`"), "{said}");
    assert!(said.contains("hint: install `missing`") && said.contains("bin_dirs"), "{said}");

    configure(&node, "watched");
    let conf_dir = dir(node.names()).join("net.d");
    fs::write(conf_dir.join("00-broken.conflist"), "{").or_fail("write a broken file");
    let said = of_network(&checked().stdout);
    assert!(said.starts_with("ok"), "{said}");
    assert!(said.contains("`pods` (watched, portmap; CNI 1.0.0) of "), "{said}");
    assert!(
        said.contains("warning") && said.contains("00-broken.conflist is not usable"),
        "{said}"
    );
    // It looks and attaches nothing.
    let calls = fs::read_to_string(dir(node.names()).join("bin/calls")).unwrap_or_default();
    assert!(!calls.contains("ADD"), "{calls}");
    fs::remove_file(conf_dir.join("00-broken.conflist")).or_fail("remove the broken file");
    assert_eq!(network_ready(&node.cri()).await, Ok(()), "the daemon is as it was");
}

#[tokio::test]
async fn a_plugin_that_will_not_let_go_is_asked_until_it_does() {
    let Some(mut node) = node("a failing DEL").await else { return };
    configure(&node, "watched");
    let cri = node.cri();
    let pod = cri.run_pod("web").await.or_fail("run a pod");
    let refuse = dir(node.names()).join("bin/refuse.DEL");
    fs::write(&refuse, "").or_fail("have the plugin refuse");
    let err = cri.stop_pod(&pod).await.unwrap_err();
    assert!(err.message().contains("`watched` (DEL) of network `pods`"), "{}", err.message());
    assert!(err.message().contains("the agent is away"), "{}", err.message());
    assert_eq!(given(&node).len(), 1, "its address is not given out again");
    let metrics = Scrape::of(&node);
    for called in ["command=\"ADD\",result=\"success\"", "command=\"DEL\",result=\"error\""] {
        let count = metrics.value(&format!("hull_cni_calls_total{{{called}}}"));
        assert!(count >= 1.0, "{called}: {count}");
    }
    assert!(metrics.value("hull_cni_call_seconds_total{command=\"ADD\"}") > 0.0);
    // A restart does not make it forgotten either.
    node.restart().await;
    assert_eq!(given(&node).len(), 1);
    fs::remove_file(&refuse).or_fail("let the plugin work");
    eventually("the pod is detached without being asked again", || async {
        if given(&node).is_empty() { Ok(()) } else { Err(format!("{:?}", given(&node))) }
    })
    .await;
    let cri = node.cri();
    cri.stop_pod(&pod).await.or_fail("stop the pod");
    let status =
        cri.pod_status(&pod).await.or_fail("get the pod's status").status.unwrap_or_default();
    assert_eq!(status.state(), PodSandboxState::SandboxNotready);
}

#[tokio::test]
async fn a_daemon_killed_while_a_plugin_attaches_leaves_nothing() {
    let Some(mut node) = node("a kill in the middle of ADD").await else { return };
    configure(&node, "watched");
    let gate = dir(node.names()).join("bin/wait.ADD");
    let _made = run("mkfifo", [&gate]).good();
    let cri = node.cri();
    let starting = tokio::spawn(async move { cri.run_pod("web").await });
    let calls = dir(node.names()).join("bin/calls");
    eventually("the plugin runs", || async {
        let calls = fs::read_to_string(&calls).unwrap_or_default();
        if calls.contains("ADD") { Ok(()) } else { Err(calls) }
    })
    .await;
    node.kill();
    let _failed = starting.await;
    fs::remove_file(&gate).or_fail("take the gate away");
    node.start_again().await;
    node.nothing_is_left().await;
    assert_eq!(given(&node), [""; 0]);
    let cri = node.cri();
    let pod = cri.run_pod("web").await.or_fail("run the pod again");
    cri.stop_pod(&pod).await.or_fail("stop it");
}

// SPDX-License-Identifier: Apache-2.0
//! The reference plugins, as clusters chain them.

use crate::common::on_a_host;
use crate::support::{Host, REFERENCE, TestPod, reference_plugins, run, sentence};
use hull_network::Bandwidth;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

fn here(plugins: &[&str]) -> bool {
    let mut paths: Vec<String> = plugins.iter().map(|name| format!("{REFERENCE}/{name}")).collect();
    paths.push("/usr/sbin/iptables".into());
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    reference_plugins(&paths)
}

fn ipam(host: &Host, subnet: &str) -> String {
    format!(
        r#"{{"type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "{subnet}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}"#,
        host.dir.path().join("ipam").display()
    )
}

/// Addresses that host-local has given out.
fn given(host: &Host, network: &str) -> Vec<String> {
    let dir = host.dir.path().join("ipam").join(network);
    let names = fs::read_dir(dir).into_iter().flatten().map(|of| of.unwrap().file_name());
    names
        .map(|name| name.into_string().unwrap())
        .filter(|name| name.parse::<IpAddr>().is_ok())
        .collect()
}

fn fetch(to: SocketAddr) -> String {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Greets one caller on port 80 of the pod.
fn serve(pod: &TestPod) -> std::thread::JoinHandle<()> {
    let listener = pod.within(|| TcpListener::bind("0.0.0.0:80").unwrap());
    std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello").unwrap())
}

fn links() -> String {
    run("ip", &["-o", "link", "show"])
}

#[test]
fn the_usual_chain_serves_pods_and_leaves_nothing() {
    on_a_host(|| {
        if !here(&["bridge", "host-local", "portmap", "bandwidth", "firewall", "tuning"]) {
            return;
        }
        let host = Host::with(&[]);
        let ipam = ipam(&host, "10.214.9.0/24");
        host.conf(
            "10.conflist",
            &format!(
                r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [
                {{"type": "bridge", "bridge": "cni-test0", "isGateway": true, "hairpinMode": true, "ipam": {ipam}}},
                {{"type": "portmap", "capabilities": {{"portMappings": true}}}},
                {{"type": "bandwidth", "capabilities": {{"bandwidth": true}}}},
                {{"type": "firewall"}},
                {{"type": "tuning", "sysctl": {{"net.core.somaxconn": "511"}}}}]}}"#
            ),
        );
        run("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "far"]);
        run("ip", &["addr", "add", "192.0.2.10/24", "dev", "uplink"]);
        run("ip", &["link", "set", "uplink", "up"]);
        run("ip", &["link", "set", "far", "up"]);
        let mut web = TestPod::with_port(1, 8080, 80);
        web.bandwidth = Bandwidth { ingress_bits: Some(80_000_000), egress_bits: Some(80_000_000) };
        let client = TestPod::new(2);
        let ip = host.attach(&web).unwrap_or_else(|err| panic!("{}", sentence(&err)))[0];
        host.attach(&client).unwrap_or_else(|err| panic!("{}", sentence(&err)));

        let served = serve(&web);
        assert_eq!(client.within(|| fetch(SocketAddr::new(ip, 80))), "hello");
        served.join().unwrap();
        let served = serve(&web);
        assert_eq!(fetch("192.0.2.10:8080".parse().unwrap()), "hello", "by the host port");
        served.join().unwrap();
        let tuned = web.within(|| run("sysctl", &["-n", "net.core.somaxconn"]));
        assert_eq!(tuned.trim(), "511");

        assert_eq!(given(&host, "pods").len(), 2);
        host.cni.detach(&web.id).unwrap();
        host.cni.detach(&client.id).unwrap();
        assert_eq!(given(&host, "pods"), [""; 0]);
        let links = links();
        let names = ["lo", "uplink", "far", "cni-test0"];
        assert_eq!(links.lines().count(), names.len(), "only {names:?} is left: {links}");
        let rules = run("iptables-save", &[]);
        assert!(!rules.contains("8080") && !rules.contains("10.214.9."), "{rules}");
        assert_eq!(host.left(), [""; 0]);
    });
}

/// Whether links of this kind can be made, on top of `uplink`.
fn kernel_has(kind: &str) -> bool {
    let args: &[&str] = match kind {
        "vlan" => &["link", "add", "link", "uplink", "name", "tried", "type", "vlan", "id", "9"],
        "ptp" => return true,
        _ => &["link", "add", "link", "uplink", "name", "tried", "type", kind],
    };
    let made = Command::new("ip").args(args).output().unwrap().status.success();
    if made {
        run("ip", &["link", "delete", "tried"]);
    }
    made
}

#[test]
fn links_of_other_kinds_are_attached_as_well() {
    on_a_host(|| {
        if !here(&["ptp", "macvlan", "ipvlan", "vlan", "host-local"]) {
            return;
        }
        let host = Host::with(&[]);
        run("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "far"]);
        run("ip", &["link", "set", "uplink", "up"]);
        run("ip", &["link", "set", "far", "up"]);
        for (number, (kind, more)) in [
            ("ptp", ""),
            ("macvlan", r#""master": "uplink","#),
            ("ipvlan", r#""master": "uplink","#),
            ("vlan", r#""master": "uplink", "vlanId": 5,"#),
        ]
        .into_iter()
        .enumerate()
        {
            if !kernel_has(kind) {
                eprintln!("NOT RUN: this kernel has no {kind} links");
                continue;
            }
            let network = format!("net-{kind}");
            let ipam = ipam(&host, &format!("10.215.{number}.0/24"));
            host.conf(
                "10.conf",
                &format!(r#"{{"cniVersion": "0.4.0", "name": "{network}", "type": "{kind}", {more} "ipam": {ipam}}}"#),
            );
            let pod = TestPod::new(7);
            let ips = host.attach(&pod).unwrap_or_else(|err| panic!("{kind}: {}", sentence(&err)));
            let inside = pod.within(|| run("ip", &["-o", "addr", "show", "eth0"]));
            assert!(inside.contains(&ips[0].to_string()), "{kind}: {inside}");
            assert!(
                pod.within(|| run("ip", &["-o", "link", "show", "lo"])).contains("UP"),
                "{kind}"
            );
            host.cni.check_pod(&pod.id).unwrap_or_else(|err| panic!("{kind}: {err}"));
            pod.within(|| run("ip", &["addr", "flush", "dev", "eth0"]));
            let err = host.cni.check_pod(&pod.id).unwrap_err().to_string();
            assert!(err.contains(&format!("`{kind}` (CHECK)")), "{err}");
            host.cni.detach(&pod.id).unwrap();
            assert_eq!(given(&host, &network), [""; 0], "{kind}");
        }
        assert_eq!(links().lines().count(), 3, "lo and the uplink's ends: {}", links());
        assert_eq!(host.left(), [""; 0]);
    });
}

#[test]
fn a_full_range_says_so() {
    on_a_host(|| {
        if !here(&["ptp", "host-local"]) {
            return;
        }
        let host = Host::with(&[]);
        let ipam = ipam(&host, "10.216.0.0/30");
        host.conf(
            "10.conf",
            &format!(
                r#"{{"cniVersion": "1.0.0", "name": "small", "type": "ptp", "ipam": {ipam}}}"#
            ),
        );
        let first = TestPod::new(1);
        host.attach(&first).unwrap();
        let err = sentence(&host.attach(&TestPod::new(2)).unwrap_err());
        assert!(
            err.contains("`ptp` (ADD) of network `small`")
                && err.contains("no IP addresses available"),
            "{err}"
        );
        assert_eq!(host.cni.attachments(), std::slice::from_ref(&first.id));
        host.cni.detach(&first.id).unwrap();
        assert_eq!(given(&host, "small"), [""; 0]);
    });
}

/// Some hundred steps of what the tool does ten thousand times.
#[test]
fn killed_daemons_and_dying_plugins_leak_nothing() {
    if !here(&["bridge", "host-local", "portmap"]) {
        return;
    }
    let me = std::env::current_exe().unwrap();
    let soak = me.parent().unwrap().parent().unwrap().join("examples/soak");
    for (mode, steps) in [("cni", "60"), ("bridge", "200")] {
        let ran = Command::new(&soak).args([mode, steps]).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("nothing is left"), "{mode}: {said}");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! Two daemons in two network namespaces that stand for machines, joined by a wire: pods reach each
//! other across nodes by their own addresses.
//!
//! ```text
//!   node a (hlt<n>)                             node b (hlt<m>)
//!   pod ── bridge ── 10.212.x.1 ═══ wire ═══ 10.212.x.2 ── bridge ── pod
//!                    └── vx0 10.212.x.5 ·····vxlan····· 10.212.x.6 ──┘   (the overlay)
//! ```

use hull_tests::cri::shell;
use hull_tests::image::oci_archive;
use hull_tests::shell::run;
use hull_tests::{Cri, ExpectExt as _, Node, eventually, fixture, paths};
use std::fs;
use std::path::{Path, PathBuf};

const IMAGE: &str = "example.org/busybox:1";
const WIRE_MTU: u32 = 1400;

/// Two machines and the wire between them. Gone when dropped.
struct Wire {
    /// Made unique by the process: test runs do not meet.
    name: String,
}

impl Wire {
    fn new(name: &str) -> Self {
        let wire = Self { name: format!("hltw{}{name}", std::process::id()) };
        for end in ["a", "b"] {
            let _made = run("ip", ["netns", "add", &wire.machine(end)]).good();
            wire.on(end, "link set lo up");
        }
        let (a, b) = (wire.machine("a"), wire.machine("b"));
        wire.on(
            "a",
            &format!(
                "link add wire mtu {WIRE_MTU} type veth peer name wire mtu {WIRE_MTU} netns {b}"
            ),
        );
        for (end, own, other) in [("a", 1, 2), ("b", 2, 1)] {
            wire.on(end, &format!("addr add 10.212.0.{own}/30 dev wire"));
            wire.on(end, "link set wire up");
            wire.on(end, &format!("route add default via 10.212.0.{other}"));
        }
        drop(a);
        wire
    }

    fn machine(&self, end: &str) -> String {
        format!("{}{end}", self.name)
    }

    fn path(&self, end: &str) -> PathBuf {
        Path::new("/run/netns").join(self.machine(end))
    }

    /// Runs `ip` on one of the machines.
    fn on(&self, end: &str, args: &str) {
        let machine = self.machine(end);
        let _said = run("ip", ["-n", &machine].into_iter().chain(args.split(' '))).good();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for end in ["a", "b"] {
            drop(run("ip", ["netns", "delete", &self.machine(end)]));
        }
    }
}

/// A page of a megabyte, served by a pod that tells who asked for it.
async fn serve(node: &Node, archive: &Path) -> (Cri, String, String) {
    let _said = node.hull(&["import", &archive.display().to_string()]).good();
    let cri = node.cri();
    let pod = cri.run_pod("web").await.or_fail("run the serving pod");
    let page =
        "mkdir /www && head -c 1000000 /dev/zero > /www/page && exec httpd -f -v -p 80 -h /www";
    let web = cri.run(&pod, shell("web", IMAGE, page)).await;
    let ip = cri.pod_ip(&pod).await;
    (cri, web, ip)
}

/// Fetches the other node's page from a pod of this one, and looks at the addresses and the MTU.
async fn fetch(from: &Node, archive: &Path, to: &(Cri, String, String), mtu: u32) {
    let _said = from.hull(&["import", &archive.display().to_string()]).good();
    let (server_cri, server, server_ip) = to;
    let cri = from.cri();
    let pod = cri.run_pod("client").await.or_fail("run the asking pod");
    let client = cri.run_idle(&pod, "client", IMAGE).await;
    let ask = format!("wget -q -O - http://{server_ip}/page | wc -c");
    eventually(format!("{server_ip} on the other node answers"), || async {
        let got = cri.exec(&client, &["sh", "-c", &ask]).await.or_fail("exec wget");
        if got.stdout.trim() == "1000000" { Ok(()) } else { Err(format!("{got:?}")) }
    })
    .await;
    let ip = cri.pod_ip(&pod).await;
    eventually("the server saw the pod's own address", || async {
        let logs = server_cri.logs(server).await;
        let said = hull_tests::cri::text(&logs, "stderr");
        if said.contains(&ip) { Ok(()) } else { Err(said) }
    })
    .await;
    let got = cri.exec(&client, &["cat", "/sys/class/net/eth0/mtu"]).await.or_fail("read the MTU");
    assert_eq!(got.stdout.trim(), mtu.to_string(), "the pod's MTU is that of the way out");
}

fn archive(name: &str) -> PathBuf {
    let path = paths::fixtures().join(format!("two-nodes-{name}.tar"));
    fs::write(&path, oci_archive(&fixture::busybox_image().pack(), IMAGE))
        .or_fail("write the image");
    path
}

#[tokio::test]
async fn pods_of_two_nodes_reach_each_other_by_their_own_addresses() {
    let wire = Wire::new("r");
    let archive = archive("routed");
    for settings in ["masquerade = false", "masquerade = true\ncluster_cidrs = [\"10.213.0.0/16\"]"]
    {
        let settings = |_: &hull_tests::host::Names| settings.to_owned();
        let a = Node::start_in(wire.path("a"), settings).await;
        let b = Node::start_in(wire.path("b"), settings).await;
        wire.on("a", &format!("route replace {} via 10.212.0.2", b.subnet()));
        wire.on("b", &format!("route replace {} via 10.212.0.1", a.subnet()));
        let served = serve(&b, &archive).await;
        fetch(&a, &archive, &served, WIRE_MTU).await;
        // The next two nodes may have these subnets the other way round.
        wire.on("a", &format!("route del {}", b.subnet()));
        wire.on("b", &format!("route del {}", a.subnet()));
        drop((a, b));
    }
}

#[tokio::test]
async fn pods_of_two_nodes_reach_each_other_over_an_overlay_by_plugins() {
    let test = "an overlay by plugins";
    if !Path::new("/usr/lib/cni/bridge").is_file() {
        paths::cannot_run(test, "CNI plugins (apt-get install containernetworking-plugins)");
        return;
    }
    let wire = Wire::new("v");
    let archive = archive("overlay");
    let settings = |names: &hull_tests::host::Names| {
        let at = |dir: &str| names.root.join(dir).display().to_string();
        format!(
            "mode = \"cni\"\n[network.cni]\nconf_dir = {:?}\nnetns_dir = {:?}\n",
            at("host/net.d"),
            at("state/netns")
        )
    };
    let a = Node::start_in(wire.path("a"), settings).await;
    let b = Node::start_in(wire.path("b"), settings).await;
    // What flannel's agent sets up: a vxlan link per node, routes over it, and the bridge plugin with
    // the room that the overlay leaves (50 bytes of headers).
    let mtu = WIRE_MTU - 50;
    for (end, node, other, own, far) in [("a", &a, &b, 1, 2), ("b", &b, &a, 2, 1)] {
        wire.on(end, &format!("link add vx0 mtu {mtu} type vxlan id 7 dstport 4789 remote 10.212.0.{far} local 10.212.0.{own} dev wire"));
        wire.on(end, &format!("addr add 10.212.0.{}/30 dev vx0", own + 4));
        wire.on(end, "link set vx0 up");
        wire.on(end, &format!("route add {} via 10.212.0.{}", other.subnet(), far + 4));
        let conf_dir = node.names().root.join("host/net.d");
        fs::create_dir_all(&conf_dir).or_fail("make the directory of networks");
        let text = format!(
            r#"{{"cniVersion": "1.0.0", "name": "overlay", "plugins": [
                {{"type": "bridge", "bridge": "cni0", "isGateway": true, "mtu": {mtu}, "ipam": {{"type": "host-local",
                  "dataDir": "{}", "ranges": [[{{"subnet": "{}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}}"#,
            node.names().root.join("host/ipam").display(),
            node.subnet(),
        );
        fs::write(conf_dir.join("10-overlay.conflist"), text).or_fail("configure the network");
    }
    let served = serve(&b, &archive).await;
    fetch(&a, &archive, &served, mtu).await;
    drop((a, b));
}

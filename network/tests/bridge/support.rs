// SPDX-License-Identifier: Apache-2.0
//! Hosts, pods and neighbours for tests of the bridge, and what they say to each other.

use hull_network::{
    Attachment, Bandwidth, BuiltinNetwork, Config, LinkMode, Pod, PortMapping, Protocol,
};
use hull_sys::netns;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Host {
    pub(crate) bridge: BuiltinNetwork,
    pub(crate) dir: tempfile::TempDir,
}

/// A pod: its namespace, what it got.
pub(crate) struct Attached {
    pub(crate) netns: OwnedFd,
    pub(crate) got: Attachment,
}

impl Attached {
    pub(crate) fn ip(&self) -> IpAddr {
        self.got.ips[0].addr()
    }

    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::within(self.netns.as_fd(), work).unwrap()
    }
}

pub(crate) fn config(dir: &tempfile::TempDir, pod_cidr: &[&str]) -> Config {
    Config {
        link_mode: LinkMode::Bridge,
        uplink: None,
        bridge: "hulltest0".into(),
        pod_cidr: pod_cidr.iter().map(|net| net.parse().unwrap()).collect(),
        mtu: None,
        masquerade: true,
        cluster_cidrs: Vec::new(),
        wait_for_pod_cidr: false,
        table: "hulltest".into(),
        state_dir: dir.path().join("leases"),
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(&["10.214.7.0/24"])
    }

    pub(crate) fn with(pod_cidr: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { bridge: BuiltinNetwork::open(config(&dir, pod_cidr)).unwrap(), dir }
    }

    pub(crate) fn attach(&self, number: u32, ports: &[PortMapping]) -> Attached {
        let netns = netns::create().unwrap();
        let got = self.try_attach(number, &netns, ports).unwrap();
        Attached { netns, got }
    }

    pub(crate) fn try_attach(
        &self,
        number: u32,
        netns: &OwnedFd,
        ports: &[PortMapping],
    ) -> Result<Attachment, hull_network::Error> {
        self.try_attach_at(number, netns, ports, Bandwidth::default())
    }

    pub(crate) fn try_attach_at(
        &self,
        number: u32,
        netns: &OwnedFd,
        ports: &[PortMapping],
        bandwidth: Bandwidth,
    ) -> Result<Attachment, hull_network::Error> {
        let id = id(number);
        self.bridge.attach(&Pod { id: &id, short: &id[..11] }, netns.as_fd(), ports, bandwidth)
    }
}

pub(crate) fn id(number: u32) -> String {
    format!("{number:011x}{}", "0".repeat(53))
}

pub(crate) fn port(host_port: u16) -> PortMapping {
    PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port, host_ip: None }
}

pub(crate) fn port_at(host_port: u16, host_ip: &str) -> PortMapping {
    PortMapping { host_ip: Some(host_ip.parse().unwrap()), ..port(host_port) }
}

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Greets as many callers as are asked for, and tells who called. Called in the namespace to listen in.
pub(crate) fn serve(at: SocketAddr, times: usize) -> JoinHandle<Vec<IpAddr>> {
    let listener = TcpListener::bind(at).unwrap();
    std::thread::spawn(move || {
        let greet = |_| {
            let (mut stream, peer) = listener.accept().unwrap();
            stream.write_all(b"hello").unwrap();
            peer.ip()
        };
        (0..times).map(greet).collect()
    })
}

pub(crate) fn try_fetch(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text)
}

pub(crate) fn fetch(to: &str) -> String {
    try_fetch(at(to)).unwrap_or_else(|err| panic!("{to}: {err}"))
}

pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let ran = Command::new(program).args(args).output().unwrap();
    assert!(ran.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

pub(crate) fn ip(line: &str) -> String {
    run("ip", &line.split(' ').collect::<Vec<_>>())
}

pub(crate) fn links() -> Vec<String> {
    // Without what changes when another link comes: indices, counters of the bridge.
    let all = ip("-o link");
    all.lines()
        .map(|line| line.split(':').nth(1).unwrap().trim().split('@').next().unwrap().to_owned())
        .collect()
}

pub(crate) fn table() -> String {
    run("nft", &["list", "table", "inet", "hulltest"])
}

/// Has bridged packets pass the IP rules, as nodes with kube-proxy have it, or not; in this namespace.
pub(crate) fn bridge_netfilter(on: bool) {
    let setting = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if !setting.try_exists().unwrap() {
        run("modprobe", &["br_netfilter"]);
    }
    std::fs::write(setting, if on { "1" } else { "0" }).unwrap();
}

/// A neighbour of the host, with a link to it: 198.51.100.1 is the host, 198.51.100.2 the neighbour.
pub(crate) fn neighbour() -> OwnedFd {
    let outside = netns::create().unwrap();
    let at = format!("/proc/{}/fd/{}", std::process::id(), outside.as_raw_fd());
    ip(&format!("link add cable0 mtu 1400 type veth peer name cable1 mtu 1400 netns {at}"));
    ip("addr add 198.51.100.1/24 dev cable0");
    ip("addr add 2001:db8::1/64 dev cable0 nodad");
    ip("link set cable0 up");
    netns::within(outside.as_fd(), || {
        ip("addr add 198.51.100.2/24 dev cable1");
        ip("addr add 2001:db8::2/64 dev cable1 nodad");
        ip("link set cable1 up");
    })
    .unwrap();
    outside
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let look = || if holds() { Ok(()) } else { Err(what.to_owned()) };
    hull_tests::eventually::blocking(PATIENCE, look).unwrap();
}

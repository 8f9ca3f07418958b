// SPDX-License-Identifier: Apache-2.0
//! The pod network on a real kernel. The "host" is a network namespace of the test's own, so the
//! real host's links and tables are never touched.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says what went wrong by panicking"
)]

use hull_network::{Bridge, Config, Pod, PortMapping, Protocol};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;
use std::time::Duration;

/// Runs a test inside a fresh namespace that stands for the host.
fn on_a_host(test: impl FnOnce() + Send) {
    let host = match hull_sys::netns::create() {
        Ok(host) => host,
        Err(err) => {
            assert!(
                std::env::var_os("TESTS_MUST_RUN").is_none(),
                "cannot make a network namespace: {err}"
            );
            eprintln!("NOT RUN: cannot make a network namespace: {err} (run as root)");
            return;
        }
    };
    hull_network::loopback_up(host.as_fd()).unwrap();
    hull_sys::netns::within(host.as_fd(), test).unwrap();
}

struct Host {
    bridge: Bridge,
    dir: tempfile::TempDir,
}

fn config(dir: &tempfile::TempDir) -> Config {
    Config {
        bridge: "hulltest0".into(),
        pod_cidr: vec!["10.214.7.0/24".parse().unwrap()],
        mtu: None,
        masquerade: true,
        table: "hulltest".into(),
        state_dir: dir.path().join("leases"),
    }
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { bridge: Bridge::open(config(&dir)).unwrap(), dir }
    }

    fn attach(&self, number: u32, ports: &[PortMapping]) -> (OwnedFd, IpAddr) {
        let netns = hull_sys::netns::create().unwrap();
        let id = id(number);
        let pod = Pod { id: &id, short: &id[..11] };
        let attached = self.bridge.attach(&pod, netns.as_fd(), ports).unwrap();
        (netns, attached.ips[0].addr())
    }
}

fn id(number: u32) -> String {
    format!("{number:011x}{}", "0".repeat(53))
}

fn port(host_port: u16) -> PortMapping {
    PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port, host_ip: None }
}

/// Serves one greeting per connection in `netns`, for as many as are asked for; tells who called.
fn serve(
    netns: &OwnedFd,
    ip: IpAddr,
    port: u16,
    times: usize,
) -> std::thread::JoinHandle<Vec<IpAddr>> {
    let listener =
        hull_sys::netns::within(netns.as_fd(), || TcpListener::bind((ip, port)).unwrap()).unwrap();
    std::thread::spawn(move || {
        (0..times)
            .map(|_| {
                let (mut stream, peer) = listener.accept().unwrap();
                stream.write_all(b"hello").unwrap();
                peer.ip()
            })
            .collect()
    })
}

fn fetch(to: SocketAddr) -> String {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))
        .unwrap_or_else(|err| panic!("{to}: {err}"));
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn run(program: &str, args: &[&str]) -> String {
    let ran = Command::new(program).args(args).output().unwrap();
    assert!(ran.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn pods_reach_each_other_and_the_host_and_the_host_reaches_pods() {
    on_a_host(|| {
        let host = Host::new();
        let (first, first_ip) = host.attach(1, &[]);
        let (second, _) = host.attach(2, &[]);
        let server = serve(&first, first_ip, 80, 2);
        assert_eq!(fetch((first_ip, 80).into()), "hello", "the host reaches a pod");
        let text =
            hull_sys::netns::within(second.as_fd(), || fetch((first_ip, 80).into())).unwrap();
        assert_eq!(text, "hello", "a pod reaches a pod");
        server.join().unwrap();
        let listener = UdpSocket::bind("10.214.7.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        hull_sys::netns::within(second.as_fd(), || {
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"ping", at).unwrap();
        })
        .unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut text = [0; 8];
        let (got, _) = listener.recv_from(&mut text).unwrap();
        assert_eq!(&text[..got], b"ping", "a pod reaches the host");
    });
}

#[test]
fn a_host_port_is_reached_by_loopback_by_the_hosts_address_and_from_its_own_pod() {
    on_a_host(|| {
        let host = Host::new();
        let (pod, ip) = host.attach(3, &[port(8080)]);
        let server = serve(&pod, ip, 80, 3);
        for at in ["127.0.0.1:8080", "10.214.7.1:8080"] {
            assert_eq!(fetch(at.parse().unwrap()), "hello", "{at}");
        }
        let own =
            hull_sys::netns::within(pod.as_fd(), || fetch("10.214.7.1:8080".parse().unwrap()))
                .unwrap();
        assert_eq!(own, "hello");
        let peers = server.join().unwrap();
        assert!(peers.iter().all(|peer| *peer != ip), "the answers come back this way: {peers:?}");
        let table = run("nft", &["list", "table", "inet", "hulltest"]);
        assert!(table.contains("tcp . 8080") && table.contains("masquerade"), "{table}");
    });
}

#[test]
fn a_pod_does_not_reach_the_hosts_own_loopback() {
    on_a_host(|| {
        let host = Host::new();
        let (pod, _) = host.attach(11, &[port(8085)]);
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let open = UdpSocket::bind("10.214.7.1:0").unwrap();
        let open_at = open.local_addr().unwrap();
        hull_sys::netns::within(pod.as_fd(), || {
            // Sent by the bridge instead of the pod's own loopback.
            run("ip", &["route", "add", "local", "127.0.0.0/8", "dev", "lo", "table", "9"]);
            run("ip", &["route", "del", "table", "local", "127.0.0.0/8", "dev", "lo"]);
            run("ip", &["route", "del", "table", "local", "local", "127.0.0.1", "dev", "lo"]);
            run("ip", &["route", "add", "127.0.0.0/8", "via", "10.214.7.1"]);
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"evil", at).unwrap();
            socket.send_to(b"good", open_at).unwrap();
        })
        .unwrap();
        let mut text = [0; 8];
        open.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (got, _) = open.recv_from(&mut text).unwrap();
        assert_eq!(&text[..got], b"good");
        // What was sent after it has arrived: it would be here by now.
        listener.set_nonblocking(true).unwrap();
        listener.recv_from(&mut text).unwrap_err();
    });
}

#[test]
fn what_goes_elsewhere_has_the_hosts_address() {
    on_a_host(|| {
        let host = Host::new();
        let outside = hull_sys::netns::create().unwrap();
        // A neighbour of the host, over a cable of the test's own.
        let fd = std::os::fd::AsRawFd::as_raw_fd(&outside);
        let at = format!("/proc/{}/fd/{fd}", std::process::id());
        run(
            "ip",
            &["link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", &at],
        );
        run("ip", &["addr", "add", "192.0.2.1/24", "dev", "cable0"]);
        run("ip", &["link", "set", "cable0", "up"]);
        hull_sys::netns::within(outside.as_fd(), || {
            run("ip", &["addr", "add", "192.0.2.2/24", "dev", "cable1"]);
            run("ip", &["link", "set", "cable1", "up"]);
        })
        .unwrap();
        let (pod, pod_ip) = host.attach(4, &[port(8081)]);
        let server = serve(&outside, "192.0.2.2".parse().unwrap(), 80, 1);
        let text = hull_sys::netns::within(pod.as_fd(), || fetch("192.0.2.2:80".parse().unwrap()))
            .unwrap();
        assert_eq!(text, "hello");
        assert_eq!(server.join().unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        let ip = pod_ip.to_string();
        let server = serve(&pod, ip.parse().unwrap(), 80, 1);
        let text =
            hull_sys::netns::within(outside.as_fd(), || fetch("192.0.2.1:8081".parse().unwrap()))
                .unwrap();
        assert_eq!(text, "hello", "a host port is reached from outside");
        assert_eq!(
            server.join().unwrap(),
            ["192.0.2.2".parse::<IpAddr>().unwrap()],
            "who called is not hidden"
        );
    });
}

#[test]
fn detach_leaves_nothing_and_may_run_any_number_of_times() {
    on_a_host(|| {
        let host = Host::new();
        let before = run("ip", &["-o", "link"]).lines().count();
        let (netns, _) = host.attach(5, &[port(8082)]);
        assert!(run("nft", &["list", "table", "inet", "hulltest"]).contains("8082"));
        drop(netns);
        for _ in 0..3 {
            host.bridge.detach(&id(5)).unwrap();
        }
        assert!(!run("nft", &["list", "table", "inet", "hulltest"]).contains("8082"));
        assert_eq!(
            run("ip", &["-o", "link"]).lines().count(),
            before + 1,
            "only the bridge is new"
        );
        assert!(host.bridge.attachments().is_empty());
        host.bridge.remove().unwrap();
        assert_eq!(run("ip", &["-o", "link"]).lines().count(), before);
        assert_eq!(run("nft", &["list", "tables"]), "");
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    on_a_host(|| {
        let host = Host::new();
        let (_pod, _) = host.attach(6, &[port(8083)]);
        let links = run("ip", &["-o", "link"]).lines().count();
        let other = id(7);
        let pod = Pod { id: &other, short: &other[..11] };
        let netns = hull_sys::netns::create().unwrap();
        let err = host.bridge.attach(&pod, netns.as_fd(), &[port(8083)]).unwrap_err();
        assert!(err.to_string().contains(&id(6)), "{err}");
        let no_netns = std::fs::File::open("/dev/null").unwrap();
        host.bridge.attach(&pod, no_netns.as_fd(), &[]).unwrap_err();
        assert_eq!(run("ip", &["-o", "link"]).lines().count(), links);
        assert_eq!(host.bridge.attachments(), [id(6)]);
    });
}

#[test]
fn allocations_survive_a_restart_and_the_bridge_is_mended() {
    on_a_host(|| {
        let host = Host::new();
        let (pod, ip) = host.attach(8, &[port(8084)]);
        let again = Bridge::open(config(&host.dir)).unwrap();
        assert_eq!(again.attachments(), [id(8)]);
        run("nft", &["delete", "table", "inet", "hulltest"]);
        let netns = hull_sys::netns::create().unwrap();
        let other = id(9);
        let attached =
            again.attach(&Pod { id: &other, short: &other[..11] }, netns.as_fd(), &[]).unwrap();
        assert_ne!(attached.ips[0].addr(), ip, "no address twice");
        let server = serve(&pod, ip, 80, 1);
        assert_eq!(
            fetch("127.0.0.1:8084".parse().unwrap()),
            "hello",
            "ports of earlier pods are back"
        );
        server.join().unwrap();
    });
}

#[test]
fn a_foreign_link_with_the_bridges_name_is_an_error_with_the_mend() {
    on_a_host(|| {
        run("ip", &["link", "add", "hulltest0", "type", "veth", "peer", "name", "hulltest1"]);
        let host = Host::new();
        let err = host.bridge.check().unwrap_err();
        assert!(err.hint().is_some_and(|hint| hint.contains("ip link del hulltest0")), "{err}");
    });
}

#[test]
fn many_at_once_do_not_meet() {
    on_a_host(|| {
        let host = Host::new();
        let here = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let ips = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8u32)
                .map(|thread| {
                    let (host, here) = (&host, here.as_fd());
                    scope.spawn(move || {
                        hull_sys::netns::within(here, || {
                            (0..20)
                                .map(|at| host.attach(1000 + thread * 100 + at, &[]))
                                .collect::<Vec<_>>()
                        })
                        .unwrap()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let mut all: Vec<_> = ips.iter().map(|(_, ip)| *ip).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 160);
        for id in host.bridge.attachments() {
            host.bridge.detach(&id).unwrap();
        }
    });
}

// SPDX-License-Identifier: Apache-2.0
//! Packets between pods, the host, and other hosts.

use crate::common::on_a_host;
use crate::support::{
    Host, at, bridge_netfilter, fetch, id, ip, neighbour, port, port_at, run, serve, table,
    try_fetch,
};
use hull_sys::netns;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

#[test]
fn pods_and_host_reach_each_other() {
    on_a_host(|| {
        let host = Host::new();
        let (one, two) = (host.attach(1, &[]), host.attach(2, &[]));
        let web = SocketAddr::from((one.ip(), 80));
        let server = one.within(|| serve(web, 2));
        assert_eq!(try_fetch(web).unwrap(), "hello", "host to pod");
        assert_eq!(two.within(|| try_fetch(web).unwrap()), "hello", "pod to pod");
        assert_eq!(server.join().unwrap(), [at("10.214.7.1:0").ip(), two.ip()], "nobody is hidden");
        let server = serve(at("10.214.7.1:8099"), 1);
        assert_eq!(two.within(|| fetch("10.214.7.1:8099")), "hello", "pod to host");
        assert_eq!(server.join().unwrap(), [two.ip()]);
        assert_eq!(one.got.gateway, at("10.214.7.1:0").ip());
        let loopback = one.within(|| serve(at("127.0.0.1:81"), 1));
        assert_eq!(one.within(|| fetch("127.0.0.1:81")), "hello", "loopback is up");
        loopback.join().unwrap();
    });
}

/// A link that lets the first packet fall costs its pod a second.
#[test]
fn the_first_packet_after_attach_gets_through() {
    on_a_host(|| {
        let host = Host::new();
        let server = serve(at("0.0.0.0:8099"), 40);
        for number in 0..20 {
            let pod = host.attach(number, &[]);
            let web = SocketAddr::from((pod.ip(), 80));
            let inside = pod.within(|| serve(web, 1));
            let before = Instant::now();
            assert_eq!(try_fetch(web).unwrap(), "hello");
            assert_eq!(pod.within(|| fetch("10.214.7.1:8099")), "hello");
            assert!(
                before.elapsed() < Duration::from_millis(700),
                "pod {number}: {:?}",
                before.elapsed()
            );
            inside.join().unwrap();
            let quick = host.attach(100 + number, &[]);
            let before = Instant::now();
            assert_eq!(quick.within(|| fetch("10.214.7.1:8099")), "hello");
            assert!(
                before.elapsed() < Duration::from_millis(700),
                "pod {number}: {:?}",
                before.elapsed()
            );
        }
        server.join().unwrap();
    });
}

#[test]
fn what_goes_elsewhere_has_the_nodes_address() {
    on_a_host(|| {
        let outside = neighbour();
        let host = Host::new();
        let pod = host.attach(6, &[]);
        let server = netns::within(outside.as_fd(), || serve(at("198.51.100.2:80"), 1)).unwrap();
        assert_eq!(pod.within(|| fetch("198.51.100.2:80")), "hello");
        assert_eq!(server.join().unwrap(), [at("198.51.100.1:0").ip()]);
    });
}

#[test]
fn ipv6_does_all_that_ipv4_does() {
    on_a_host(|| {
        let outside = neighbour();
        let host = Host::with(&["10.214.7.0/24", "fd00:214::/64"]);
        let ports = [port(8080), port_at(8081, "2001:db8::1")];
        let (pod, other) = (host.attach(7, &ports), host.attach(8, &[]));
        assert_eq!(pod.got.ips.len(), 2);
        let six = pod.got.ips[1].addr();
        let web = SocketAddr::from((six, 80));
        let server = pod.within(|| serve(web, 7));
        assert_eq!(try_fetch(web).unwrap(), "hello", "host to pod");
        assert_eq!(other.within(|| try_fetch(web).unwrap()), "hello", "pod to pod");
        assert_eq!(fetch("[2001:db8::1]:8080"), "hello", "host port");
        for to in ["[2001:db8::1]:8080", "[2001:db8::1]:8081"] {
            assert_eq!(
                netns::within(outside.as_fd(), || fetch(to)).unwrap(),
                "hello",
                "{to} from outside"
            );
        }
        assert_eq!(pod.within(|| fetch("[2001:db8::1]:8080")), "hello", "from the pod itself");
        assert_eq!(other.within(|| fetch("[2001:db8::1]:8080")), "hello", "from another pod");
        server.join().unwrap();
        let server = netns::within(outside.as_fd(), || serve(at("[2001:db8::2]:80"), 1)).unwrap();
        assert_eq!(pod.within(|| fetch("[2001:db8::2]:80")), "hello");
        assert_eq!(
            server.join().unwrap(),
            [at("[2001:db8::1]:0").ip()],
            "leaves with the node's address"
        );
        host.bridge.detach(&id(7)).unwrap();
        assert!(!table().contains("8080"), "{}", table());
    });
}

/// A server on the node's 127.0.0.1 expects clients on the node only. Host ports that work over loopback must not
/// let pods in.
#[test]
fn a_pod_does_not_reach_the_nodes_loopback() {
    on_a_host(|| {
        let host = Host::new();
        let pod = host.attach(9, &[]);
        let victim = UdpSocket::bind("127.0.0.1:5999").unwrap();
        let open = UdpSocket::bind("10.214.7.1:5999").unwrap();
        for socket in [&victim, &open] {
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        }
        pod.within(|| {
            // A pod's root can make its own kernel send this.
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            ip("addr del 127.0.0.1/8 dev lo");
        });
        pod.within(|| {
            ip("route add 127.0.0.1/32 via 10.214.7.1");
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"forged", "127.0.0.1:5999").unwrap();
            socket.send_to(b"honest", "10.214.7.1:5999").unwrap();
        });
        let mut text = [0; 16];
        let length = open.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"honest");
        let got = victim.recv(&mut text);
        assert!(got.is_err(), "a pod's packet came to a socket on 127.0.0.1");
    });
}

/// Services are led to pods by somebody else's rules (kube-proxy), and policies need to see who calls.
#[test]
fn a_service_of_somebody_elses_rules_sees_the_calling_pod() {
    on_a_host(|| {
        bridge_netfilter(true);
        let host = Host::new();
        let (server, client) = (host.attach(10, &[port(8080)]), host.attach(11, &[]));
        let to = server.ip().to_string();
        let rule = format!(
            "add table ip svc; add chain ip svc pre {{ type nat hook prerouting priority -100; }}; \
             add rule ip svc pre ip daddr 10.96.0.1 tcp dport 80 dnat to {to}:80"
        );
        run("nft", &[&rule]);
        let web = SocketAddr::from((server.ip(), 80));
        let seen = server.within(|| serve(web, 1));
        assert_eq!(client.within(|| fetch("10.96.0.1:80")), "hello");
        assert_eq!(seen.join().unwrap(), [client.ip()]);
    });
}

#[test]
fn links_have_the_mtu_of_the_way_out() {
    on_a_host(|| {
        let _outside = neighbour();
        ip("route add default via 198.51.100.2");
        let host = Host::new();
        let pod = host.attach(1, &[]);
        let inside = pod.within(|| ip("link show eth0"));
        assert!(inside.contains("mtu 1400"), "{inside}");
        assert!(ip("link show hulltest0").contains("mtu 1400"));
    });
}

#[test]
fn counters_count_what_the_pod_got() {
    on_a_host(|| {
        let host = Host::new();
        let pod = host.attach(1, &[]);
        let sink = UdpSocket::bind("10.214.7.1:0").unwrap();
        let to = sink.local_addr().unwrap();
        let of = |name: &str| {
            let all = hull_network::interface_stats(pod.netns.as_fd()).unwrap();
            all.into_iter().find(|one| one.name == name).unwrap()
        };
        let before = of("eth0");
        pod.within(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&[0; 1000], to).unwrap());
        assert!(of("eth0").tx_bytes >= before.tx_bytes + 1000);
        assert_eq!(of("lo").tx_bytes, 0);
        assert_eq!(of("eth0").tx_errors + of("eth0").rx_errors, 0);
    });
}
